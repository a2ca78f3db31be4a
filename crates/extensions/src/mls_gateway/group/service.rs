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
    /// The answer itself.
    pub told: Told,
    /// Time at which the service was asked, in milliseconds since 1970. Of two answers the later question's counts.
    pub asked_at_ms: u64,
    /// Whether the time is written for an answer that changes no member too, so that no answer to an earlier question
    /// counts any more. The operator asks for that; writing it for each question would cost a write a question.
    pub is_refresh: bool,
    /// The bounds on the memberships that it makes.
    pub bounds: MembershipBounds,
}

/// See [`ServiceAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The members, at most [`super::GROUP_MEMBERS_MAX`].
    Members(HashMap<PublicKey, Role>),
    /// The service does not know the group.
    Unknown,
    /// The service gave no answer that counts: a managed group is closed until it answers a question of this time or
    /// later.
    Nothing,
}

impl ServiceAnswer {
    /// Whether a group of this status is as the answer says, and nothing is to be written.
    #[must_use]
    pub fn agrees_with(&self, status: &GroupStatus) -> bool {
        let GroupStatus::Managed(view) = status else { return !matches!(self.told, Told::Members(_)) };
        let is_service = view.record.source == Source::Acl;
        let agrees = match &self.told {
            Told::Members(members) => is_service && view.members == *members,
            Told::Unknown => !is_service || view.members.is_empty(),
            Told::Nothing => false,
        };
        agrees && !self.sets_time_of(status)
    }

    /// Whether the time of the question is written into the record of a group of this status, whatever its members are.
    #[must_use]
    pub fn sets_time_of(&self, status: &GroupStatus) -> bool {
        matches!(status, GroupStatus::Managed(view) if self.is_refresh || view.record.awaits_since_ms.is_some())
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
    if before.record.asked_at_ms.max(before.record.awaits_since_ms) > Some(answer.asked_at_ms) {
        return None;
    }
    let is_service = before.record.source == Source::Acl;
    let (source, members) = match &answer.told {
        Told::Members(members) => (Source::Acl, members.clone()),
        Told::Unknown if is_service => (Source::Acl, HashMap::new()),
        Told::Unknown | Told::Nothing => (before.record.source, before.members.clone()),
    };
    let (asked_at_ms, awaits_since_ms) = match &answer.told {
        Told::Nothing => (before.record.asked_at_ms, Some(answer.asked_at_ms)),
        Told::Members(_) | Told::Unknown => (Some(answer.asked_at_ms), None),
    };
    let record = GroupRecord { source, asked_at_ms, awaits_since_ms, ..before.record.clone() };
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
