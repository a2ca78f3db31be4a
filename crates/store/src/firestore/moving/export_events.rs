//! The events of an export, and their order.
//!
//! The log is kept for an hour, and no query can use the commit time. Each event has the second of its receipt and its
//! cursor. So events are exported by the second of receipt, and within a second by cursor. This is the order of the
//! log, with three exceptions:
//!
//! - Events that instances received at the same time may change places at the turn of a second, if they were committed
//!   in the next.
//! - Imported events stand at the second of their first receipt.
//! - Events of a second with more than [`SECOND_EVENTS_MAX`] events, which only an import can cause, are ordered by
//!   their ids.
//!
//! The positions of a page's events are read first, and then the events.

use gcloud_sdk::google::firestore::v1::Document;
use nostr_protocol::{EventId, UnixSecs};

use crate::{
    Cursor,
    firestore::{
        Inner,
        documents::{
            events::{EventDocument, cursor},
            names::field,
            query,
        },
        moving::export::QUERY_DOCUMENTS_MAX,
        read::scan::{QUERY_EVENTS_MIN, fitting},
        wire::{
            fail::Fail,
            value::{ReadFields as _, Unpack, id_of},
        },
    },
    moving::{ExportBounds, ExportPage, ExportPosition, Record, after_part},
};

/// Most events of one second that go out in the order of the log.
const SECOND_EVENTS_MAX: usize = 20_000;
/// Most queries for the positions of one page.
const QUERIES_MAX: usize = SECOND_EVENTS_MAX / QUERY_DOCUMENTS_MAX;

/// The key by which an export sorts events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    received_at: UnixSecs,
    cursor: Cursor,
    id: EventId,
}

impl SortKey {
    fn of(document: &Document) -> Result<Self, Fail> {
        let read = || {
            let received_at = document.secs(field::RECEIVED_AT)?;
            Some(Self { received_at, cursor: cursor(document)?, id: EventId::from_hex(id_of(document))? })
        };
        read().ok_or(Fail::Damaged("an event"))
    }

    /// The position after all events of a second.
    const fn end_of(received_at: UnixSecs) -> Self {
        Self { received_at, cursor: Cursor::MAX, id: EventId::from_bytes([u8::MAX; 32]) }
    }
}

/// The end of the part that was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Behind {
    /// Everything up to this position.
    Key(SortKey),
    /// All earlier seconds, and this second, which has too many events to be sorted, up to an id.
    Id(UnixSecs, EventId),
}

impl Behind {
    /// Reads [`Behind::pack`]'s bytes. Empty bytes stand before the first event.
    fn unpack(packed: &[u8]) -> Option<Self> {
        let mut left = Unpack(packed);
        let behind = match packed.len() {
            0 => return Some(Self::Key(SortKey { received_at: 0, cursor: 0, id: EventId::from_bytes([0; 32]) })),
            40 => Self::Id(left.u64()?, EventId::from_bytes(left.array()?)),
            _ => {
                let (received_at, cursor) = (left.u64()?, left.u64()?);
                Self::Key(SortKey { received_at, cursor, id: EventId::from_bytes(left.array()?) })
            }
        };
        left.is_empty().then_some(behind)
    }

    fn pack(self) -> Vec<u8> {
        match self {
            Self::Key(SortKey { received_at, cursor, id }) => {
                [&received_at.to_be_bytes()[..], &cursor.to_be_bytes(), id.as_bytes()].concat()
            }
            Self::Id(received_at, id) => [&received_at.to_be_bytes()[..], id.as_bytes()].concat(),
        }
    }
}

/// The next events of an export.
#[derive(Debug)]
struct Window {
    /// Positions in the order of the export.
    positions: Vec<SortKey>,
    /// Whether they are ordered by their ids.
    by_id: bool,
    /// The position after all of them; `None` if they are the last.
    end: Option<Behind>,
}

/// The window that begins after `behind`. `looked` are the positions that the service gave, ordered by second and id;
/// `is_all` says that no more exist.
fn window(behind: Behind, mut looked: Vec<SortKey>, is_all: bool) -> Window {
    let last = looked.last().copied();
    match behind {
        Behind::Id(second, _) => {
            looked.retain(|position| position.received_at == second);
            let ended = looked.last().copied() != last || is_all;
            let end = if ended { Behind::Key(SortKey::end_of(second)) } else { id_behind(last, behind) };
            Window { positions: looked, by_id: true, end: Some(end) }
        }
        Behind::Key(after) => {
            let whole = match last {
                Some(last) if !is_all => looked.partition_point(|it| it.received_at < last.received_at),
                _ => looked.len(),
            };
            if whole == 0 && !is_all {
                // This second has more events than can be sorted.
                return Window { positions: looked, by_id: true, end: Some(id_behind(last, behind)) };
            }
            looked.truncate(whole);
            let end = looked.last().map(|last| Behind::Key(SortKey::end_of(last.received_at)));
            looked.retain(|position| *position > after);
            looked.sort_unstable();
            Window { positions: looked, by_id: false, end: end.filter(|_| !is_all) }
        }
    }
}

fn id_behind(last: Option<SortKey>, otherwise: Behind) -> Behind {
    last.map_or(otherwise, |last| Behind::Id(last.received_at, last.id))
}

impl Inner {
    /// A page of events up to the cursor of the export.
    pub(crate) async fn export_events(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, Fail> {
        let behind = Behind::unpack(from.behind()).ok_or(Fail::Damaged("a place in an export"))?;
        let (records_max, hidden) = (bounds.records_max.max(1), self.hiding.now());
        let Window { mut positions, by_id, end } = self.window_behind(behind).await?;
        positions.retain(|position| position.cursor <= from.up_to());
        let (mut records, mut bytes, mut looked) = (Vec::new(), 0, 0);
        let mut limit = QUERY_EVENTS_MIN;
        while looked < positions.len() && records.len() < records_max && bytes < bounds.bytes_max.max(1) {
            let some = positions[looked..].iter().take(limit.min(records_max - records.len()));
            let some: Vec<String> = some.map(|position| self.names.event(&position.id)).collect();
            let got = self.client.get(some.clone(), None).await?;
            let mut read = 0;
            for name in &some {
                looked += 1;
                // The event was removed after its position was read.
                let Some(document) = got.get(name) else { continue };
                let stored = EventDocument::read(document)?;
                read += stored.event.record().len();
                if stored.expires_at > now && !hidden.hides(stored.event.view()) {
                    let record = Record::Event(stored.exported());
                    bytes += record.byte_len();
                    records.push(record);
                    if bytes >= bounds.bytes_max.max(1) {
                        break;
                    }
                }
            }
            limit = fitting(limit, some.len(), read);
        }
        let last = match positions[..looked].last() {
            Some(last) if looked < positions.len() => Some(match by_id {
                true => Behind::Id(last.received_at, last.id),
                false => Behind::Key(*last),
            }),
            _ => end,
        };
        Ok(ExportPage { records, next: after_part(from, last.map(Behind::pack)) })
    }

    /// Positions of the next events, at least those of one whole second.
    async fn window_behind(&self, behind: Behind) -> Result<Window, Fail> {
        let (since, mut edge) = match behind {
            Behind::Key(it) if it.cursor == Cursor::MAX => (it.received_at.saturating_add(1), None),
            Behind::Key(it) => (it.received_at, None),
            Behind::Id(second, id) => (second, Some((second, self.names.event(&id)))),
        };
        let mut looked: Vec<SortKey> = Vec::new();
        for _ in 0..QUERIES_MAX {
            let from = edge.as_ref().map(|(second, name)| (*second, name.as_str()));
            let asked = query::received_since(&self.names, since, from, QUERY_DOCUMENTS_MAX);
            let found = self.client.query(asked).await?.documents;
            for document in &found {
                looked.push(SortKey::of(document)?);
            }
            if found.len() < QUERY_DOCUMENTS_MAX {
                return Ok(window(behind, looked, true));
            }
            let Some(last) = looked.last() else { break };
            let is_enough = match behind {
                Behind::Id(..) => true,
                Behind::Key(after) => looked.iter().any(|it| *it > after && it.received_at < last.received_at),
            };
            if is_enough {
                break;
            }
            edge = Some((last.received_at, self.names.event(&last.id)));
        }
        Ok(window(behind, looked, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(received_at: UnixSecs, cursor: Cursor, id: u8) -> SortKey {
        SortKey { received_at, cursor, id: EventId::from_bytes([id; 32]) }
    }

    #[test]
    fn places_are_read_back() {
        let id = EventId::from_bytes([7; 32]);
        for behind in [Behind::Key(position(1, 2, 3)), Behind::Id(9, id), Behind::Key(SortKey::end_of(4))] {
            assert_eq!(Behind::unpack(&behind.pack()), Some(behind));
        }
        assert!(Behind::unpack(&[]).is_some_and(|it| it < Behind::Key(position(0, 0, 1))));
        assert!([1, 39, 41, 47, 49].iter().all(|len| Behind::unpack(&vec![0; *len]).is_none()));
    }

    /// All stored events, window by window, with at most `fits` positions read for each.
    fn windows(stored: &[SortKey], fits: usize) -> Vec<SortKey> {
        let mut out = Vec::new();
        let mut behind = Behind::unpack(&[]);
        while let Some(from) = behind {
            let looked: Vec<SortKey> = stored
                .iter()
                .filter(|it| match from {
                    Behind::Key(after) if after.cursor == Cursor::MAX => it.received_at > after.received_at,
                    Behind::Key(after) => it.received_at >= after.received_at,
                    Behind::Id(second, id) => (it.received_at, it.id) > (second, id),
                })
                .take(fits)
                .copied()
                .collect();
            let is_all = looked.len() < fits;
            let next = window(from, looked, is_all);
            assert!(next.end != Some(from), "it goes on");
            out.extend(next.positions);
            behind = next.end;
        }
        out
    }

    #[test]
    fn events_go_out_once_by_second_and_then_by_cursor_or_where_there_are_too_many_by_id() {
        // The service orders by second and id; cursors run against the ids here.
        let second = |at: UnixSecs, count: u8| (0..count).map(move |n| position(at, 100 - u64::from(n), n));
        let stored: Vec<SortKey> =
            [(5, 3), (6, 9), (7, 1), (9, 2)].into_iter().flat_map(|(a, n)| second(a, n)).collect();
        let mut sorted = stored.clone();
        sorted.sort_unstable();
        assert_eq!(windows(&stored, 10), sorted);
        for fits in 2..9 {
            let out = windows(&stored, fits);
            let of = |all: &[SortKey], at| all.iter().filter(|it| it.received_at == at).copied().collect::<Vec<_>>();
            assert!(out.len() == stored.len() && out.is_sorted_by_key(|it| it.received_at), "{fits}");
            assert_eq!(of(&out, 6), of(&stored, 6), "{fits}: by id");
            if fits > 3 {
                assert_eq!(of(&out, 5), of(&sorted, 5), "{fits}: by cursor");
            }
        }
    }
}
