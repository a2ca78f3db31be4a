//! Routes: numbers that lead from an event to the subscriptions that may ask for it.
//!
//! A subscription stands under the hashes of a few conditions; an event is looked up under the hashes of all conditions
//! that it meets. A hash tells nothing without the key, so a log that several instances follow can carry it: an
//! instance fetches an event only if a subscription of its own waits under one of the event's routes. A collision costs
//! a match that fails.

use std::hash::Hasher as _;

use nostr_protocol::{EventId, Kind, PublicKey};
use siphasher::sip::SipHasher13;

use crate::{audience::Audience, gate::Sealed};

/// One condition under which a subscription may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// The event has this id.
    Id(EventId),
    /// It is by this key.
    Author(PublicKey),
    /// It has this tag, under a letter that a filter can name.
    Tag(u8, &'a str),
    /// It is public and of this kind.
    Kind(Kind),
    /// It is public.
    Everything,
    /// It is for this key.
    Inbox(PublicKey),
    /// It is of a managed group that this key is a member of. No event carries this one: membership is asked at each
    /// delivery.
    Member(PublicKey),
    /// It is a roster, of any group.
    Rosters,
}

/// Hashes conditions under a key: the same on every instance that has the key, and nobody can choose collisions.
#[derive(Clone, Copy)]
pub struct RouteHasher {
    keyed: SipHasher13,
}

impl std::fmt::Debug for RouteHasher {
    /// Does not show the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteHasher").finish_non_exhaustive()
    }
}

impl RouteHasher {
    /// A hasher under 16 secret bytes, which all instances that follow one log share.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self { keyed: SipHasher13::new_with_key(key) }
    }

    /// The number of a condition.
    #[must_use]
    pub fn hash(&self, condition: Condition<'_>) -> u64 {
        let mut hasher = self.keyed;
        match condition {
            Condition::Id(id) => write(&mut hasher, 1, id.as_bytes()),
            Condition::Author(key) => write(&mut hasher, 2, key.as_bytes()),
            Condition::Tag(letter, value) => {
                hasher.write(&[3, letter]);
                hasher.write(value.as_bytes());
            }
            Condition::Kind(kind) => write(&mut hasher, 4, &kind.0.to_be_bytes()),
            Condition::Everything => write(&mut hasher, 5, &[]),
            Condition::Inbox(key) => write(&mut hasher, 6, key.as_bytes()),
            Condition::Member(key) => write(&mut hasher, 7, key.as_bytes()),
            Condition::Rosters => write(&mut hasher, 8, &[]),
        }
        hasher.finish()
    }

    /// A number that is no condition's, for another purpose of the instances that follow the log; it does not give the
    /// key away.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> u64 {
        let mut hasher = self.keyed;
        write(&mut hasher, 0, purpose.as_bytes());
        hasher.finish()
    }

    /// The numbers of all conditions that an event meets by itself, each once.
    #[must_use]
    pub fn routes(&self, sealed: &Sealed) -> Vec<u64> {
        let mut routes = Vec::with_capacity(16);
        let is_public = *sealed.audience() == Audience::Everyone;
        sealed.visit_conditions(|condition| match condition {
            Condition::Kind(kind) if is_public => routes.push(self.hash(Condition::Kind(kind))),
            Condition::Kind(_) if sealed.rules().is_for_admin_keys() => routes.push(self.hash(Condition::Rosters)),
            Condition::Kind(_) => {}
            other => routes.push(self.hash(other)),
        });
        match sealed.audience() {
            Audience::Everyone => routes.push(self.hash(Condition::Everything)),
            Audience::Keys(to) => routes.extend(to.iter().map(|key| self.hash(Condition::Inbox(*key)))),
            Audience::Group(_) | Audience::Nobody => {}
        }
        routes.sort_unstable();
        routes.dedup();
        routes
    }
}

fn write(hasher: &mut SipHasher13, sort: u8, bytes: &[u8]) {
    hasher.write(&[sort]);
    hasher.write(bytes);
}
