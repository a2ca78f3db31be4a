//! Export and import: everything in a store, as records that another store takes in.
//!
//! Only the operator's commands use this module, because the records hold events that no gate has released. The server
//! holds its store as a [`Store`], and cannot reach [`Moving`] from there.
//!
//! An export gives removals first, then groups, then the log in its order. A move may thus break off anywhere: no
//! deleted event comes back, and no message of a managed group arrives before its group.
//!
//! Other relays export and import one event a line. [`import`] takes such a file too, and [`export_events`] writes one.

mod delete;
mod export;
mod import;
mod key;
pub mod line;
mod lines;
mod position;
mod verify;

use std::{collections::BTreeMap, convert::Infallible, fmt::Debug};

use async_trait::async_trait;
use nostr_extensions::{
    EventMeta, ManagedGroup, NostrGroupId, Restored,
    mls_gateway::{
        deletion::may_delete,
        group::{CommitLog, Invited, Refusal},
    },
};
use nostr_protocol::{DAY_SECS, Event, EventId, PublicKey, UnixSecs};

pub(crate) use self::position::after_part;
pub use self::{
    delete::{Matching, delete, matching},
    export::{Begun, Counts, ExportError, FileContent, export, export_events, resume},
    import::{Done, ImportError, ImportOptions, Report, import},
    key::FileKey,
    line::Header,
    position::{ExportPosition, Part},
};
pub use crate::index::Front;
use crate::{Saved, Store, StoreError};

/// An event of a [`Record`], which tells in which direction the record goes.
pub trait Moved {
    /// An event that the operator removes. Only a store that takes records in is given one.
    type Removal: Clone + Debug + Send + Sync;
}

impl Moved for Exported {
    type Removal = Infallible;
}

impl Moved for Restored {
    type Removal = Removal;
}

/// An event that the operator removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The event's id.
    pub(crate) id: EventId,
    /// The event's author, under whose key the mark of the removal stands.
    pub(crate) author: PublicKey,
    /// Whether the store's directory of the author's KeyPackages may name it.
    pub(crate) is_key_package: bool,
    /// Whether a mark keeps the event from coming back: one stands where the author's own deletion would leave one.
    pub(crate) is_marked: bool,
}

impl From<&Event> for Removal {
    fn from(event: &Event) -> Self {
        let author = event.pubkey();
        let is_marked = may_delete(event.view(), &author);
        Self { id: event.id(), author, is_key_package: event.kind().is_key_package(), is_marked }
    }
}

/// One thing that a store holds, or that was removed and must not come back. `E` is an event: [`Exported`] when it
/// comes out of a store, [`Restored`] when it goes into one.
#[derive(Clone, Debug)]
pub enum Record<E: Moved> {
    /// A key that vanished (NIP-62). Its events up to `at` are removed.
    Vanished {
        /// The vanished key.
        key: PublicKey,
        /// Last `created_at` of the removed events.
        at: UnixSecs,
    },
    /// An event that was deleted by its id, or that held a claimed KeyPackage.
    Tombstone {
        /// Front of the event's id.
        target: Front,
        /// Front of the key that deleted or claimed it.
        deleter: Front,
        /// Whether the event was public.
        public: bool,
    },
    /// An address whose events were deleted.
    AddressTombstone {
        /// Key (32), kind (2, big-endian), and the first 16 bytes of the SHA-256 of the `d` value.
        address: [u8; 50],
        /// Last `created_at` of the deleted events.
        until: UnixSecs,
    },
    /// A KeyPackage that was claimed.
    Claimed {
        /// Front of the owner's key.
        owner: Front,
        /// Front of the hash of the KeyPackage's bytes.
        content: Front,
    },
    /// The groups that gift wraps of one key founded in the last 24 hours.
    Founded {
        /// The founder.
        key: PublicKey,
        /// Times of the foundings, oldest first.
        at: Vec<UnixSecs>,
    },
    /// A group id that has carried unlisted messages.
    Unlisted(NostrGroupId),
    /// A managed group with all its members.
    Group {
        /// The group's id.
        id: NostrGroupId,
        /// The record and the members.
        view: ManagedGroup,
        /// The members that have not acted in the group.
        invited: BTreeMap<PublicKey, Invited>,
    },
    /// An event, in the order of the log.
    Event(E),
    /// An event that the operator removes.
    Removal(E::Removal),
}

impl<E: Moved> Record<E> {
    /// Name of the record's sort, as an export spells it.
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
            Self::Removal(_) => "removal",
        }
    }
}

impl Record<Exported> {
    /// Approximate bytes in memory, by which a page is bounded.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Event(archived) => archived.event.record().len(),
            Self::Group { view, invited, .. } => 256 + view.members.len() * 33 + invited.len() * 80,
            Self::Founded { at, .. } => 64 + at.len() * 8,
            _ => 128,
        }
    }
}

/// An event as it comes out of a store.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The event, as it was received.
    pub event: Event,
    /// Times and flags that the store keeps with the event.
    pub kept: EventMeta,
}

/// Bounds of one call of [`Moving::export`].
#[derive(Clone, Copy, Debug)]
pub struct ExportBounds {
    /// Most records of the page; at least one.
    pub records_max: usize,
    /// The page ends with the record that reaches this many bytes.
    pub bytes_max: usize,
}

/// A page of an export.
#[derive(Clone, Debug)]
pub struct ExportPage {
    /// Records of one sort, in a stable order. A page may be empty although more pages follow.
    pub records: Vec<Record<Exported>>,
    /// The position of the next page; `None` after the last page.
    pub next: Option<ExportPosition>,
}

/// Outcome of importing a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Imported {
    /// The record was not in this store, and is now.
    New,
    /// This store held the record already.
    Unchanged,
    /// The group replaced this store's group, which had a lower `seq`.
    Replaced,
    /// This store kept its own, different group, whose `seq` is not lower.
    Kept,
    /// This store holds a newer event of the same address.
    Superseded,
    /// The event was deleted or claimed in this store, or its author vanished here.
    Deleted,
    /// The event has expired.
    Expired,
    /// The owner's reference of this KeyPackage names other bytes in this store.
    Conflicting,
    /// The rules refuse it by what is stored: a deletion that may delete nothing, or a message to no group.
    Refused,
}

impl Imported {
    /// The outcome for a record that is new here as a whole, or changes nothing.
    pub(crate) const fn new_if(is_new: bool) -> Self {
        if is_new { Self::New } else { Self::Unchanged }
    }
}

impl From<&Saved> for Imported {
    /// The outcome for an event, from the answer that its publisher would get.
    fn from(saved: &Saved) -> Self {
        match saved {
            Saved::New(_) | Saved::Advised(..) => Self::New,
            Saved::Duplicate => Self::Unchanged,
            Saved::Superseded | Saved::Refused(Refusal::StockIsNewer) => Self::Superseded,
            Saved::Deleted | Saved::DeletedByRecipient => Self::Deleted,
            Saved::Refused(Refusal::ReferenceTaken) => Self::Conflicting,
            Saved::Refused(_) => Self::Refused,
        }
    }
}

/// A store that can be exported as a whole, and that takes an export in. If other processes write to the store during
/// an export, the export may hold their changes or not.
#[async_trait]
pub trait Moving: Store {
    /// Returns the next page after `from` of everything that has not expired at `now`. It holds no ephemeral events
    /// and no secrets of the store.
    ///
    /// Each call is bounded. All pages from [`ExportPosition::start`] at the store's head together hold everything that
    /// was committed up to then and is still stored. Events come in the order of the log, or in the nearest order that
    /// the store keeps.
    async fn export(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, StoreError>;

    /// Writes records in their order, and returns each one's outcome when all are durable. The store writes them in one
    /// transaction, or in several that each hold whole records. After an error some may be written, and importing the
    /// same batch again is harmless.
    ///
    /// - Events that were removed from this store stay removed. The newest event of an address stays.
    /// - A record of a removal removes the events that it names. [`Imported::New`] says that an event was removed by
    ///   the operator's [`Removal`], and [`Imported::Unchanged`] that there was none.
    /// - A managed group replaces a stored one with a lower `seq`, members and all. No event changes a group.
    /// - Instances that follow the log see the events, and drop all cached groups when a group was written.
    async fn import(&self, records: Vec<Record<Restored>>, now: UnixSecs) -> Result<Vec<Imported>, StoreError>;
}

/// The record's foundings in the day before `now` that go beyond the `here` foundings which this store knows already.
pub(crate) fn foundings_missing(here: usize, at: &[UnixSecs], now: UnixSecs) -> Vec<UnixSecs> {
    let recent: Vec<UnixSecs> = at.iter().copied().filter(|at| at.saturating_add(DAY_SECS) > now).collect();
    recent.get(here..).unwrap_or_default().to_vec()
}

/// Decides between a store's group and the one of a record. The caller writes the returned group, which has the higher
/// of the two epochs and the log of commits that goes further, when the outcome is [`Imported::New`] or
/// [`Imported::Replaced`].
pub(crate) fn merge_group(here: Option<&ManagedGroup>, given: &ManagedGroup) -> (Imported, ManagedGroup) {
    let Some(here) = here else { return (Imported::New, given.clone()) };
    let mut merged = given.clone();
    merged.record.last_epoch = given.record.last_epoch.max(here.record.last_epoch);
    // Both stores may have seen the group's commits; the one that saw more knows its epoch.
    let epoch = |commits: &Option<CommitLog>| commits.as_ref().map(CommitLog::epoch);
    if epoch(&here.record.commits) > epoch(&given.record.commits) {
        merged.record.commits.clone_from(&here.record.commits);
    }
    // The memberships that stay count against the founder that they counted against here.
    merged.record.founder = here.record.founder.or(given.record.founder);
    let same = || {
        let mut here = here.clone();
        here.record.last_epoch = merged.record.last_epoch;
        here.record.commits.clone_from(&merged.record.commits);
        here.record.founder = merged.record.founder;
        here == merged
    };
    let imported = match given.record.seq > here.record.seq {
        true => Imported::Replaced,
        false if same() => Imported::Unchanged,
        false => Imported::Kept,
    };
    (imported, merged)
}
