//! Queries: events with the numbers of a plan, merged in NIP-01's order.
//!
//! One query of the service takes a bounded list of numbers, and each document that it reads costs. So a plan is
//! divided into as few lists as possible. Each list is read a little at first, and further when its events are used up.

use std::collections::VecDeque;

use nostr_extensions::{Audience, Query, Scope, Sealed, audience::is_for_admin_keys, query::Position};
use nostr_protocol::UnixSecs;

use crate::{
    Cost, Cursor, Page, PageBounds,
    decide::{hiding::Hidden, plan},
    firestore::{
        Inner,
        documents::{
            events::{EventDocument, cursor},
            names::field,
            query::{self, Under, VALUES_MAX},
        },
        wire::{
            fail::Fail,
            value::{ReadFields as _, id_of},
        },
    },
};

/// Most events of one query.
const QUERY_EVENTS_MAX: usize = 300;
pub(crate) const QUERY_EVENTS_MIN: usize = 8;
/// Bytes that one query should stay below, estimated by the events before.
const QUERY_BYTES_AIM: usize = 4 << 20;
/// Most ids whose events are fetched whole at once. For more ids, the order is found first.
const IDS_WHOLE_MAX: usize = 32;

/// The limit of the next query, after one with this limit gave `count` events of `bytes` bytes.
pub(crate) fn fitting(limit: usize, count: usize, bytes: usize) -> usize {
    let each = (bytes / count.max(1)).max(1);
    (2 * limit).min(QUERY_BYTES_AIM / each).clamp(QUERY_EVENTS_MIN, QUERY_EVENTS_MAX)
}

/// One list of numbers, and the events that it gave and the page has not taken.
struct NumberRange<'a> {
    numbers: &'a [i64],
    waiting: VecDeque<EventDocument>,
    behind: Option<Position>,
    is_done: bool,
    limit: usize,
}

/// Builds a page.
struct PageBuilder<'a> {
    scan: &'a Scan<'a>,
    hidden: Hidden,
    page: Page,
    bytes: usize,
    looked: usize,
    last: Option<Position>,
    cost: Cost,
}

/// Arguments of [`crate::Store::scan`].
pub(crate) struct Scan<'a> {
    pub(crate) query: &'a Query,
    pub(crate) from: Option<Position>,
    pub(crate) up_to: Cursor,
    pub(crate) bounds: PageBounds,
    pub(crate) now: UnixSecs,
}

fn position(stored: &EventDocument) -> Position {
    Position { created_at: stored.event.created_at(), id: stored.event.id() }
}

impl PageBuilder<'_> {
    /// Looks at the next event, and returns `true` if the page ends with it.
    fn look(&mut self, stored: EventDocument) -> bool {
        let Scan { query, up_to, bounds, now, .. } = self.scan;
        self.looked += 1;
        self.cost += Cost::of_units(Cost::of_event(stored.event.view()));
        self.last = Some(position(&stored));
        let event = stored.event.view();
        let is_wanted = stored.cursor <= *up_to
            && stored.expires_at > *now
            && stored.is_found()
            && query.filter.matches(event)
            && !self.hidden.hides(event);
        if is_wanted {
            let sealed = stored.seal();
            if query.filter.ids.is_some() || is_in_scope(&query.scope, &sealed) {
                self.bytes += sealed.byte_len();
                self.page.events.push(sealed);
            }
        }
        self.page.events.len() >= bounds.events_max.max(1)
            || self.bytes >= bounds.bytes_max.max(1)
            || self.looked >= bounds.entries_max.max(1)
    }

    fn end(mut self, is_all: bool) -> Page {
        self.page.next = self.last.filter(|_| !is_all);
        self.page.cost = self.cost;
        self.page
    }
}

fn is_in_scope(scope: &Scope, sealed: &Sealed) -> bool {
    match sealed.audience() {
        Audience::Everyone => scope.everyone,
        Audience::Keys(keys) => keys.iter().any(|key| scope.keys.contains(key)),
        Audience::Group(group) => {
            scope.groups.contains(group) || (scope.all_rosters && is_for_admin_keys(sealed.kind()))
        }
        Audience::Nobody => false,
    }
}

impl Inner {
    /// See [`crate::Store::scan`].
    pub(crate) async fn scan(&self, scan: Scan<'_>) -> Result<Page, Fail> {
        let hidden = self.hiding.now();
        let (page, cost) = (Page::default(), Cost::default());
        let pages = PageBuilder { scan: &scan, hidden, page, bytes: 0, looked: 0, last: scan.from, cost };
        if scan.query.filter.is_impossible() {
            return Ok(pages.end(true));
        }
        match &scan.query.filter.ids {
            Some(ids) => self.scan_ids(scan.bounds.part.of(ids), pages).await,
            None => self.scan_numbers(pages).await,
        }
    }

    async fn scan_numbers(&self, mut pages: PageBuilder<'_>) -> Result<Page, Fail> {
        let scan = pages.scan;
        let numbers = plan(scan.query, scan.bounds.part);
        pages.cost += Cost::of_units(numbers.len() as u64);
        let count = numbers.len().div_ceil(VALUES_MAX).max(1);
        let wanted = scan.bounds.events_max.min(scan.bounds.entries_max).saturating_add(1);
        let limit = (2 * wanted).div_ceil(count).min(wanted).clamp(QUERY_EVENTS_MIN, QUERY_EVENTS_MAX);
        let mut ranges: Vec<NumberRange<'_>> = numbers
            .chunks(VALUES_MAX)
            .map(|numbers| NumberRange { numbers, waiting: VecDeque::new(), behind: scan.from, is_done: false, limit })
            .collect();
        loop {
            let empty = ranges.iter_mut().filter(|range| range.waiting.is_empty() && !range.is_done);
            let filled = futures_util::future::try_join_all(empty.map(|range| self.fill(scan, range))).await?;
            pages.cost += Cost::of_documents(filled.into_iter().sum());
            let next = ranges.iter().filter_map(|range| range.waiting.front().map(position)).min();
            let Some(next) = next else { return Ok(pages.end(true)) };
            let mut found = None;
            for range in &mut ranges {
                if range.waiting.front().map(position) == Some(next) {
                    found = range.waiting.pop_front();
                }
            }
            if found.is_some_and(|stored| pages.look(stored)) {
                let is_all = ranges.iter().all(|range| range.is_done && range.waiting.is_empty());
                return Ok(pages.end(is_all));
            }
        }
    }

    /// Reads a list further, and gives the number of documents that the service charged for.
    async fn fill(&self, scan: &Scan<'_>, range: &mut NumberRange<'_>) -> Result<u64, Fail> {
        let name = range.behind.map(|behind| self.names.event(&behind.id));
        let under = Under {
            numbers: range.numbers,
            since: scan.query.filter.since,
            until: scan.query.filter.until,
            behind: range.behind.map(|behind| behind.created_at).zip(name.as_deref()),
            limit: range.limit,
        };
        let _place = self.scans.acquire().await;
        self.client.reads.allow()?;
        let answer = self.client.query(query::events_under(&self.names, under)).await?;
        let found = answer.documents;
        range.is_done = found.len() < range.limit;
        let mut bytes = 0;
        for document in &found {
            let stored = EventDocument::read(document)?;
            bytes += stored.event.record().len();
            range.behind = Some(position(&stored));
            range.waiting.push_back(stored);
        }
        range.limit = fitting(range.limit, found.len(), bytes);
        Ok(answer.charged)
    }

    async fn scan_ids(&self, ids: &[nostr_protocol::EventId], mut pages: PageBuilder<'_>) -> Result<Page, Fail> {
        let scan = pages.scan;
        let names: Vec<String> = ids.iter().map(|id| self.names.event(id)).collect();
        let fields = (names.len() > IDS_WHOLE_MAX).then_some(&[field::CREATED_AT, "place"][..]);
        pages.cost += Cost::of_documents(names.len() as u64);
        let mut got = self.client.get(names, fields).await?;
        let mut order: Vec<(Position, String)> = Vec::new();
        for document in got.documents.values() {
            let id = nostr_protocol::EventId::from_hex(id_of(document)).ok_or(Fail::Damaged("an event's name"))?;
            let created_at = document.secs(field::CREATED_AT).ok_or(Fail::Damaged("an event's time"))?;
            if cursor(document).is_some_and(|cursor| cursor <= scan.up_to) {
                order.push((Position { created_at, id }, document.name.clone()));
            }
        }
        order.retain(|(position, _)| scan.from.is_none_or(|from| *position > from));
        order.sort_unstable_by_key(|(position, _)| *position);
        let count = order.len();
        for (n, (place, name)) in order.iter().enumerate() {
            if fields.is_some() && n % IDS_WHOLE_MAX == 0 {
                let some: Vec<String> = order[n..].iter().take(IDS_WHOLE_MAX).map(|(_, name)| name.clone()).collect();
                pages.cost += Cost::of_documents(some.len() as u64);
                got = self.client.get(some, None).await?;
            }
            let Some(document) = got.get(name) else {
                // The event was removed after its position was read.
                pages.last = Some(*place);
                continue;
            };
            if pages.look(EventDocument::read(document)?) {
                return Ok(pages.end(n + 1 == count));
            }
        }
        Ok(pages.end(true))
    }
}
