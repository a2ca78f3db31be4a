//! Effects on groups, decided by [`nostr_extensions::mls_gateway::group`] from the state that the store finds.
//!
//! Source: docs/rules.md, "Groups".

use nostr_extensions::{
    GroupStatus, NostrGroupId, Source,
    mls_gateway::group::{
        Refusal, RosterChange, SeenEpoch, WRAPPED_GROUPS_MAX, WrapChange, apply_roster, apply_wrap, next_epoch,
    },
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    event::{Decider, NotPut},
    lookup::Apply,
};

impl<S: Apply> Decider<'_, S> {
    /// Refuses a message to the group from a reader with these keys, if it may not send one now. Otherwise says whether
    /// the group is managed.
    pub(super) fn check_sender(
        &mut self,
        group: &NostrGroupId,
        keys: &[PublicKey],
        unlisted: bool,
    ) -> Result<bool, NotPut<S::Error>> {
        let is_managed = self.0.is_managed(group)?;
        let may_send = if is_managed { self.has_member(group, keys)? } else { unlisted };
        if may_send { Ok(is_managed) } else { Err(NotPut::refused(Refusal::no_member(keys))) }
    }

    /// Refuses a gift wrap to a group that has a record, if none of its reader's keys may send one there now. Otherwise
    /// says whether the group has a record.
    pub(super) fn check_inviter(&mut self, change: &WrapChange) -> Result<bool, NotPut<S::Error>> {
        let Some(source) = self.0.source(&change.group)? else { return Ok(false) };
        if change.is_from_inside(source, |key| self.0.is_member(&change.group, key))? {
            Ok(true)
        } else {
            Err(NotPut::refused(Refusal::stranger(&change.publishers)))
        }
    }

    fn has_member(&self, group: &NostrGroupId, keys: &[PublicKey]) -> Result<bool, S::Error> {
        for key in keys {
            if self.0.is_member(group, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes the epoch of a message to a managed group, and that any other group carried an unlisted message.
    pub(super) fn group_message(
        &mut self,
        group: &NostrGroupId,
        is_managed: bool,
        epoch: SeenEpoch,
    ) -> Result<(), S::Error> {
        if !is_managed {
            return self.0.mark_unlisted(group).map(drop);
        }
        if epoch == SeenEpoch::Nowhere {
            return Ok(());
        }
        let last = self.0.last_epoch(group)?;
        match next_epoch(last, epoch) {
            Some(next) if Some(next) != last => self.0.raise_epoch(group, next),
            _ => Ok(()),
        }
    }

    pub(super) fn roster(&mut self, change: &RosterChange, now: UnixSecs) -> Result<(), NotPut<S::Error>> {
        let status = self.0.group(&change.group)?;
        let changed = apply_roster(&status, change, now).map_err(NotPut::refused)?;
        Ok(self.0.change_group(&change.group, changed, now)?)
    }

    pub(super) fn wrap(&mut self, change: &WrapChange, now: UnixSecs) -> Result<(), NotPut<S::Error>> {
        // All members are read only of a group that gift wraps decide. Whether this reader may send the wrap has been
        // checked.
        if self.0.source(&change.group)?.is_some_and(|source| source != Source::GiftWrap) {
            return Ok(());
        }
        let status = self.0.group(&change.group)?;
        let founded = match (&status, &change.founder) {
            (GroupStatus::Unknown, Some(founder)) => self.0.founded(founder, now)?,
            _ => 0,
        };
        let Some(changed) = apply_wrap(&status, change, founded, now).map_err(NotPut::refused)? else { return Ok(()) };
        // Anyone may wrap to anyone, so a wrap adds no more memberships than a reader can bear.
        if self.0.is_in_groups(&change.recipient, WRAPPED_GROUPS_MAX)? {
            let founds = matches!(status, GroupStatus::Unknown);
            let stranger = Refusal::stranger(&change.publishers);
            return Err(NotPut::refused(if founds { stranger } else { Refusal::MembershipsFull(change.recipient) }));
        }
        Ok(self.0.change_group(&change.group, changed, now)?)
    }
}
