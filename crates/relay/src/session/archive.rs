//! Reads the archive for one reader. REQ, COUNT and NIP-77 are folds over this read.
//!
//! A filter is planned over the audiences that the reader holds. The gate releases the events of each page one by one,
//! by the state of each group at that moment.

use std::{collections::HashSet, sync::Arc};

use nostr_extensions::{Asker, Group, NostrGroupId, Query, Reader, Released, Scope, Sealed, query::Position};
use nostr_protocol::{EventId, Filter, Rejection};
use nostr_store::{Cursor, PageBounds, StoreError};

use crate::{
    app::App,
    config::Limitation,
    error::{read_failed, storage_unavailable},
};

/// Most events of one page.
const PAGE_EVENTS_MAX: usize = 256;
/// Bytes of a page, which ends with the event that reaches them.
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Most index entries that one page looks at, so that no read holds its thread for long.
const PAGE_ENTRIES_MAX: usize = 2_000;
/// Most pages of one request.
const REQUEST_PAGES_MAX: usize = 5_000;
/// Most ids that a request of several filters keeps, so that no event is given twice.
const SEEN_IDS_MAX: usize = 100_000;

/// A read of the archive under way: several filters, one after the other, each event once.
pub(super) struct ArchiveRead<'a> {
    app: &'a App,
    reader: &'a Reader,
    filters: &'a [Filter],
    up_to: Cursor,
    limits: Limits,
    /// Index of the filter that is read now.
    at: usize,
    current: Option<FilterRead>,
    /// Ids given so far, kept only where a second filter could give them again.
    seen: HashSet<EventId>,
    pages: usize,
}

/// Bounds on the events of one filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The limit of a filter that gives none.
    default: u64,
    /// The highest limit.
    max: u64,
}

impl Limits {
    /// No bound but the filter's own.
    pub(super) const NONE: Self = Self { default: u64::MAX, max: u64::MAX };

    /// The bounds that the operator chose.
    pub(super) const fn of(limitation: &Limitation) -> Self {
        Self { default: limitation.default_limit as u64, max: limitation.max_limit as u64 }
    }

    /// Most events of an answer to `filter`.
    pub(super) fn of_filter(self, filter: &Filter) -> u64 {
        filter.limit.unwrap_or(self.default).min(self.max)
    }
}

/// The read of one filter under way.
struct FilterRead {
    query: Query,
    from: Option<Position>,
    left: u64,
}

/// The reason why a read ends early.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The store failed.
    Store(StoreError),
    /// The cached states of groups may be out of date.
    NotCurrent,
    /// The read looked at too much.
    TooLarge,
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ReadError> for Rejection {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => read_failed(error),
            ReadError::NotCurrent => storage_unavailable(),
            ReadError::TooLarge => Self::error("the request reads too much; narrow it by kinds, tags, since or until"),
        }
    }
}

impl<'a> ArchiveRead<'a> {
    /// A read of the events that were committed up to `up_to`.
    pub(super) fn new(app: &'a App, reader: &'a Reader, filters: &'a [Filter], up_to: Cursor, limits: Limits) -> Self {
        Self { app, reader, filters, up_to, limits, at: 0, current: None, seen: HashSet::new(), pages: 0 }
    }

    /// The next events, or `None` at the end. A page may be empty where the store looked at much and found nothing.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<Released>>, ReadError> {
        loop {
            let Some(filter) = self.filters.get(self.at) else { return Ok(None) };
            let current = match self.current.take() {
                Some(current) => current,
                None => {
                    let left = self.limits.of_filter(filter);
                    let query = plan(self.app, self.reader, filter).await?;
                    FilterRead { query, from: None, left }
                }
            };
            let searches = current.left > 0 && !filter.is_impossible() && current.query.finds_something();
            if !searches {
                self.at += 1;
                continue;
            }
            self.pages += 1;
            if self.pages > REQUEST_PAGES_MAX || self.seen.len() > SEEN_IDS_MAX {
                return Err(ReadError::TooLarge);
            }
            return self.page(filter, current).await.map(Some);
        }
    }

    async fn page(&mut self, filter: &Filter, mut current: FilterRead) -> Result<Vec<Released>, ReadError> {
        let now = self.app.clock.now();
        let bounds = PageBounds {
            // The first page takes no more than the filter's limit. If that was not enough, events that are hidden from
            // this reader stand in between, and pages of full size get past them.
            events_max: match current.from {
                None if filter.ids.is_none() => {
                    PAGE_EVENTS_MAX.min(usize::try_from(current.left).unwrap_or(usize::MAX))
                }
                _ => PAGE_EVENTS_MAX,
            },
            bytes_max: PAGE_BYTES_MAX,
            entries_max: PAGE_ENTRIES_MAX,
        };
        let started = std::time::Instant::now();
        let page = self.app.store.scan(&current.query, current.from, self.up_to, bounds, now).await?;
        self.app.metrics.db_operation("scan", started.elapsed());
        if !self.app.delivery.is_current() {
            return Err(ReadError::NotCurrent);
        }
        if page.events.iter().any(|sealed| sealed.group().is_some()) {
            // Another instance may have acknowledged a removal since this request came.
            self.app.delivery.recent().await.map_err(|_| ReadError::NotCurrent)?;
        }
        // The states are asked for anew for each page: a group may have changed since the last one.
        let groups = PageGroups::of(self.app, &page.events).await?;
        let asker = Asker::new(self.reader, filter);
        let mut released = Vec::with_capacity(page.events.len());
        for sealed in &page.events {
            let Some(event) = self.app.gate.release(sealed, asker, groups.state_for(sealed), now) else { continue };
            if self.filters.len() > 1 && !self.seen.insert(event.id()) {
                continue;
            }
            current.left -= 1;
            released.push(event);
            if current.left == 0 {
                break;
            }
        }
        if page.next.is_some() && current.left > 0 {
            current.from = page.next;
            self.current = Some(current);
        } else {
            self.at += 1;
        }
        Ok(released)
    }
}

/// The groups of a page's events, and their states.
struct PageGroups<'a> {
    /// In ascending order.
    ids: Vec<&'a NostrGroupId>,
    states: Vec<Arc<Group>>,
}

impl<'a> PageGroups<'a> {
    async fn of(app: &App, page: &'a [Sealed]) -> Result<Self, StoreError> {
        let mut ids: Vec<&NostrGroupId> = Vec::new();
        for id in page.iter().filter_map(Sealed::group) {
            // Most pages hold events of one group.
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let states = app.groups.get_all(&ids).await?;
        Ok(Self { ids, states })
    }

    fn state_for(&self, sealed: &Sealed) -> Option<&Group> {
        let index = self.ids.binary_search(&sealed.group()?).ok()?;
        self.states.get(index).map(|state| &**state)
    }
}

/// Plans a filter over the audiences that the reader holds.
async fn plan(app: &App, reader: &Reader, filter: &Filter) -> Result<Query, StoreError> {
    let asker = Asker::new(reader, filter);
    let scans = app.gate.scans(asker);
    let mut groups = Vec::new();
    if scans.groups && filter.ids.is_none() {
        if filter.tags.contains_key(&b'h') {
            let named = filter.tag_values(b'h').iter().filter_map(|h| NostrGroupId::parse(h)).collect();
            groups = app.groups.filter(named, |state| app.gate.may_scan(state, asker)).await?;
        } else if !reader.is_anonymous() {
            groups = app.store.groups_of(reader.keys()).await?;
        }
    }
    let keys = if scans.keys { reader.keys().to_vec() } else { Vec::new() };
    let scope = Scope { everyone: scans.everyone, keys, groups, all_rosters: scans.all_rosters };
    Ok(Query { filter: filter.clone(), scope })
}
