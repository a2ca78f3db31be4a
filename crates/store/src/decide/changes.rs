//! Changes to be written for a batch.

use std::collections::BTreeMap;

use nostr_extensions::{GroupRecord, NostrGroupId, Role, Sealed, Stamp, gate::Touches, mls_gateway::group::Invited};
use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};

use super::{
    AUTHOR_ONLY, EPHEMERAL, EPHEMERAL_SECS,
    keys::{Address, Claimed, Reference, TombstoneKey},
};
use crate::Cursor;

/// An event to be written into the log.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) event: Event,
    pub(crate) received_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
    pub(crate) flags: i16,
    /// The prefixes under which queries find it.
    pub(crate) prefixes: Vec<i64>,
    /// The conditions of subscriptions that it may meet.
    pub(crate) routes: Vec<u64>,
    pub(crate) group: Option<NostrGroupId>,
    /// The groups that its entry in the log says that it touched.
    pub(crate) touches: Touches,
    /// Set where its kind does not say that: the store keeps it with the event, as [`super::TOUCHES_GROUPS`] says.
    pub(crate) is_told: bool,
    pub(crate) address: Option<Address>,
    pub(crate) package: Option<PutPackage>,
    /// Whether a later event of the batch removed it again: it keeps its place in the log, and is not written.
    pub(crate) gone: bool,
}

/// An entry of the directory of KeyPackages.
#[derive(Clone, Debug)]
pub(crate) struct PutPackage {
    pub(crate) owner: PublicKey,
    pub(crate) reference: Option<Reference>,
    pub(crate) content_hash: [u8; 32],
    pub(crate) last_resort: bool,
    /// Whether it is a 30443.
    #[cfg_attr(not(feature = "firestore"), allow(dead_code, reason = "the store over Firestore alone needs it"))]
    pub(crate) is_addressable: bool,
}

impl Put {
    /// The time up to which it lies in the log.
    pub(crate) fn kept_until(&self) -> UnixSecs {
        if self.flags & EPHEMERAL == 0 { self.expires_at } else { self.received_at.saturating_add(EPHEMERAL_SECS) }
    }

    /// The groups that it touched, where its kind does not say that.
    pub(crate) fn told(&self) -> Option<&Touches> {
        self.is_told.then_some(&self.touches)
    }

    pub(super) fn seal(&self, cursor: Cursor) -> Sealed {
        let stamp = Stamp {
            cursor,
            received_at: self.received_at,
            expires_at: self.expires_at,
            author_only: self.flags & AUTHOR_ONLY != 0,
        };
        let sealed = Sealed::new(self.event.clone(), stamp);
        sealed.touching(self.told().cloned())
    }
}

/// A change of a group.
#[derive(Clone, Debug)]
pub(crate) struct ChangedGroup {
    pub(crate) group: NostrGroupId,
    pub(crate) record: RecordChange,
    /// Each key whose membership changed.
    pub(crate) members: Vec<(PublicKey, MemberChange)>,
}

/// A change of a group's record.
#[derive(Clone, Debug)]
pub(crate) enum RecordChange {
    /// The record stays.
    Nothing,
    /// The log of commits changed, and no other part. A store that keeps it by itself writes nothing else.
    Commits(GroupRecord),
    /// Any part may have changed, the log of commits too.
    Whole(GroupRecord),
}

impl RecordChange {
    /// The record after the change.
    pub(crate) const fn record(&self) -> Option<&GroupRecord> {
        match self {
            Self::Nothing => None,
            Self::Commits(record) | Self::Whole(record) => Some(record),
        }
    }
}

/// A change of one membership.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemberChange {
    /// The key is no member any more. The membership may have been one in which it had not acted.
    Leaves(
        #[cfg_attr(not(feature = "firestore"), allow(dead_code, reason = "the store over Firestore alone needs it"))]
        Option<Invited>,
    ),
    /// The member has this role now.
    Takes(Role),
    /// The key becomes a member, by its own act or by another's.
    Joins(Role, Option<Invited>),
    /// The member has acted for the first time.
    Acts(
        #[cfg_attr(not(feature = "firestore"), allow(dead_code, reason = "the store over Firestore alone needs it"))]
        Invited,
    ),
}

/// A change of the numbers that are kept of a key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CountsChange {
    /// Its memberships.
    pub(crate) memberships: i32,
    /// Memberships of its making in which the member has not acted.
    pub(crate) invited: i32,
}

/// A log entry without an event.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Its time.
    pub(crate) at: UnixSecs,
    /// The groups that may have changed.
    pub(crate) touches: Touches,
}

/// The changes. A store writes the removals first, then everything else.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Events that were stored before and are removed.
    pub(crate) removed: Vec<(Cursor, EventId)>,
    /// Events, in the order of their places in the log.
    pub(crate) put: Vec<Put>,
    /// Tombstones, and whether the deleted event was public.
    pub(crate) tombstones: Vec<(TombstoneKey, bool)>,
    pub(crate) address_tombstones: Vec<(Address, UnixSecs)>,
    /// Keys that vanished, with their times: their events are hidden as [`super::hiding`] says, and a sweep takes them
    /// out.
    pub(crate) vanished: Vec<(PublicKey, UnixSecs)>,
    /// In their order; one group may change more than once.
    pub(crate) groups: Vec<ChangedGroup>,
    /// Numbers of memberships that changed.
    pub(crate) counts: BTreeMap<PublicKey, CountsChange>,
    /// Epochs of groups that rose.
    pub(crate) epochs: Vec<(NostrGroupId, u64)>,
    /// Groups that carry unlisted messages from now on.
    pub(crate) unlisted: Vec<NostrGroupId>,
    pub(crate) founded: Vec<(PublicKey, UnixSecs)>,
    /// KeyPackages that were claimed in another store, by the records of its export, or gave way after they may have
    /// been given.
    pub(crate) claimed: Vec<Claimed>,
    /// A log entry without an event, after all others, which tells followers that these groups may have changed and any
    /// key may have vanished. It is kept for [`EPHEMERAL_SECS`] at least.
    pub(crate) mark: Option<Mark>,
}

impl Changes {
    /// How many places in the log the changes take.
    pub(crate) fn places(&self) -> u64 {
        self.put.len() as u64 + u64::from(self.mark.is_some())
    }

    /// Whether there is nothing to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.places() == 0
            && self.removed.is_empty()
            && self.tombstones.is_empty()
            && self.address_tombstones.is_empty()
            && self.vanished.is_empty()
            && self.groups.is_empty()
            && self.epochs.is_empty()
            && self.unlisted.is_empty()
            && self.founded.is_empty()
            && self.claimed.is_empty()
    }
}
