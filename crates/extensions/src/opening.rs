//! Openings: the states of groups that an answer depends on after its events were read.
//!
//! Source: docs/rules.md, "Who may publish, who may read" 7. COUNT and NIP-77 answer later than they read, so each
//! keeps an opening for every group that let an event through and asks for the groups' states again before it
//! answers.

use nostr_protocol::{EventId, Kind};

use crate::{
    audience::{Audience, audience_of},
    gate::{Asker, Gate, Released},
    kinds::{Readers, rules},
    mls_gateway::group::{Group, NostrGroupId},
    reader::Reader,
};

/// A group that let an event through to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    group: NostrGroupId,
    kind: Kind,
    /// The event, which a filter may have named.
    id: EventId,
}

impl Opening {
    /// The group whose state [`Gate::holds`] must be given.
    #[must_use]
    pub const fn group(&self) -> &NostrGroupId {
        &self.group
    }

    /// The kind of the event: the kinds of a group may have different readers.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

impl Gate {
    /// The opening of an event that was released to `reader`; `None` where no change of a group takes the event from
    /// this reader.
    #[must_use]
    pub fn opening(&self, released: &Released, reader: &Reader) -> Option<Opening> {
        let event = released.event();
        let readers = rules(event.kind()).readers;
        let Readers::Group { admin_keys, .. } = readers else { return None };
        if admin_keys && self.policy().now().has_admin_key(reader.keys()) {
            return None;
        }
        match audience_of(event.view(), readers) {
            Audience::Group(group) => Some(Opening { group, kind: event.kind(), id: event.id() }),
            _ => None,
        }
    }

    /// Whether `group`, the state as of now, still opens to the asker the events of this opening.
    #[must_use]
    pub fn holds(&self, opening: &Opening, group: &Group, asker: Asker<'_>) -> bool {
        group.id == opening.group && self.opens(group, asker, rules(opening.kind).readers, Some(opening.id))
    }
}
