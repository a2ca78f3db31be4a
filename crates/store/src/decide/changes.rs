//! What is to be written for a batch.

use nostr_extensions::{GroupRecord, NostrGroupId, Role, Sealed, Stamp, gate::Touches};
use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};

use super::{
    AUTHOR_ONLY, EPHEMERAL, EPHEMERAL_SECS,
    facts::{Address, Buried, Claimed, Reference},
};
use crate::Cursor;

/// An event to be written into the log.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) event: Event,
    pub(crate) received_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
    pub(crate) flags: i16,
    /// Where queries find it.
    pub(crate) prefixes: Vec<i64>,
    /// Whom it may concern.
    pub(crate) routes: Vec<u64>,
    pub(crate) group: Option<NostrGroupId>,
    /// Which groups it may have changed.
    pub(crate) touches: Touches,
    pub(crate) address: Option<Address>,
    pub(crate) package: Option<PutPackage>,
    /// A later event of the batch took it out again: it has a place in the log and is not there.
    pub(crate) gone: bool,
}

/// An entry of the directory of KeyPackages.
#[derive(Clone, Debug)]
pub(crate) struct PutPackage {
    pub(crate) owner: PublicKey,
    pub(crate) reference: Option<Reference>,
    pub(crate) content_hash: [u8; 32],
    pub(crate) last_resort: bool,
}

impl Put {
    /// Until when it lies in the log.
    pub(crate) fn kept_until(&self) -> UnixSecs {
        if self.flags & EPHEMERAL == 0 { self.expires_at } else { self.received_at.saturating_add(EPHEMERAL_SECS) }
    }

    pub(super) fn seal(&self, cursor: Cursor) -> Sealed {
        let stamp = Stamp {
            cursor,
            received_at: self.received_at,
            expires_at: self.expires_at,
            author_only: self.flags & AUTHOR_ONLY != 0,
        };
        Sealed::new(self.event.clone(), stamp)
    }
}

/// A change of a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupChange {
    pub(crate) group: NostrGroupId,
    pub(crate) record: GroupRecord,
    /// Each key whose membership changed; `None` where it is none any more.
    pub(crate) delta: Vec<(PublicKey, Option<Role>)>,
}

/// What is to be written, in this order: what is taken out, then everything else.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Events that were stored before and are taken out.
    pub(crate) removed: Vec<(Cursor, EventId)>,
    /// Events, in the order of their places in the log.
    pub(crate) put: Vec<Put>,
    /// Tombstones, and whether what they are of was public.
    pub(crate) tombstones: Vec<(Buried, bool)>,
    pub(crate) address_tombstones: Vec<(Address, UnixSecs)>,
    /// Keys that vanished, with their times: their events are hidden as [`super::hiding`] says, and a sweep takes them out.
    pub(crate) vanished: Vec<(PublicKey, UnixSecs)>,
    /// In their order; one group may change more than once.
    pub(crate) groups: Vec<GroupChange>,
    /// Epochs of groups that rose.
    pub(crate) epochs: Vec<(NostrGroupId, u64)>,
    /// Groups that carry unlisted messages from now on.
    pub(crate) unlisted: Vec<NostrGroupId>,
    pub(crate) founded: Vec<(PublicKey, UnixSecs)>,
    /// KeyPackages that some claim took, as an export says.
    pub(crate) claimed: Vec<Claimed>,
    /// An entry of the log without an event, behind all others, which says that any group may have changed and any key may
    /// have vanished: at this time, and kept for [`EPHEMERAL_SECS`] at least.
    pub(crate) mark: Option<UnixSecs>,
}

impl Changes {
    /// How many places in the log they take.
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
