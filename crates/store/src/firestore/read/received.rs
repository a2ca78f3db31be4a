//! Lists in the order of receipt.
//!
//! The order is the commit time, which no query can use. As for the log (`log::follow`), a query goes by `at`, the
//! time at which the service received the event, which precedes the commit by at most [`LAG_SECS`]. So a place has two
//! parts: the cursor up to which everything was given, and the `at` from which a read looks for the rest. Far from the
//! head of the log each event is read once; near it, those of the last [`LAG_SECS`] are read again.

use nostr_protocol::UnixSecs;

use crate::{
    Cost, Cursor, Receipt, Received, ReceivedBounds, ReceivedPage,
    decide::number_of,
    firestore::{
        Inner,
        documents::{
            events::EventDocument,
            names::field,
            query::{self, VALUES_MAX},
        },
        log::follow::{LAG_SECS, SKEW_SECS},
        read::scan::{QUERY_EVENTS_MIN, fitting},
        wire::{
            clock::{Micros, SEC, micros, through, time_of},
            fail::Fail,
            value::ReadFields as _,
        },
    },
};

/// Most documents that one call looks at before it finds one that it can give.
const LOOKED_MAX: usize = 50_000;

/// The documents that were read for one page.
#[derive(Default)]
struct Looked {
    /// Those that the reader was not given before, each with its `at`.
    found: Vec<(Micros, EventDocument)>,
    count: usize,
    /// Every event of the list up to this time is among them.
    known_to: Micros,
    /// Time of the first read.
    read_at: Micros,
    /// The last `at`; `None` where nothing is left.
    last: Option<Micros>,
    cost: Cost,
}

impl Looked {
    /// Number of events that can be given: no event that comes later stands before them.
    fn ready(&self, up_to: Cursor) -> usize {
        let known_to = through(self.known_to).min(up_to);
        self.found.iter().filter(|(_, stored)| stored.cursor <= known_to).count()
    }
}

impl Inner {
    /// See [`crate::Store::received`].
    pub(crate) async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, Fail> {
        let end = Receipt { cursor: up_to.max(from.cursor), look_from: from.look_from };
        let mut page = ReceivedPage { next: end, ..ReceivedPage::default() };
        let numbers: Vec<i64> = query.prefixes().iter().map(|prefix| number_of(prefix)).collect();
        if from.cursor >= up_to || numbers.is_empty() || numbers.len() > VALUES_MAX {
            return Ok(page);
        }
        let mut looked = self.look(&numbers, from, up_to, bounds).await?;
        page.cost = looked.cost;
        looked.found.sort_unstable_by_key(|(_, stored)| stored.cursor);
        let known_to = through(looked.known_to).min(up_to).max(from.cursor);
        let (hidden, mut bytes, mut taken) = (self.hiding.now(), 0, 0);
        let mut last = from.cursor;
        for (_, stored) in &looked.found {
            let is_full = page.events.len() >= bounds.events_max.max(1) || bytes >= bounds.bytes_max.max(1);
            // Events that share a cursor stay together.
            if stored.cursor > known_to || (is_full && stored.cursor > last) {
                break;
            }
            (last, taken) = (stored.cursor, taken + 1);
            page.cost += Cost::of_units(Cost::of_event(stored.event.view()));
            if stored.expires_at > now && stored.is_found() && !hidden.hides(stored.event.view()) {
                let sealed = stored.clone().seal();
                if query.holds(&sealed) {
                    bytes += sealed.byte_len();
                    page.events.push(sealed);
                }
            }
        }
        let left = &looked.found[taken..];
        let is_cut = left.iter().any(|(_, stored)| stored.cursor <= known_to);
        page.next.cursor = if is_cut { last } else { known_to };
        page.has_more = is_cut || looked.last.is_some();
        let first_left = left.iter().map(|(at, _)| *at).min();
        let settled = looked.read_at.saturating_sub(LAG_SECS * SEC);
        page.next.look_from = [first_left, looked.last].into_iter().flatten().fold(settled, Micros::min);
        Ok(page)
    }

    /// Reads in the order of `at`, until there is enough to give.
    async fn look(
        &self,
        numbers: &[i64],
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
    ) -> Result<Looked, Fail> {
        let start = time_of(from.cursor).saturating_sub(LAG_SECS * SEC).max(from.look_from);
        let mut looked = Looked { cost: Cost::of_units(numbers.len() as u64), ..Looked::default() };
        let mut behind: Option<(Micros, String)> = None;
        let (mut limit, mut bytes, mut is_first) = (QUERY_EVENTS_MIN.max(bounds.events_max.min(64)), 0, true);
        loop {
            let at = behind.as_ref().map(|(at, name)| (*at, name.as_str()));
            let found = self.client.query(query::received_under(&self.names, numbers, start, at, limit)).await?;
            if is_first {
                looked.read_at = found.read_at;
                is_first = false;
            }
            let count = found.documents.len();
            looked.count += count;
            // An empty answer is charged as one document.
            looked.cost += Cost::of_documents(count.max(1) as u64);
            let mut read = 0;
            for document in &found.documents {
                let at = document.time(field::AT).map(micros).ok_or(Fail::Damaged("an event's time"))?;
                behind = Some((at, document.name.clone()));
                let stored = EventDocument::read(document)?;
                read += stored.event.record().len();
                if stored.cursor > from.cursor {
                    looked.found.push((at, stored));
                }
            }
            bytes += read;
            let is_all = count < limit;
            looked.last = behind.as_ref().map(|(at, _)| *at).filter(|_| !is_all);
            // A document beyond this query has a later `at`, and a later commit time still. A commit after the first
            // read may be missing from that read's documents.
            let to = looked.last.map_or(Micros::MAX, |at| at.saturating_sub(SKEW_SECS * SEC));
            looked.known_to = to.min(looked.read_at);
            let ready = looked.ready(up_to);
            let is_enough = ready >= bounds.events_max.max(1)
                || (ready > 0 && (bytes >= bounds.bytes_max || looked.count >= bounds.entries_max));
            if is_all || is_enough {
                return Ok(looked);
            }
            if looked.count >= LOOKED_MAX {
                return Err(Fail::Unavailable("too many events of one second".to_owned()));
            }
            limit = fitting(limit, count, read);
        }
    }
}
