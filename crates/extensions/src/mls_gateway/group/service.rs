//! The members of a group as the operator's access service says (source `acl`).
//!
//! Source: docs/rules.md, "Access service". The service decides alone about each group that it knows, and a group that
//! it once knew stays its own.

use std::{collections::HashMap, sync::Arc};

use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    Changed, GroupRecord, GroupStatus, Join, ManagedGroup, MembershipBounds, NostrGroupId, Role, Source, change::delta,
};

/// An answer of the access service about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// The group.
    pub group: NostrGroupId,
    /// The members, at most [`super::GROUP_MEMBERS_MAX`]; `None` where the service does not know the group.
    pub members: Option<HashMap<PublicKey, Role>>,
    /// Time at which the service was asked, in milliseconds since 1970. Of two answers the later question's counts.
    pub asked_at_ms: u64,
    /// The bounds on the memberships that it makes.
    pub bounds: MembershipBounds,
}

impl ServiceAnswer {
    /// Whether a group of this status is as the answer says.
    #[must_use]
    pub fn agrees_with(&self, status: &GroupStatus) -> bool {
        match (status, &self.members) {
            (GroupStatus::Managed(view), members) if view.record.source == Source::Acl => match members {
                Some(members) => view.members == *members,
                None => view.members.is_empty(),
            },
            (_, members) => members.is_none(),
        }
    }
}

/// Applies an answer of the access service; `None` where it changes nothing.
#[must_use]
pub fn apply_service(status: &GroupStatus, answer: &ServiceAnswer, now: UnixSecs) -> Option<Changed> {
    if answer.agrees_with(status) {
        return None;
    }
    let nobody = ManagedGroup { record: GroupRecord::new(Source::Acl, 0, now, None), members: HashMap::new() };
    let before = match status {
        GroupStatus::Managed(view) => Arc::clone(view),
        GroupStatus::Unknown | GroupStatus::Unlisted => Arc::new(nobody),
    };
    // The answer to an earlier question has come late.
    if before.record.asked_at_ms > Some(answer.asked_at_ms) {
        return None;
    }
    let record = GroupRecord { source: Source::Acl, asked_at_ms: Some(answer.asked_at_ms), ..before.record.clone() };
    let members = answer.members.clone().unwrap_or_default();
    let delta = delta(&before.members, &members);
    let new = delta.iter().filter(|(key, role)| role.is_some() && !before.members.contains_key(key));
    // The operator vouches for them, as for those of an admin key's roster.
    let mut joined: Vec<Join> = new.map(|(key, _)| Join { key: *key, invited: None }).collect();
    joined.sort_unstable_by_key(|join| join.key);
    Some(Changed { view: ManagedGroup { record, members }, delta, joined, founder: None })
}

impl Changed {
    /// Leaves out keys that cannot become members.
    pub fn leave_out(&mut self, keys: &[PublicKey]) {
        self.view.members.retain(|key, _| !keys.contains(key));
        self.delta.retain(|(key, _)| !keys.contains(key));
        self.joined.retain(|join| !keys.contains(&join.key));
    }
}
