//! Effects of events: everything that storing an event changes beside the event.
//!
//! Values alone. The file of a kind makes them, and a store carries them out in the transaction that stores the event.

use std::borrow::Cow;

use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};

use crate::mls_gateway::group::{NostrGroupId, OrderedMessage, RosterChange, SeenEpoch, WrapChange};

/// Expiry of an event that is kept without end.
pub const NEVER: UnixSecs = u64::MAX;
/// Seconds that an event stays in the short-lived log when the archive is off.
pub const LOG_SECS: u64 = 120;

/// The way in which an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Stored and found by queries.
    Stored,
    /// Durable in the short-lived log that feeds live delivery, found by no query.
    LogOnly,
    /// Delivered to the subscriptions that are open now. Only the log of a shared store holds it, for a minute.
    Ephemeral,
}

/// Change that storing an event makes beside the event, with the preconditions that the transaction checks again.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Takes the place of older events of the same address (NIP-01, replaceable and addressable).
    Replace {
        /// The `d` value; empty for a replaceable kind.
        identifier: Box<str>,
    },
    /// Takes events back (NIP-09).
    Delete(Deletion),
    /// Takes back all events by this key, and wraps and messages to it, up to the event's `created_at` (NIP-62).
    Vanish,
    /// Enters a KeyPackage in the directory; one of kind 30443 replaces as well.
    KeyPackage {
        /// The line of the directory.
        entry: DirectoryEntry,
        /// The `d` value of a 30443.
        identifier: Option<Box<str>>,
        /// Most KeyPackages of the owner that are kept, those of last resort not counted: the oldest give way to this
        /// one.
        kept_max: usize,
    },
    /// Sends a message to a group.
    GroupMessage {
        /// The group.
        group: NostrGroupId,
        /// The reader's keys, of which one must be a member at the commit, if the group is managed then.
        keys: Vec<PublicKey>,
        /// Whether it is taken if the group is not managed then; the group is marked as having carried messages.
        unlisted: bool,
        /// The MLS epoch, for the registry.
        epoch: SeenEpoch,
        /// The message's place in the order of commits, where it shows an MLS header.
        order: Option<OrderedMessage>,
    },
    /// Changes a group by a roster.
    Roster(RosterChange),
    /// Changes a group by a gift wrap that names it.
    Wrap(WrapChange),
}

/// Targets of a kind 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The key that deletes.
    pub by: PublicKey,
    /// Ids of events by any author: the store compares each event's author and recipients with `by`.
    pub ids: Vec<EventId>,
    /// Addresses of the deleter's own replaceable and addressable events, up to the deletion's `created_at`.
    pub addresses: Vec<(Kind, Box<str>)>,
    /// Whether a `k` tag names a kind whose events are never for everyone. The deletion is then for its author alone.
    pub names_private_kind: bool,
}

/// Line of the directory of KeyPackages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The owner's key.
    pub owner: PublicKey,
    /// Its reference (`kpr` or `i`), where one is given.
    pub reference: Option<Box<str>>,
    /// SHA-256 of the KeyPackage's bytes without an MLSMessage around them, or of the content where that is not
    /// readable. Events with the same KeyPackage (twins) have the same hash; different KeyPackages do not.
    pub content_hash: [u8; 32],
    /// Whether it is marked as one of last resort (RFC 9420, section 16.8), and so never used up.
    pub last_resort: bool,
    /// The check that failed or could not be made, for the log; names no key and no id. Not part of the directory.
    pub warning: Option<Cow<'static, str>>,
}
