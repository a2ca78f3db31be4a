//! Questions of readers, each of which is paid for before the service is asked.
//!
//! Source: docs/rules.md, "Access service" 5 and 6. A [`Question`] follows from the reader and from the stored state of
//! the group. [`Question::pay`] is the only way from it to [`Paid`], and the service is asked nothing else, so no door
//! can have a question asked that nobody pays for. The relay's own questions are made in this module's parent alone.

use std::time::Instant;

use nostr_extensions::{Group, GroupStatus, NostrGroupId, Policy, Reader, Source};

use super::{Access, Age, Askers};
use crate::{
    app::App,
    rate_limit::{Cause, Payer, RetryAfter},
};

/// A question that a reader needs an answer to.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    id: NostrGroupId,
    age: Age,
    standing: Standing,
    cause: Cause,
}

/// The reader's standing in the group, by the stored state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The service named a key of the reader as a member.
    Member,
    /// An admin key or a group admin made a key of the reader a member, in a group that an admin key founded.
    Vouched,
    /// Anybody else: also a member of a group that anyone founded, for any number of own keys, whoever runs it now.
    Anybody,
}

impl Standing {
    fn of(reader: &Reader, state: &Group) -> Self {
        let GroupStatus::Managed(view) = &state.status else { return Self::Anybody };
        if !state.has_member(reader.keys()) {
            return Self::Anybody;
        }
        match view.record.source {
            Source::Acl => Self::Member,
            Source::Roster | Source::GiftWrap if view.record.is_anyones() => Self::Anybody,
            Source::Roster | Source::GiftWrap => Self::Vouched,
        }
    }
}

impl Question {
    /// The question about a group that the reader names, in this stored state. An answer that is cached for others
    /// counts for a member, and for an unlisted group: its id is no secret to a reader that names it.
    pub(crate) fn of_named(policy: &Policy, reader: &Reader, state: &Group) -> Self {
        let is_unlisted = !state.is_managed() && policy.unlisted_groups && state.id.is_capability();
        if is_unlisted || state.has_member(reader.keys()) {
            Self::of_open(reader, state, Cause::Named)
        } else {
            Self {
                id: state.id.clone(),
                age: Age::Since(Instant::now()),
                standing: Standing::Anybody,
                cause: Cause::Named,
            }
        }
    }

    /// The question about a group that this stored state opens to the reader: a cached answer is enough, unless the
    /// group waits for another one.
    pub(crate) fn of_open(reader: &Reader, state: &Group, cause: Cause) -> Self {
        let age = if state.awaits_answer() { Age::Since(Instant::now()) } else { Age::Cached };
        Self { id: state.id.clone(), age, standing: Standing::of(reader, state), cause }
    }

    /// Whether no cached answer counts.
    pub(crate) const fn asks_anew(&self) -> bool {
        matches!(self.age, Age::Since(_))
    }

    /// Takes the price of the question, if it has to be asked. A member that nobody can make for free pays nothing, nor
    /// does a key that the operator named: each group of theirs is asked about once in `group_cache_ttl`, whoever asks.
    ///
    /// # Errors
    /// When the payer has asked too much.
    pub(crate) fn pay(self, app: &App, access: &Access, payer: Payer) -> Result<Paid, RetryAfter> {
        let is_free = self.standing != Standing::Anybody || access.is_settled(&self.id, self.age);
        if let (Payer::Address(block), false) = (payer, is_free) {
            app.limits.question(block, self.cause, app.clock.now_ms())?;
        }
        let askers = match self.standing {
            Standing::Member => Askers::Members,
            Standing::Vouched | Standing::Anybody => Askers::Others(app.limits.payer_hash(payer)),
        };
        Ok(Paid { id: self.id, age: self.age, askers })
    }
}

/// A question that may be asked.
#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub(super) id: NostrGroupId,
    pub(super) age: Age,
    pub(super) askers: Askers,
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use nostr_extensions::{GroupRecord, ManagedGroup, Role};
    use nostr_protocol::testing::key;

    use super::*;

    fn group(source: Source, founder: Option<&str>, members: &[&str]) -> Group {
        let members = members.iter().map(|name| (key(name), Role::Member)).collect::<HashMap<_, _>>();
        let view = ManagedGroup { record: GroupRecord::new(source, 1, 0, founder.map(key)), members };
        let id = NostrGroupId::parse("grp").expect("an id");
        Group { id, status: GroupStatus::Managed(Arc::new(view)) }
    }

    /// The members' share belongs to members that the service named, and to nobody that can make itself a member: the
    /// founder of a group sends rosters for it as well.
    #[test]
    fn a_reader_that_makes_itself_a_member_is_anybody() {
        let (policy, reader) = (Policy::default(), Reader::new(&[key("alice")]));
        for (source, founder, expected) in [
            (Source::Acl, None, Standing::Member),
            (Source::Acl, Some("eve"), Standing::Member),
            (Source::Roster, None, Standing::Vouched),
            (Source::Roster, Some("eve"), Standing::Anybody),
            (Source::GiftWrap, Some("eve"), Standing::Anybody),
            (Source::GiftWrap, None, Standing::Anybody),
        ] {
            let question = Question::of_named(&policy, &reader, &group(source, founder, &["alice"]));
            assert_eq!((question.standing, question.asks_anew()), (expected, false), "{source:?}");
            let outside = Question::of_named(&policy, &reader, &group(source, founder, &["bob"]));
            assert_eq!((outside.standing, outside.asks_anew()), (Standing::Anybody, true), "{source:?}");
        }
        let unlisted =
            Group { id: NostrGroupId::parse(&"a".repeat(64)).expect("an id"), status: GroupStatus::Unlisted };
        let question = Question::of_named(&policy, &reader, &unlisted);
        assert_eq!((question.standing, question.asks_anew()), (Standing::Anybody, false));
    }
}
