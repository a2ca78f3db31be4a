//! The log: events are found by cursor and by id, put and removed with every entry that leads to them.

use heed::{PutFlags, RoTxn, RwTxn};
use nostr_extensions::{NostrGroupId, Sealed, Stamp, gate::Touches};
use nostr_protocol::{Event, EventId};

use super::{
    fail::Fail,
    hot::{Hot, Value},
    keys::{self, ID_BYTES, LOG_ONLY, Stored, TELLS_TOUCHES, TOUCHES_GROUPS, cursor_bytes, cursors_from, number_from},
    recent::Changes,
    rows::Kept,
    summed::Summed,
    tables::Tables,
};
use crate::{Cursor, weight::Weight};

/// The outcome of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// There is no such event.
    Absent,
    /// It is gone, with so many rows of the log and of the index.
    Erased(usize),
    /// It is hidden from every read, and its rows are left to a sweep.
    Hidden,
}

impl Tables {
    /// Whether the event at `cursor` is removed for every reader, and only not yet taken off the disk. A damaged row
    /// hides its event as a whole one does: an error would take every page along on which the event would stand.
    pub(super) fn is_removed(&self, txn: &RoTxn<'_>, cursor: Cursor) -> Result<bool, Fail> {
        // Mostly no event is, and to see that costs little.
        Ok(!self.removed.is_empty(txn)? && self.removed.has(txn, &cursor_bytes(cursor))?)
    }

    /// The event at `cursor`, read in place, unless it is removed.
    pub(super) fn event<'t>(&self, txn: &'t RoTxn<'_>, cursor: Cursor) -> Result<Option<Stored<'t>>, Fail> {
        if self.is_removed(txn, cursor)? {
            return Ok(None);
        }
        self.events.get(txn, &cursor_bytes(cursor))?.map(Stored::read).transpose()
    }

    /// The value in the log at `cursor`, removed or not, from `hot` if it is there.
    pub(super) fn value<'t>(&self, txn: &'t RoTxn<'_>, hot: &Hot, cursor: Cursor) -> Result<Option<Value<'t>>, Fail> {
        if let Some(value) = hot.get(cursor) {
            return Ok(Some(Value::Kept(value)));
        }
        Ok(self.events.get(txn, &cursor_bytes(cursor))?.map(Value::Mapped))
    }

    /// The value in the log to which a row of `index` or `received` leads; `None` where the event was removed after a
    /// reader took the row from memory.
    pub(super) fn led_to<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        hot: &Hot,
        cursor: Cursor,
        may_be_gone: bool,
    ) -> Result<Option<Value<'t>>, Fail> {
        // `hot` does not know whether the event is still there.
        if may_be_gone && self.events.get(txn, &cursor_bytes(cursor))?.is_none() {
            return Ok(None);
        }
        self.value(txn, hot, cursor)?.map(Some).ok_or(Fail::Corrupt("an index leads to no event"))
    }

    /// The event of this id, hidden or not. `recent` are the cursors under which it may lie and which the `ids` table
    /// does not know yet.
    pub(super) fn find<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        id: &EventId,
        recent: &[Cursor],
    ) -> Result<Option<(Cursor, Stored<'t>)>, Fail> {
        let written = self.ids.get(txn, &id.as_bytes()[..ID_BYTES])?.unwrap_or_default();
        for cursor in recent.iter().copied().chain(cursors_from(written)) {
            // A recent event may have been removed since, or not be in this snapshot.
            if let Some(stored) = self.event(txn, cursor)?
                && stored.event.id() == *id
            {
                return Ok(Some((cursor, stored)));
            }
        }
        Ok(None)
    }

    /// The cursor of the last event in the log; 0 for none.
    pub(super) fn last_cursor(&self, txn: &RoTxn<'_>) -> Result<Cursor, Fail> {
        Ok(self.events.last(txn)?.map_or(0, |(key, _)| number_from(key)))
    }

    /// Puts an event after all others, with the entries that lead to it.
    pub(super) fn put_event(
        &self,
        txn: &mut RwTxn<'_>,
        event: &Event,
        stamp: Stamp,
        flags: u8,
        recent: &mut Changes<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Sealed, Fail> {
        let cursor = stamp.cursor;
        let sealed = Sealed::new(event.clone(), stamp);
        Stored::write(scratch, &stamp, flags, event.record());
        self.events.put_with_flags(txn, PutFlags::APPEND, &cursor_bytes(cursor), scratch)?;
        recent.ids.add(&event.id(), cursor);
        if flags & LOG_ONLY == 0 {
            let mut put = |table, key: &[u8]| recent.rows.put(self, txn, table, key);
            keys::index_keys(event.view(), sealed.audience(), cursor, |key| put(Kept::Index, key))?;
            if let Some(key) = keys::received_key(event.view(), sealed.audience(), cursor) {
                put(Kept::Received, &key)?;
            }
        }
        Ok(sealed)
    }

    /// Removes an event: no read finds it any more. Its rows go at once if they are at most `rows_max`, and else by a
    /// sweep, see [`Self::erase`]. Its entry in `expiry` stays and leads nowhere, as cursors are never used again.
    pub(super) fn remove_event(
        &self,
        txn: &mut RwTxn<'_>,
        recent: &mut Changes<'_>,
        cursor: Cursor,
        rows_max: usize,
    ) -> Result<Removal, Fail> {
        let Some(stored) = self.event(txn, cursor)? else { return Ok(Removal::Absent) };
        let event = stored.event;
        let (id, kind, owner, tells) = (event.id(), event.kind(), event.pubkey(), stored.has(TELLS_TOUCHES));
        let address = keys::address_of(event);
        // To count the rows costs some work by itself.
        let at_once = rows_max > 0 && Weight::of(event).rows <= rows_max;
        recent.ids.remove(self, txn, &id, cursor)?;
        if let Some(address) = address
            && self.addresses.get(txn, &address)? == Some(&cursor_bytes(cursor))
        {
            self.addresses.delete(txn, &address)?;
        }
        if kind.is_key_package() {
            self.remove_package(txn, &owner, cursor)?;
        }
        if tells {
            for group in Self::tails(self.touched, txn, &cursor_bytes(cursor))? {
                self.touched.delete(txn, &touched_key(cursor, &group))?;
            }
        }
        if at_once {
            return self.erase(txn, recent, cursor).map(Removal::Erased);
        }
        self.removed.put(txn, &cursor_bytes(cursor), &[])?;
        Ok(Removal::Hidden)
    }

    /// Takes the value of a removed event and its keys in the index off the disk, and gives the number of rows.
    pub(super) fn erase(&self, txn: &mut RwTxn<'_>, recent: &mut Changes<'_>, cursor: Cursor) -> Result<usize, Fail> {
        let Some(value) = self.events.get(txn, &cursor_bytes(cursor))?.map(<[u8]>::to_vec) else { return Ok(0) };
        let stored = Stored::read(&value)?;
        let mut rows = 1;
        each_row(&stored, cursor, |table, key| {
            rows += 1;
            recent.rows.delete(self, txn, table, key)
        })?;
        self.events.delete(txn, &cursor_bytes(cursor))?;
        Ok(rows)
    }

    /// Keeps the groups that the event at `cursor` touched.
    pub(super) fn keep_touched(&self, txn: &mut RwTxn<'_>, cursor: Cursor, told: &Touches) -> Result<(), Fail> {
        if let Touches::Groups(groups) = told {
            for group in groups {
                self.touched.put(txn, &touched_key(cursor, group.as_str().as_bytes()), &[])?;
            }
        }
        Ok(())
    }

    /// The groups that the event at `cursor` touched; `None` where its kind says all.
    pub(super) fn told(&self, txn: &RoTxn<'_>, cursor: Cursor, stored: &Stored<'_>) -> Result<Option<Touches>, Fail> {
        if !stored.has(TELLS_TOUCHES) {
            return Ok(stored.has(TOUCHES_GROUPS).then_some(Touches::EveryGroup));
        }
        let mut groups = Vec::new();
        for id in Self::tails(self.touched, txn, &cursor_bytes(cursor))? {
            let id = std::str::from_utf8(&id).ok().and_then(NostrGroupId::parse);
            groups.push(id.ok_or(Fail::Corrupt("a group has an id that is none"))?);
        }
        Ok(Some(Touches::groups(groups)))
    }

    /// The keys of `table` that begin with `prefix`, without it.
    pub(super) fn tails(table: Summed, txn: &RoTxn<'_>, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Fail> {
        let mut tails = Vec::new();
        for entry in table.prefix_iter(txn, prefix)? {
            tails.push(entry?.0[prefix.len()..].to_vec());
        }
        Ok(tails)
    }
}

/// Calls `visit` with the rows of `index` and `received` that lead to the event at `cursor`.
pub(super) fn each_row(
    stored: &Stored<'_>,
    cursor: Cursor,
    mut visit: impl FnMut(Kept, &[u8]) -> Result<(), Fail>,
) -> Result<(), Fail> {
    if stored.has(LOG_ONLY) {
        return Ok(());
    }
    keys::index_keys(stored.event, &stored.audience(), cursor, |key| visit(Kept::Index, key))?;
    stored.received_key(cursor).map_or(Ok(()), |key| visit(Kept::Received, &key))
}

/// The key of `touched` for a group that the event at `cursor` touched.
fn touched_key(cursor: Cursor, group: &[u8]) -> Vec<u8> {
    [&cursor_bytes(cursor), group].concat()
}

/// An event by value, sealed.
pub(super) fn seal(stored: Stored<'_>, cursor: Cursor) -> Result<Sealed, Fail> {
    unpack_event(stored, cursor).map(|(event, stamp)| Sealed::new(event, stamp))
}

/// An event by value, with its stamp.
pub(super) fn unpack_event(stored: Stored<'_>, cursor: Cursor) -> Result<(Event, Stamp), Fail> {
    stored.require_whole(cursor)?;
    let record = bytes::Bytes::copy_from_slice(stored.event.record());
    let event = Event::from_record(record).ok_or(Fail::Corrupt("an event's record is cut short"))?;
    Ok((event, stored.stamp(cursor)))
}

/// A value of the log, sealed, and kept in `hot` for the next read.
pub(super) fn seal_and_keep(value: Value<'_>, hot: &Hot, cursor: Cursor) -> Result<Sealed, Fail> {
    let value = match value {
        Value::Kept(value) => value,
        Value::Mapped(value) => {
            // A kept value was held against its checksum when it was kept.
            Stored::read(value)?.require_whole(cursor)?;
            let value = bytes::Bytes::copy_from_slice(value);
            hot.keep(cursor, value.clone());
            value
        }
    };
    let stamp = Stored::read(&value)?.stamp(cursor);
    let record = value.slice(Stored::record_at(&value)..);
    let event = Event::from_record(record).ok_or(Fail::Corrupt("an event's record is cut short"))?;
    Ok(Sealed::new(event, stamp))
}

#[cfg(test)]
mod tests {
    use heed::{Env, WithTls};
    use nostr_extensions::{Query, Scope, admit::NEVER, query::Position};
    use nostr_protocol::{Filter, testing::EventBuilder, testing::keypair};

    use super::*;
    use crate::{
        PageBounds, Part,
        embedded::{
            Options,
            env::open_env,
            recent::{Most, Progress, Recent},
            scan::{Before, Scan},
            vanished::Vanishing,
        },
    };

    const IDS: [u8; 3] = [9, 1, 5];

    /// An event with a made-up id, of which only the last byte is its own.
    fn twin(last: u8) -> Event {
        let mut record = EventBuilder::new(1).event(&keypair("alice")).record().to_vec();
        record[..32].copy_from_slice(&[7; 32]);
        record[31] = last;
        Event::from_record(record.into()).expect("a record")
    }

    /// A store of events whose ids differ in their last byte alone, as an attacker can grind them for eight bytes.
    struct Twins {
        env: Env<WithTls>,
        tables: Tables,
        recent: Recent,
        progress: Progress,
        last: Cursor,
        _directory: tempfile::TempDir,
    }

    impl Twins {
        /// A store that keeps at most `most` ids and rows in memory.
        fn new(most: usize) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let env = open_env(directory.path(), &Options::default()).expect("an environment");
            let tables = Tables::open(&env).expect("a store");
            let txn = env.read_txn().expect("a reader");
            let most = Most { ids: most, rows: most };
            let (recent, progress) = Recent::recover(&tables, &txn, most).expect("nothing");
            drop(txn);
            let mut twins = Self { env, tables, recent, progress, last: 0, _directory: directory };
            for (cursor, last) in (1..).zip(IDS) {
                twins.last = cursor;
                let stamp = Stamp { cursor, received_at: 1, expires_at: NEVER, author_only: false };
                twins.change(|tables, txn, recent| {
                    tables.put_event(txn, &twin(last), stamp, 0, recent, &mut Vec::new()).expect("it is put");
                });
            }
            twins
        }

        fn change<T>(&mut self, change: impl FnOnce(&Tables, &mut RwTxn<'_>, &mut Changes<'_>) -> T) -> T {
            let mut recent = Changes::new(&self.recent, &self.progress);
            let mut txn = self.env.write_txn().expect("a writer");
            let changed = change(&self.tables, &mut txn, &mut recent);
            recent.write_overflow(&self.tables, &mut txn, self.last).expect("they are written");
            self.progress = recent.commit(txn).expect("a commit");
            changed
        }

        fn find(&self, recent: &Recent, last: u8) -> Option<Cursor> {
            let id = twin(last).id();
            let txn = self.env.read_txn().expect("a reader");
            self.tables.find(&txn, &id, &recent.ids.cursors(&id)).expect("an answer").map(|(cursor, _)| cursor)
        }

        /// The cursors under which the three are found, by this process and by the next.
        fn found(&self) -> [Option<Cursor>; 3] {
            let found = IDS.map(|last| self.find(&self.recent, last));
            let txn = self.env.read_txn().expect("a reader");
            let most = Most { ids: 3, rows: 3 };
            let (recovered, _) = Recent::recover(&self.tables, &txn, most).expect("the ids");
            drop(txn);
            assert_eq!(IDS.map(|last| self.find(&recovered, last)), found);
            assert_eq!(self.find(&self.recent, 2), None);
            found
        }
    }

    #[test]
    fn ids_that_begin_alike_are_told_apart() {
        for (most, rows_max) in [(0, 100), (1, 0), (2, 100), (3, 0)] {
            let mut twins = Twins::new(most);
            assert_eq!(twins.found(), [Some(1), Some(2), Some(3)], "{most}");
            for (removed, left) in [(2, [Some(1), None, Some(3)]), (1, [None, None, Some(3)]), (3, [None; 3])] {
                let mut remove =
                    || twins.change(|tables, txn, recent| tables.remove_event(txn, recent, removed, rows_max));
                let first = remove().expect("it is removed");
                assert_eq!(matches!(first, Removal::Erased(1..)), rows_max > 0);
                assert_eq!(remove().expect("it is gone"), Removal::Absent);
                assert_eq!(twins.found(), left);
                if first == Removal::Hidden {
                    twins.change(|tables, txn, recent| tables.erase(txn, recent, removed)).expect("it is erased");
                }
            }
            let txn = twins.env.read_txn().expect("a reader");
            for table in [twins.tables.events, twins.tables.ids, twins.tables.index, twins.tables.received] {
                assert!(table.is_empty(&txn).expect("an answer"), "no entry of a removed event is left");
            }
        }
    }

    #[test]
    fn pages_go_on_between_ids_that_begin_alike() {
        let Twins { env, tables, recent, _directory, .. } = Twins::new(1);
        let query = Query { filter: Filter::default(), scope: Scope { everyone: true, ..Scope::default() } };
        let mut from: Option<Position> = None;
        let mut found = Vec::new();
        loop {
            let bounds = PageBounds { part: Part::WHOLE, events_max: 1, bytes_max: 1, entries_max: 1 };
            let vanishing = Vanishing::default();
            let (tables, query, vanishing, hot) = (&tables, &query, &vanishing, &Hot::default());
            let before = Before::take(&recent, query, bounds.part);
            let scan = Scan { tables, vanishing, hot, query, before, from, up_to: 3, bounds, now: 1 };
            let page = scan.run(&env.read_txn().expect("a reader")).expect("a page");
            found.extend(page.events.iter().map(|sealed| sealed.position().id.as_bytes()[31]));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(found, [1, 5, 9]);
    }
}
