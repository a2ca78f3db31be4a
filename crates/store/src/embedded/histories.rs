//! Marks of the log's history: a number for each start of the store, for the places of the log from there on.
//!
//! A store is put back to an older copy while no process has it open. So the places after the copy's head belong to the
//! mark of a later start, and not to the mark that they had before.

use std::ops::Bound;

use heed::{Env, RoTxn, WithTls};

use super::{
    fail::Fail,
    keys::{CURSOR_MAX, cursor_bytes, number_from},
    tables::Tables,
};
use crate::{Cursor, HISTORIES_KEPT_MAX};

impl Tables {
    /// Draws the mark of the places behind `head`, at a start.
    ///
    /// # Errors
    /// [`Fail`] where it cannot be written.
    pub(super) fn begin_history(&self, env: &Env<WithTls>, head: Cursor) -> Result<(), Fail> {
        let mut txn = env.write_txn()?;
        self.histories.put(&mut txn, &cursor_bytes(head), &crate::random::up_to(u64::MAX).to_be_bytes())?;
        let too_many = self.histories.len(&txn)?.saturating_sub(HISTORIES_KEPT_MAX as u64);
        for _ in 0..too_many {
            let Some(oldest) = self.histories.first(&txn)?.map(|(head, _)| head.to_vec()) else { break };
            self.histories.delete(&mut txn, &oldest)?;
        }
        Ok(txn.commit()?)
    }

    /// See [`crate::Store::history_at`].
    ///
    /// # Errors
    /// [`Fail`] where it cannot be read.
    pub(super) fn history_at(&self, txn: &RoTxn<'_>, place: Cursor) -> Result<u64, Fail> {
        let place = cursor_bytes(place.min(CURSOR_MAX));
        let before = (Bound::Unbounded, Bound::Excluded(&place[..]));
        let last = self.histories.range(txn, &before)?.last().transpose()?;
        Ok(last.map_or(0, |(_, mark)| number_from(mark)))
    }
}
