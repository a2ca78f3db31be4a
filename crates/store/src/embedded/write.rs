//! The open write transaction.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use heed::RwTxn;
use nostr_extensions::{Admitted, NostrGroupId, mls_gateway::group::ServiceAnswer};
use nostr_protocol::{EventId, UnixSecs};

use super::{
    Shared,
    fail::Fail,
    groups::KnownGroups,
    keys::{self, Key, Stored},
    log::Removal,
    recent::Changes,
    tables::Tables,
    vanished::Vanishing,
};
use crate::{
    AppliedAnswer, Cursor, Saved,
    decide::{
        event::{Decider, Decision},
        service::Answered,
    },
};

/// Most cursors in one value of `expiry`.
const EXPIRY_LIST_MAX: usize = 512;

/// An open write transaction, with the changes that readers learn of when it is committed.
pub(super) struct Tx<'e> {
    pub(super) txn: RwTxn<'e>,
    pub(super) tables: &'e Tables,
    pub(super) shared: &'e Shared,
    pub(super) known_groups: &'e mut KnownGroups,
    /// The cursor of the next event.
    pub(super) next: Cursor,
    pub(super) vanishing: Arc<Vanishing>,
    pub(super) recent: Changes<'e>,
    pub(super) epochs: HashMap<NostrGroupId, Option<u64>>,
    pub(super) expiring: BTreeMap<UnixSecs, Vec<u8>>,
    pub(super) scratch: Vec<u8>,
    /// Rows of the log and of the index that were put or removed so far.
    pub(super) rows: usize,
    /// Rows of removed events that may go at once; a sweep takes those of further ones.
    pub(super) removable: usize,
}

impl<'e> Tx<'e> {
    /// The transaction before its first change.
    pub(super) fn begin(
        txn: RwTxn<'e>,
        (tables, shared, known_groups): (&'e Tables, &'e Shared, &'e mut KnownGroups),
        next: Cursor,
        recent: Changes<'e>,
        removable: usize,
    ) -> Self {
        Self {
            txn,
            tables,
            shared,
            known_groups,
            next,
            vanishing: shared.vanishing.load_full(),
            recent,
            epochs: HashMap::new(),
            expiring: BTreeMap::new(),
            scratch: Vec::new(),
            rows: 0,
            removable,
        }
    }

    /// Stores one event with its effects; on an error the transaction is to be given up.
    pub(super) fn save(&mut self, admitted: &Admitted) -> Result<Saved, Fail> {
        Ok(match Decider(self).event(admitted)? {
            Decision::Put(sealed, None) => Saved::New(sealed),
            Decision::Put(sealed, Some(fault)) => Saved::Advised(Box::new((sealed, fault))),
            Decision::Answer(saved) => saved,
        })
    }

    /// Gives a group the members of an answer. The change has the place of the event before it, as nobody follows this
    /// log.
    pub(super) fn apply_answer(
        &mut self,
        answer: &ServiceAnswer,
        now: UnixSecs,
    ) -> Result<Option<AppliedAnswer>, Fail> {
        let Some(Answered { touches, left_out }) = Decider(self).answer(answer, now)? else { return Ok(None) };
        Ok(Some(AppliedAnswer { cursor: self.next - 1, touches, left_out }))
    }

    /// Removes an event for every reader; `false` where there is none.
    pub(super) fn remove_event(&mut self, cursor: Cursor) -> Result<bool, Fail> {
        let removal = self.tables.remove_event(&mut self.txn, &mut self.recent, cursor, self.removable)?;
        match removal {
            Removal::Absent => {}
            Removal::Erased(rows) => {
                self.rows += rows;
                self.removable = self.removable.saturating_sub(rows);
            }
            Removal::Hidden => self.rows += 1,
        }
        Ok(removal != Removal::Absent)
    }

    /// The stored event of this id, hidden or not.
    pub(super) fn find(&self, id: &EventId) -> Result<Option<(Cursor, Stored<'_>)>, Fail> {
        self.tables.find(&self.txn, id, &self.recent.ids.cursors(id))
    }

    /// The last epoch of a group, where it is not to be read from the group's record.
    pub(super) fn raised_epoch(&self, group: &NostrGroupId) -> Option<Option<u64>> {
        self.epochs.get(group).copied().or_else(|| self.shared.epochs.lock().last(group))
    }

    /// Writes the expiry of all that this transaction stored: one entry for the events that expire in one second.
    pub(super) fn flush_expiry(&mut self) -> Result<(), Fail> {
        for (expires_at, cursors) in std::mem::take(&mut self.expiring) {
            for list in cursors.chunks(EXPIRY_LIST_MAX * 6) {
                let key = Key::new().with(&keys::time_bytes(expires_at)).with(&list[..6]);
                self.tables.expiry.put(&mut self.txn, &key, list)?;
            }
        }
        Ok(())
    }
}
