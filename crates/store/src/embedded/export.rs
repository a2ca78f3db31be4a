//! Export: pages of everything that is stored, each read in a snapshot of its own. Import goes by the writer's queue.

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use heed::RoTxn;
use nostr_extensions::{GroupStatus, NostrGroupId, Restored};
use nostr_protocol::{DAY_SECS, Event, PublicKey, UnixSecs};

use super::{
    Embedded,
    fail::Fail,
    keys::{Stored, cursor_bytes, number_from},
    queue::Call,
    summed::Summed,
    vanished::Vanished,
};
use crate::{
    StoreError,
    moving::{ExportBounds, ExportPage, ExportPosition, Exported, Imported, Moving, Part, Record, after_part},
};

/// Most entries that one page looks at, exported or not.
const ENTRIES_MAX: usize = 20_000;

/// A page of records that is being filled.
struct ExportFilling {
    bounds: ExportBounds,
    records: Vec<Record<Exported>>,
    bytes: usize,
    entries: usize,
}

impl ExportFilling {
    fn push(&mut self, record: Record<Exported>) {
        self.bytes += record.byte_len();
        self.records.push(record);
    }

    /// Counts one more entry that was looked at. Returns whether the page ends there.
    fn count_entry(&mut self) -> bool {
        self.entries += 1;
        self.records.len() >= self.bounds.records_max.max(1)
            || self.bytes >= self.bounds.bytes_max
            || self.entries >= ENTRIES_MAX
    }
}

impl Embedded {
    pub(super) fn export_page(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, StoreError> {
        self.read(|txn| {
            let mut page = ExportFilling { bounds, records: Vec::new(), bytes: 0, entries: 0 };
            let last = match from.part() {
                Part::Founded => self.founded(txn, from, now, &mut page)?,
                Part::Events => self.events(txn, from, now, &mut page)?,
                part => self.each(txn, self.table_of(part)?, from, &mut page)?,
            };
            Ok(ExportPage { records: page.records, next: after_part(from, last) })
        })
    }

    fn table_of(&self, part: Part) -> Result<Summed, Fail> {
        Ok(match part {
            Part::Vanished => self.tables.vanished,
            Part::Tombstones => self.tables.tombstones,
            Part::AddressTombstones => self.tables.address_tombstones,
            Part::Claimed => self.tables.claimed,
            Part::Unlisted => self.tables.unlisted,
            Part::Groups => self.tables.groups,
            Part::Founded | Part::Events => return Err(Fail::Corrupt("an export has lost its way")),
        })
    }

    /// Reads a table in the order of its keys; gives the last key, where the page ended before the table.
    fn each(
        &self,
        txn: &RoTxn<'_>,
        table: Summed,
        from: &ExportPosition,
        page: &mut ExportFilling,
    ) -> Result<Option<Vec<u8>>, Fail> {
        for entry in table.range(txn, &(behind(from.behind()), Bound::Unbounded))? {
            let (key, value) = entry?;
            page.push(self.record(txn, from.part(), key, value)?);
            if page.count_entry() {
                return Ok(Some(key.to_vec()));
            }
        }
        Ok(None)
    }

    fn record(&self, txn: &RoTxn<'_>, part: Part, key: &[u8], value: &[u8]) -> Result<Record<Exported>, Fail> {
        let pair = || -> Result<([u8; 16], [u8; 16]), Fail> {
            let (a, b) = key.split_at_checked(16).ok_or(Fail::Corrupt("a key is cut short"))?;
            Ok((fixed(a)?, fixed(b)?))
        };
        Ok(match part {
            Part::Vanished => {
                Record::Vanished { key: PublicKey::from_bytes(fixed(key)?), at: Vanished::read(value)?.at }
            }
            Part::Tombstones => {
                let (target, deleter) = pair()?;
                Record::Tombstone { target, deleter, public: value == [1] }
            }
            Part::AddressTombstones => Record::AddressTombstone { address: fixed(key)?, until: number_from(value) },
            Part::Claimed => {
                let (owner, content) = pair()?;
                Record::Claimed { owner, content }
            }
            Part::Unlisted => Record::Unlisted(group_id(key)?),
            Part::Groups => {
                let id = group_id(key)?;
                let epoch = self.shared.epochs.lock().last(&id);
                let GroupStatus::Managed(mut view) = self.tables.group_status(txn, &id)? else {
                    return Err(Fail::Corrupt("a group's record does not read"));
                };
                if let Some(last_epoch) = epoch {
                    Arc::make_mut(&mut view).record.last_epoch = last_epoch;
                }
                let invited = self.tables.invited_members(txn, &id)?;
                Record::Group { id, view: Arc::unwrap_or_clone(view), invited }
            }
            Part::Founded | Part::Events => return Err(Fail::Corrupt("an export has lost its way")),
        })
    }

    /// One record a founder.
    fn founded(
        &self,
        txn: &RoTxn<'_>,
        from: &ExportPosition,
        now: UnixSecs,
        page: &mut ExportFilling,
    ) -> Result<Option<Vec<u8>>, Fail> {
        // A key is a founder and 16 bytes, so this bound sorts after all keys of one founder.
        let mut lower = from.behind().to_vec();
        if !lower.is_empty() {
            lower.extend_from_slice(&[0xff; 17]);
        }
        let mut open: Option<(PublicKey, Vec<UnixSecs>)> = None;
        let mut close = |open: Option<(PublicKey, Vec<UnixSecs>)>| {
            let (key, at) = open?;
            if !at.is_empty() {
                page.push(Record::Founded { key, at });
            }
            page.count_entry().then(|| key.as_bytes().to_vec())
        };
        for entry in self.tables.founded.range(txn, &(behind(&lower), Bound::Unbounded))? {
            let (key, _) = entry?;
            let (founder, tail) = key.split_at_checked(32).ok_or(Fail::Corrupt("a founder is cut short"))?;
            let founder = PublicKey::from_bytes(fixed(founder)?);
            if open.as_ref().is_none_or(|(key, _)| *key != founder)
                && let Some(last) = close(open.replace((founder, Vec::new())))
            {
                return Ok(Some(last));
            }
            let at = number_from(tail.get(..8).ok_or(Fail::Corrupt("a founding has no time"))?);
            if let Some((_, times)) = open.as_mut().filter(|_| at.saturating_add(DAY_SECS) > now) {
                times.push(at);
            }
        }
        close(open);
        Ok(None)
    }

    fn events(
        &self,
        txn: &RoTxn<'_>,
        from: &ExportPosition,
        now: UnixSecs,
        page: &mut ExportFilling,
    ) -> Result<Option<Vec<u8>>, Fail> {
        let vanishing = self.shared.vanishing.load();
        let (lower, upper) = (cursor_bytes(from.behind_cursor()), cursor_bytes(from.up_to()));
        if lower >= upper {
            return Ok(None);
        }
        let range = (Bound::Excluded(&lower[..]), Bound::Included(&upper[..]));
        for entry in self.tables.events.range(txn, &range)? {
            let (key, value) = entry?;
            let stored = Stored::read(value)?;
            let is_gone = vanishing.hides(stored.event) || self.tables.is_removed(txn, number_from(key))?;
            if stored.expires_at > now && !is_gone {
                let record = bytes::Bytes::copy_from_slice(stored.event.record());
                let event = Event::from_record(record).ok_or(Fail::Corrupt("an event's record is cut short"))?;
                let kept = stored.meta(self.tables.told(txn, number_from(key), &stored)?);
                page.push(Record::Event(Exported { event, kept }));
            }
            if page.count_entry() {
                return Ok(Some(number_from(key).to_be_bytes().to_vec()));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Moving for Embedded {
    async fn export(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, StoreError> {
        self.export_page(from, bounds, now)
    }

    async fn import(&self, records: Vec<Record<Restored>>, now: UnixSecs) -> Result<Vec<Imported>, StoreError> {
        self.queue.call(|answer| Call::Import { records, now, answer }).await?
    }
}

fn behind(key: &[u8]) -> Bound<&[u8]> {
    // LMDB has no empty key.
    if key.is_empty() { Bound::Unbounded } else { Bound::Excluded(key) }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Fail> {
    bytes.try_into().map_err(|_| Fail::Corrupt("a key is cut short"))
}

fn group_id(key: &[u8]) -> Result<NostrGroupId, Fail> {
    let id = std::str::from_utf8(key).ok().and_then(NostrGroupId::parse);
    id.ok_or(Fail::Corrupt("a group has an id that is none"))
}
