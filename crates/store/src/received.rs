//! Reading in the order of receipt: a client that was away goes on where it stopped, and misses no event that is
//! back-dated.
//!
//! The index of queries is in NIP-01's order, by `created_at`, which the author chooses. So each store keeps another
//! short index, for the kinds that are addressed to a group or to one recipient: an entry of the embedded store, an
//! entry of a partial index of PostgreSQL, a field and its index in Firestore. Public events have none.

use nostr_extensions::{Audience, NostrGroupId, Sealed};
use nostr_protocol::{Kind, PublicKey};

use crate::{
    Cost, Cursor,
    index::{Key, prefix},
};

/// The kinds that are read in the order of their receipt. Each event of them has one audience.
pub const RECEIVED_KINDS: [Kind; 4] = [Kind::GROUP_MESSAGE, Kind::NOISE_DM, Kind::KEY_PACKAGE_REQUEST, Kind::GIFT_WRAP];

/// The addressee of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A group.
    Group(NostrGroupId),
    /// A key.
    Key(PublicKey),
}

/// A list in the order of receipt: the events of these kinds to one addressee.
#[derive(Clone, Debug)]
pub struct Received {
    /// The addressee.
    pub to: Recipient,
    /// Some of [`RECEIVED_KINDS`].
    pub kinds: Vec<Kind>,
}

/// A place in the order of receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Every event of the list up to this cursor was given.
    pub cursor: Cursor,
    /// A place of the store's own from which it goes on to look; 0 in a store that goes on by the cursor.
    pub look_from: u64,
}

/// Limits of one call of [`crate::Store::received`], after which it returns what it has.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedBounds {
    /// Most events in the page. Events that share a cursor stay together.
    pub events_max: usize,
    /// The page ends with the event that reaches this many bytes.
    pub bytes_max: usize,
    /// Most entries that are looked at, about.
    pub entries_max: usize,
}

/// One page of a list in the order of receipt.
#[derive(Clone, Debug, Default)]
pub struct ReceivedPage {
    /// Events of the list that have not expired.
    pub events: Vec<Sealed>,
    /// The place behind them and behind all that was looked at.
    pub next: Receipt,
    /// Whether the store may hold more of the list up to the cursor that was asked for.
    pub has_more: bool,
    /// The work of the call.
    pub cost: Cost,
}

impl Received {
    /// The prefixes of the index under which the events stand.
    pub(crate) fn prefixes(&self) -> Vec<Key> {
        let kinds = self.kinds.iter().filter(|kind| RECEIVED_KINDS.contains(kind));
        kinds
            .map(|kind| match &self.to {
                Recipient::Group(group) => prefix::group(group, *kind),
                Recipient::Key(key) => prefix::reader(key, *kind),
            })
            .collect()
    }

    /// Whether an event is of the list: prefixes are hashes.
    pub(crate) fn holds(&self, sealed: &Sealed) -> bool {
        self.kinds.contains(&sealed.kind())
            && match (&self.to, sealed.audience()) {
                (Recipient::Group(group), Audience::Group(of)) => group == of,
                (Recipient::Key(key), Audience::Keys(keys)) => keys.contains(key),
                _ => false,
            }
    }
}

/// The prefix under which an event is listed in the order of receipt; `None` for one that is not.
pub(crate) fn received_prefix(kind: Kind, audience: &Audience) -> Option<Key> {
    if !RECEIVED_KINDS.contains(&kind) {
        return None;
    }
    match audience {
        Audience::Group(group) => Some(prefix::group(group, kind)),
        // Each of these kinds names one recipient.
        Audience::Keys(keys) => keys.first().map(|key| prefix::reader(key, kind)),
        Audience::Everyone | Audience::Nobody => None,
    }
}
