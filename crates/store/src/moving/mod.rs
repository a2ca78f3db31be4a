//! Everything that is stored, as records that go from one store to another and back.
//!
//! This is the operator's door and no client's: the records hold events that no gate has released. The server has its
//! store as a [`Store`], which does not lead here.
//!
//! First comes what is gone for good, then groups, then the log in its order: wherever a move breaks off, nothing comes
//! back that was deleted, and no message of a managed group is there before its group.

mod export;
mod import;
pub mod line;
mod lines;
mod place;
mod verify;

use async_trait::async_trait;
use nostr_extensions::{EventMeta, ManagedGroup, NostrGroupId, Restored};
use nostr_protocol::{Event, PublicKey, UnixSecs};

pub(crate) use self::place::after_part;
pub use self::{
    export::{Begun, Counts, ExportError, Found, export, resume},
    import::{Done, ImportError, ImportOptions, Report, import},
    line::Header,
    place::{Part, Place},
};
pub use crate::index::Front;
use crate::{Store, StoreError};

/// What is stored, or was and must not come back. `E` is an event: [`Archived`] as it comes out of a store, [`Restored`]
/// as it goes into one.
#[derive(Clone, Debug)]
pub enum Record<E> {
    /// A key that vanished (NIP-62) and takes along what was made up to then.
    Vanished {
        /// Whose events went.
        key: PublicKey,
        /// Up to which `created_at`.
        at: UnixSecs,
    },
    /// What was deleted by name, or claimed.
    Tombstone {
        /// Of the event's id.
        target: Front,
        /// Of the key that took it back.
        deleter: Front,
        /// Whether it was public.
        public: bool,
    },
    /// What was deleted by address.
    AddressTombstone {
        /// Key (32), kind (2, big-endian), and the first 16 bytes of the SHA-256 of the `d` value.
        address: [u8; 50],
        /// Up to which `created_at`.
        until: UnixSecs,
    },
    /// A KeyPackage that was claimed.
    Claimed {
        /// Of the owner's key.
        owner: Front,
        /// Of the hash of its bytes.
        content: Front,
    },
    /// The groups that gift wraps of one key founded in the last 24 hours.
    Founded {
        /// The founder.
        key: PublicKey,
        /// When, oldest first.
        at: Vec<UnixSecs>,
    },
    /// A group id that has carried unlisted messages.
    Unlisted(NostrGroupId),
    /// A managed group with all its members.
    Group {
        /// Which.
        id: NostrGroupId,
        /// Its record and members.
        view: ManagedGroup,
    },
    /// An event, in the order of the log.
    Event(E),
}

impl<E> Record<E> {
    /// The name of its sort, as it stands in an export.
    #[must_use]
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::Vanished { .. } => "vanished",
            Self::Tombstone { .. } => "tombstone",
            Self::AddressTombstone { .. } => "address_tombstone",
            Self::Claimed { .. } => "claimed",
            Self::Founded { .. } => "founded",
            Self::Unlisted(_) => "unlisted",
            Self::Group { .. } => "group",
            Self::Event(_) => "event",
        }
    }
}

impl Record<Archived> {
    /// Bytes that it takes in memory, to bound a page.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Event(archived) => archived.event.record().len(),
            Self::Group { view, .. } => 256 + view.members.len() * 33,
            Self::Founded { at, .. } => 64 + at.len() * 8,
            _ => 128,
        }
    }
}

/// An event as it comes out of a store, with what was kept with it.
#[derive(Clone, Debug)]
pub struct Archived {
    /// The event, as it was received.
    pub event: Event,
    /// What was kept with it.
    pub kept: EventMeta,
}

/// How far one call of [`Moving::export`] goes.
#[derive(Clone, Copy, Debug)]
pub struct ExportBounds {
    /// Most records of the page; at least one.
    pub records_max: usize,
    /// The page ends with the record that reaches this many bytes.
    pub bytes_max: usize,
}

/// A part of what is stored.
#[derive(Clone, Debug)]
pub struct ExportPage {
    /// Records of one sort, in a stable order; there may be none and more behind.
    pub records: Vec<Record<Archived>>,
    /// Where to go on; `None` when that was everything.
    pub next: Option<Place>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Imported {
    /// It is stored now.
    New,
    /// Nothing changed: it was here.
    Known,
    /// A group that took the place of the one that was here, with a lower `seq`.
    Replaced,
    /// A group that was not taken: the one that is here is another, and its `seq` is as high or higher.
    Kept,
    /// An event of whose address there is a newer one here.
    Superseded,
    /// An event that was deleted, claimed or vanished here.
    Deleted,
    /// An event that has expired.
    Expired,
    /// A KeyPackage whose reference names other bytes of its owner here.
    Conflicting,
}

/// A store of which the whole content goes out and comes in. Of a store that other processes write to at the same time,
/// what they change meanwhile may be in an export or not.
#[async_trait]
pub trait Moving: Store {
    /// The next page of everything that is stored behind `from` and has not expired at `now`. Ephemeral events are no
    /// part of it, nor are secrets of the store.
    ///
    /// Each call is bounded; with [`Place::start`] at the store's head, the pages up to the last are everything that was
    /// committed up to then and is still there. Events come in the order of the log, and where a store does not keep that,
    /// in the nearest that it has.
    async fn export(&self, from: &Place, bounds: ExportBounds, now: UnixSecs) -> Result<ExportPage, StoreError>;

    /// Writes records in their order, durable when the answer is there, and says what became of each: one transaction,
    /// or where a store cannot, several of which each holds whole records. On an error some may be written; the same
    /// batch again does no harm.
    ///
    /// What is here already stays, whatever was taken back here stays away, and what a record says was taken back goes. A
    /// managed group takes the place of one with a lower `seq`, members and all; no event changes a group. Whoever
    /// follows the log meets the events, and is told to forget every group where a group was written.
    async fn import(&self, records: Vec<Record<Restored>>, now: UnixSecs) -> Result<Vec<Imported>, StoreError>;
}

pub(crate) const DAY_SECS: u64 = 86_400;

/// The foundings that are missing here for as many as the record knows of in the day before `now`.
pub(crate) fn foundings_missing(here: usize, at: &[UnixSecs], now: UnixSecs) -> Vec<UnixSecs> {
    let recent: Vec<UnixSecs> = at.iter().copied().filter(|at| at.saturating_add(DAY_SECS) > now).collect();
    recent.get(here..).unwrap_or_default().to_vec()
}

/// What becomes of a group's record beside the one that is here; [`Imported::New`] and [`Imported::Replaced`] are to be
/// written, with the higher of the epochs.
pub(crate) fn merge_group(here: Option<&ManagedGroup>, given: &ManagedGroup) -> (Imported, ManagedGroup) {
    let Some(here) = here else { return (Imported::New, given.clone()) };
    let mut merged = given.clone();
    merged.record.last_epoch = given.record.last_epoch.max(here.record.last_epoch);
    let same = || {
        let mut here = here.clone();
        here.record.last_epoch = merged.record.last_epoch;
        here == merged
    };
    let imported = match given.record.seq > here.record.seq {
        true => Imported::Replaced,
        false if same() => Imported::Known,
        false => Imported::Kept,
    };
    (imported, merged)
}
