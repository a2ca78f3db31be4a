//! Effects on groups, decided by [`nostr_extensions::mls_gateway::group`] from the state that the store finds.
//!
//! Source: docs/rules.md, "Groups" and "Memberships".

use nostr_extensions::{
    Admitted, GroupStatus, NostrGroupId, Source,
    gate::Touches,
    mls_gateway::group::{
        Changed, Invited, MembershipBounds, OrderedMessage, Refusal, RosterChange, Ruling, SeenEpoch, WrapChange,
        apply_roster, apply_wrap, next_epoch,
    },
};
use nostr_protocol::{EventId, PublicKey, UnixSecs, mutation};

use super::{
    event::{Decider, NotPut},
    lookup::Apply,
};

/// The reader that sends an event to a group, as far as the group knows its keys.
#[derive(Default)]
pub(super) struct Sender {
    is_managed: bool,
    /// Its keys that are members and have not acted in the group before.
    invited: Vec<(PublicKey, Invited)>,
}

/// A message to a group, as its effect has it.
pub(super) struct GroupMessage<'a> {
    pub(super) group: &'a NostrGroupId,
    pub(super) epoch: SeenEpoch,
    pub(super) order: Option<OrderedMessage>,
}

/// A membership that gives way to another: its key, its group, and its invitation.
type GivesWay = (PublicKey, NostrGroupId, Invited);

impl<S: Apply> Decider<'_, S> {
    /// Refuses a message to the group from a reader with these keys, if it may not send one now.
    pub(super) fn check_sender(
        &mut self,
        group: &NostrGroupId,
        keys: &[PublicKey],
        unlisted: bool,
    ) -> Result<Sender, NotPut<S::Error>> {
        let mut sender = Sender { is_managed: self.0.is_managed(group)?, invited: Vec::new() };
        let may_send = if sender.is_managed { self.find_members(group, keys, &mut sender)? } else { unlisted };
        let may_send = may_send || mutation!("save-sender");
        if may_send { Ok(sender) } else { Err(NotPut::refused(Refusal::no_member(keys))) }
    }

    /// Refuses a gift wrap to a group that has a record, if none of its reader's keys may send one there now.
    pub(super) fn check_inviter(&mut self, change: &WrapChange) -> Result<Sender, NotPut<S::Error>> {
        let Some(source) = self.0.source(&change.group)? else { return Ok(Sender::default()) };
        let mut sender = Sender { is_managed: true, invited: Vec::new() };
        let has_member = self.find_members(&change.group, &change.publishers, &mut sender)?;
        let is_from_inside = change.is_from_inside(source, |_| Ok::<_, S::Error>(has_member))?;
        if is_from_inside { Ok(sender) } else { Err(NotPut::refused(Refusal::stranger(&change.publishers))) }
    }

    /// Refuses an event to a group that awaits an answer of the access service: admission may have gone by the state
    /// before. Only a sender whom the members let in comes here, so a stranger learns nothing of the group.
    pub(super) fn check_open(&self, group: &NostrGroupId, admitted: &Admitted) -> Result<(), NotPut<S::Error>> {
        let is_closed = admitted.asks_service() && self.0.record(group)?.is_some_and(|record| record.awaits_answer());
        if is_closed { Err(NotPut::refused(Refusal::Closed)) } else { Ok(()) }
    }

    /// Whether one of the keys is a member. Notes those that have not acted.
    fn find_members(&self, group: &NostrGroupId, keys: &[PublicKey], sender: &mut Sender) -> Result<bool, S::Error> {
        let mut has_member = false;
        for key in keys {
            if let Some(membership) = self.0.membership(group, key)? {
                has_member = true;
                sender.invited.extend(membership.invited.map(|invited| (*key, invited)));
            }
        }
        Ok(has_member)
    }

    /// Notes that the sender's keys have acted in the group.
    fn act(&mut self, group: &NostrGroupId, sender: &Sender) -> Result<(), S::Error> {
        for (key, invited) in &sender.invited {
            self.0.act(group, key, invited)?;
        }
        Ok(())
    }

    /// Checks a message to a managed group against the order of its commits, and notes its epoch; any other group is
    /// marked as having carried an unlisted message. Returns the fault of a message that is stored all the same.
    pub(super) fn group_message(
        &mut self,
        id: EventId,
        message: &GroupMessage<'_>,
        sender: Sender,
        now: UnixSecs,
    ) -> Result<Option<Refusal>, NotPut<S::Error>> {
        let group = message.group;
        if !sender.is_managed {
            self.0.mark_unlisted(group)?;
            return Ok(None);
        }
        let advice = match message.order.filter(|order| order.asks()) {
            Some(order) => self.order(id, group, &order, now)?,
            None => None,
        };
        self.act(group, &sender)?;
        if message.epoch == SeenEpoch::Nowhere {
            return Ok(advice);
        }
        let last = self.0.last_epoch(group)?;
        if let Some(next) = next_epoch(last, message.epoch).filter(|next| Some(*next) != last) {
            self.0.raise_epoch(group, next)?;
        }
        Ok(advice)
    }

    /// Decides about a message by the order of its group's commits, and notes a commit that counts.
    fn order(
        &mut self,
        id: EventId,
        group: &NostrGroupId,
        message: &OrderedMessage,
        now: UnixSecs,
    ) -> Result<Option<Refusal>, NotPut<S::Error>> {
        let Some(record) = self.0.record(group)? else { return Ok(None) };
        let ruling = message.rule(record.commit_ordering, record.commits.as_ref(), id, now);
        let Ruling { log, advice } = ruling.map_err(NotPut::refused)?;
        if let Some(commits) = log {
            self.0.set_commits(group, commits)?;
        }
        Ok(advice)
    }

    /// Applies a roster. Returns the groups that it changed.
    pub(super) fn roster(&mut self, change: &RosterChange, admitted: &Admitted) -> Result<Touches, NotPut<S::Error>> {
        let (status, now) = (self.0.group(&change.group)?, admitted.received_at());
        let changed = apply_roster(&status, change, now);
        if !matches!(changed, Err(Refusal::NotAdmin)) {
            self.check_open(&change.group, admitted)?;
        }
        let mut changed = changed.map_err(NotPut::refused)?;
        self.count_invitations(&mut changed)?;
        let gives_way = self.memberships_that_give_way(&changed, &change.bounds, change.by_admin_key)?;
        let touches = self.change_members(&change.group, changed, gives_way, now)?;
        let signer = &change.signer;
        if let Some(invited) = self.0.membership(&change.group, signer)?.and_then(|membership| membership.invited) {
            self.0.act(&change.group, signer, &invited)?;
        }
        Ok(touches)
    }

    /// Applies a gift wrap, whose sender has been checked. Returns the groups that it changed.
    pub(super) fn wrap(
        &mut self,
        change: &WrapChange,
        sender: Sender,
        now: UnixSecs,
    ) -> Result<Touches, NotPut<S::Error>> {
        let mut touches = Touches::Nothing;
        // All members are read only of a group that gift wraps decide.
        if self.0.source(&change.group)?.is_none_or(|source| source == Source::GiftWrap) {
            let status = self.0.group(&change.group)?;
            let founded = match (&status, &change.founder) {
                (GroupStatus::Unknown, Some(founder)) => self.0.founded(founder, now)?,
                _ => 0,
            };
            if let Some(mut changed) = apply_wrap(&status, change, founded, now).map_err(NotPut::refused)? {
                self.count_invitations(&mut changed)?;
                let founds = changed.founder.is_some();
                let gives_way = self.memberships_that_give_way(&changed, &change.bounds, false);
                let gives_way = gives_way.map_err(|not_put| match not_put {
                    // No refused founding tells more than another.
                    NotPut::Answer(_) if founds => NotPut::refused(Refusal::stranger(&change.publishers)),
                    other => other,
                })?;
                touches = self.change_members(&change.group, changed, gives_way, now)?;
            }
        }
        self.act(&change.group, &sender)?;
        Ok(touches)
    }

    /// Counts for each membership that a change makes, how many of its key's making the member has now.
    fn count_invitations(&self, changed: &mut Changed) -> Result<(), S::Error> {
        for join in &mut changed.joined {
            if let Some(Invited { nth, by: Some(by), .. }) = &mut join.invited {
                let standing = self.0.invitations(&join.key, by)?;
                *nth = u16::try_from(standing).unwrap_or(u16::MAX).saturating_add(1);
            }
        }
        Ok(())
    }

    /// The memberships that have to give way to those that a change makes; refused where a bound leaves no room.
    /// `by_operator` says that an admin key makes them, which is told the key that has no room.
    fn memberships_that_give_way(
        &self,
        changed: &Changed,
        bounds: &MembershipBounds,
        by_operator: bool,
    ) -> Result<Vec<GivesWay>, NotPut<S::Error>> {
        // One key makes all memberships of a change.
        let mut inviters = changed.joined.iter().filter_map(|join| join.invited?.by);
        if let Some(inviter) = inviters.next() {
            let invited = u32::try_from(inviters.count()).unwrap_or(u32::MAX).saturating_add(1);
            if self.0.invited_by(&inviter)?.saturating_add(invited) > bounds.invited_max {
                return Err(NotPut::refused(Refusal::InvitedFull));
            }
        }
        let mut gives_way = Vec::new();
        for join in &changed.joined {
            if self.0.memberships(&join.key)? >= bounds.memberships_max {
                let full = || NotPut::refused(Refusal::MembershipsFull(by_operator.then_some(join.key)));
                let (group, invited) = self.0.first_to_give_way(&join.key)?.ok_or_else(full)?;
                if join.invited.is_some_and(|new| new.nth > invited.nth) {
                    return Err(full());
                }
                gives_way.push((join.key, group, invited));
            }
        }
        Ok(gives_way)
    }

    pub(super) fn change_members(
        &mut self,
        group: &NostrGroupId,
        changed: Changed,
        gives_way: Vec<GivesWay>,
        now: UnixSecs,
    ) -> Result<Touches, S::Error> {
        let mut touched = vec![group.clone()];
        for (key, left, invited) in gives_way {
            self.0.give_way(&left, &key, &invited)?;
            touched.push(left);
        }
        self.0.change_group(group, changed, now)?;
        Ok(Touches::groups(touched))
    }
}
