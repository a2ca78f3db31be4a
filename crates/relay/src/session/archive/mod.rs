//! Reads the archive for one reader. REQ, COUNT and NIP-77 are folds over this read.
//!
//! 1. A filter is planned over the audiences that the reader holds, and divided into parts ([`merge`]).
//! 2. Each call of the store reads one page of one part: in one poll of the task, for which the payer's share of the
//!    processor pays ([`crate::shares`]), or in the payer's turn at a shared store ([`crate::turns`]). The payer's
//!    budget pays for the page's cost ([`meter`]).
//! 3. The gate releases the events that come next one by one, by the state of each group at that moment.

mod extent;
mod merge;
mod meter;
pub(crate) mod receipts;

use std::{collections::HashSet, sync::Arc};

use nostr_extensions::{Asker, Group, GroupStatus, NostrGroupId, Query, Reader, Released, Scope, Sealed};
use nostr_protocol::{EventId, Filter, Rejection, message::Completeness};
use nostr_store::{Cost, Cursor, PageBounds, StoreError, parts};

pub(crate) use self::meter::Meter;
use self::{
    extent::{Allowance, Extent, Next},
    merge::{Fill, Merge},
};
use super::{Caller, settling};
use crate::{
    app::App,
    config::Limitation,
    delivery::groups::GroupState,
    error::{read_failed, storage_unavailable},
    memory::Held,
    observe::slow::ReadWork,
    rate_limit::{Cause, RetryAfter},
};

/// Most events of one page.
const PAGE_EVENTS_MAX: usize = 256;
/// Fewest events that a page of one part of many asks for.
const PAGE_EVENTS_MIN: usize = 8;
/// Bytes of a page, which ends with the event that reaches them.
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Most index entries that one page looks at, together with the events and their tags, so that no read holds its thread
/// for long.
const PAGE_ENTRIES_MAX: usize = 2_000;
/// Most ranges of the index that one page opens, where the store is this process's own.
const PAGE_RANGES_MAX: usize = 256;
/// Most ranges that one statement of a shared database opens.
const STATEMENT_RANGES_MAX: usize = 64;
/// Most entries that one such statement reads: as many of each range as the page has events.
const STATEMENT_ENTRIES_MAX: usize = 8_192;
/// Most groups whose states are asked for in one turn.
const GROUPS_PER_TURN_MAX: usize = 32;
/// Most ids that are paid for at one time: a budget is overdrawn by no more than these.
const IDS_PER_CHARGE_MAX: usize = 1_000;
/// Most ids that a request of several filters keeps, so that no event is given twice.
const SEEN_IDS_MAX: usize = 100_000;

/// Units of each filter.
const FILTER_UNITS: u64 = 2;
/// Units of each id in `ids`, found or not. An event that is hidden costs the same as one that is not there.
const ID_UNITS: u64 = 16;
/// Units of each group in `#h`, for its state: known or not, cached or not.
pub(crate) const NAMED_GROUP_UNITS: u64 = 8;
/// Units of each group that the reader is a member of, where the filter names none.
pub(crate) const MEMBERSHIP_UNITS: u64 = 1;

/// A read of the archive under way: several filters, one after the other, each event once.
pub(crate) struct ArchiveRead<'a> {
    caller: &'a Caller,
    app: &'a App,
    reader: &'a Reader,
    filters: &'a [Filter],
    up_to: Cursor,
    limits: Limits,
    meter: Meter<'a>,
    /// Index of the filter that is read now.
    at: usize,
    current: Option<FilterRead>,
    /// The groups of the reader's keys, once a filter has needed them.
    memberships: Option<Vec<NostrGroupId>>,
    /// Ids given so far, kept only where a second filter could give them again.
    seen: HashSet<EventId>,
    /// The memory of all this and of the page that was given last, in the connection's memory.
    held: Held<'a>,
    /// Set once a filter was left before all its events were given.
    is_cut: bool,
    /// Set once events were passed over because a group is closed, which the reader may see at another time.
    is_withheld: bool,
    /// For each filter at most one event that it would have given next. Another filter may give it.
    beyond: Vec<EventId>,
    allowance: Allowance,
    work: ReadWork,
}

/// Bounds on the events of one filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The limit of a filter that gives none, and names no ids.
    default: u64,
    /// The highest limit.
    max: u64,
    /// Set where the events are sent: the answer goes on to the end of a second, and tells whether it is complete.
    goes_on: bool,
}

impl Limits {
    /// No bound but the filter's own.
    pub(crate) const NONE: Self = Self { default: u64::MAX, max: u64::MAX, goes_on: false };

    /// The bounds that the operator chose.
    pub(super) const fn of(limitation: &Limitation) -> Self {
        Self { default: limitation.default_limit as u64, max: limitation.max_limit as u64, goes_on: true }
    }

    /// Most events of an answer to `filter`.
    pub(super) fn of_filter(self, filter: &Filter) -> u64 {
        match (filter.limit, &filter.ids) {
            (Some(limit), _) => limit.min(self.max),
            // A client that names ids waits for each of them, and has paid for each.
            (None, Some(ids)) => ids.len() as u64,
            (None, None) => self.default.min(self.max),
        }
    }
}

/// The read of one filter under way.
struct FilterRead {
    query: Query,
    merge: Merge,
    /// Set once a page was read: events that are hidden from this reader may stand in between.
    has_begun: bool,
    extent: Extent,
    /// Bytes of the query, approximately.
    query_bytes: usize,
}

/// The fault of a place that the store's history does not have.
pub(crate) const RESTORED: &str = "the store was restored to an older state than this cursor";

/// The reason why a read ends early.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The store failed.
    Store(StoreError),
    /// The cached states of groups may be out of date.
    NotCurrent,
    /// The request has cost as much as one may.
    TooLarge,
    /// The party that pays has no budget left.
    UsedUp(RetryAfter),
    /// The connection ends for want of memory.
    NoMemory,
    /// The group that is asked for is closed.
    Closed,
    /// The store was restored to an older state than the place from which the request goes on.
    OtherHistory,
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
            ReadError::TooLarge => Self::blocked(
                "the request costs more than max_query_cost; narrow it by kinds, authors, tags, since or until",
            ),
            ReadError::UsedUp(retry) => retry.into(),
            ReadError::Closed => settling::closed(),
            ReadError::OtherHistory => Self::invalid(RESTORED),
            ReadError::NoMemory => Self::error("the relay is short of memory; ask for less at one time"),
        }
    }
}

impl<'a> ArchiveRead<'a> {
    /// A read of the events that were committed up to `up_to`.
    pub(crate) fn new(caller: &'a Caller, filters: &'a [Filter], up_to: Cursor, limits: Limits) -> Self {
        let holding = caller.in_flight.outbox().holding();
        Self {
            caller,
            app: &caller.app,
            reader: &caller.reader,
            filters,
            up_to,
            limits,
            meter: Meter::new(caller),
            at: 0,
            current: None,
            memberships: None,
            seen: HashSet::new(),
            held: holding.hold(0),
            is_cut: false,
            is_withheld: false,
            beyond: Vec::new(),
            allowance: Allowance::new(caller.app.config.limitation.max_query_cost),
            work: ReadWork::default(),
        }
    }

    /// The next events, or `None` at the end. Each call makes at most one call of the store. A page may be empty where
    /// the store looked at much and found nothing, and where another part has to be read first.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<Released>>, ReadError> {
        if self.held.is_shed() {
            return Err(ReadError::NoMemory);
        }
        loop {
            let Some(filter) = self.filters.get(self.at) else { return Ok(None) };
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.begin(filter).await?,
            };
            let has_more = !filter.is_impossible() && current.query.finds_something() && !current.merge.is_done();
            if !has_more || current.extent.is_over() {
                // A limit of 0 tells nothing of what there is, nor whether the reader may look for it.
                self.is_cut |= has_more || filter.limit == Some(0);
                self.at += 1;
                continue;
            }
            if self.seen.len() > SEEN_IDS_MAX {
                return Err(ReadError::TooLarge);
            }
            let mut spent = 0;
            if let Some(fill) = current.merge.fill() {
                let before = self.meter.spent_units();
                match self.fill(filter, &mut current, fill).await {
                    // The client has got what it is due; only the rest of a second and the hint are left out.
                    Err(ReadError::TooLarge | ReadError::UsedUp(_)) if current.extent.is_reached() => {
                        self.is_cut = true;
                        self.at += 1;
                        continue;
                    }
                    filled => filled?,
                }
                spent = self.meter.spent_units() - before;
            }
            let next = current.merge.give();
            let released = if next.is_empty() { Vec::new() } else { self.release(filter, &mut current, &next).await? };
            current.extent.note_spent(spent, &mut self.allowance);
            self.work.events += released.len();
            self.note_held(&current, &released);
            self.current = Some(current);
            return Ok(Some(released));
        }
    }

    /// The work that the read has made so far.
    pub(super) fn work(&self) -> ReadWork {
        ReadWork { units: self.meter.spent_units(), ..self.work }
    }

    /// Counts the memory of the read while the client takes a page.
    fn note_held(&mut self, current: &FilterRead, page: &[Released]) {
        let page: usize = page.iter().map(|released| released.event().record().len()).sum();
        let seen = self.seen.capacity() * size_of::<EventId>();
        self.held.set(page + seen + current.merge.waiting_bytes() + current.query_bytes);
    }

    /// Whether events were passed over because their group is closed for the moment.
    pub(crate) const fn is_withheld(&self) -> bool {
        self.is_withheld
    }

    /// Whether every stored event that the filters match was given, as far as the read tells at its end.
    pub(super) fn completeness(&self) -> Completeness {
        if !self.limits.goes_on {
            Completeness::Unknown
        } else if !self.is_cut && !self.is_withheld {
            Completeness::Finish
        } else if self.beyond.iter().any(|id| !self.seen.contains(id)) {
            Completeness::More
        } else {
            Completeness::Unknown
        }
    }

    /// Plans a filter, and divides the plan.
    async fn begin(&mut self, filter: &Filter) -> Result<FilterRead, ReadError> {
        let (capped, goes_on) = (self.limits.of_filter(filter), self.limits.goes_on);
        let query = self.plan(filter).await?;
        let ranges_max = if self.app.delivery.is_followed() { STATEMENT_RANGES_MAX } else { PAGE_RANGES_MAX };
        let merge = Merge::new(parts(&query, ranges_max));
        self.work.parts += merge.parts();
        let group_bytes = |group: &NostrGroupId| size_of::<NostrGroupId>() + group.as_str().len();
        let query_bytes = filter.bytes() + query.scope.groups.iter().map(group_bytes).sum::<usize>();
        let extent = Extent::new(capped, filter.limit, goes_on);
        Ok(FilterRead { query, merge, has_begun: false, extent, query_bytes })
    }

    /// Reads a page of one part.
    async fn fill(&mut self, filter: &Filter, current: &mut FilterRead, fill: Fill) -> Result<(), ReadError> {
        self.meter.may_go_on()?;
        let bounds = self.bounds(filter, current, fill);
        let turn = self.meter.turn_at_store().await;
        let started = std::time::Instant::now();
        let page = self.app.store.scan(&current.query, fill.from, self.up_to, bounds, self.app.clock.now()).await;
        drop(turn);
        let page = page?;
        let took = started.elapsed();
        self.app.metrics.db_operation("scan", took);
        (self.work.pages, self.work.in_store) = (self.work.pages + 1, self.work.in_store + took);
        // Ids were paid for by their number: an event that is hidden must cost the same as one that is not there.
        if filter.ids.is_none() {
            self.meter.charge(page.cost);
        }
        current.has_begun = true;
        current.merge.take(fill, page);
        Ok(())
    }

    fn bounds(&self, filter: &Filter, current: &FilterRead, fill: Fill) -> PageBounds {
        let left = usize::try_from(current.extent.left()).unwrap_or(usize::MAX);
        let events_max = match current.merge.parts() {
            // The first page takes no more than the filter's limit. If that was not enough, events that are hidden
            // from this reader stand in between, and pages of full size get past them.
            1 if current.extent.is_probe() => PAGE_EVENTS_MIN,
            1 if current.has_begun || filter.ids.is_some() => PAGE_EVENTS_MAX,
            1 => PAGE_EVENTS_MAX.min(left),
            // Each part gives a little more than its share, and is asked again where that was not enough.
            parts => (left.saturating_mul(2) / parts).clamp(PAGE_EVENTS_MIN, PAGE_EVENTS_MAX),
        };
        let read_ahead = STATEMENT_ENTRIES_MAX / STATEMENT_RANGES_MAX;
        PageBounds {
            part: fill.part,
            events_max: if self.app.delivery.is_followed() { events_max.min(read_ahead) } else { events_max },
            bytes_max: PAGE_BYTES_MAX,
            entries_max: PAGE_ENTRIES_MAX,
        }
    }

    /// Releases events by the states that their groups have at this moment.
    async fn release(
        &mut self,
        filter: &Filter,
        current: &mut FilterRead,
        next: &[Sealed],
    ) -> Result<Vec<Released>, ReadError> {
        if !self.app.delivery.is_current() {
            return Err(ReadError::NotCurrent);
        }
        if next.iter().any(|sealed| sealed.group().is_some()) {
            // Another instance may have acknowledged a removal since this request came.
            self.app.delivery.recent().await.map_err(|_| ReadError::NotCurrent)?;
        }
        // The states are asked for anew for each page: a group may have changed since the last one.
        let (asker, now) = (Asker::new(self.reader, filter), self.app.clock.now());
        let groups = PageGroups::of(self.caller, next, asker).await?;
        self.is_withheld |= groups.withholds();
        let mut released = Vec::with_capacity(next.len());
        for sealed in next {
            let Some(event) = self.app.gate.release(sealed, asker, groups.state_for(sealed), now) else { continue };
            let id = event.id();
            if self.seen.contains(&id) {
                continue;
            }
            match current.extent.next(event.created_at(), &mut self.allowance) {
                Next::Give => {
                    if self.filters.len() > 1 {
                        self.seen.insert(id);
                    }
                    released.push(event);
                }
                Next::Beyond => {
                    self.is_cut = true;
                    self.beyond.push(id);
                }
                Next::End => self.is_cut = true,
            }
            if current.extent.is_over() {
                break;
            }
        }
        if self.limits.goes_on {
            let units = released.iter().map(|released| Cost::of_sent(released.event().view())).sum();
            self.meter.charge(Cost::of_units(units));
        }
        Ok(released)
    }

    /// Plans a filter over the audiences that the reader holds. Values of the filter are paid for before the store is
    /// asked about them.
    async fn plan(&mut self, filter: &Filter) -> Result<Query, ReadError> {
        self.meter.may_go_on()?;
        self.meter.charge(Cost { units: FILTER_UNITS, documents: 0 });
        for some in filter.ids.as_deref().unwrap_or_default().chunks(IDS_PER_CHARGE_MAX) {
            self.meter.may_go_on()?;
            let ids = some.len() as u64;
            let documents = if self.app.store.documents_read().is_some() { ids } else { 0 };
            self.meter.charge(Cost { units: ids * ID_UNITS, documents });
        }
        let asker = Asker::new(self.reader, filter);
        let scans = self.app.gate.scans(asker);
        let groups = if !scans.groups || filter.ids.is_some() {
            Vec::new()
        } else if filter.tags.contains_key(&b'h') {
            self.named_groups(filter).await?
        } else {
            self.memberships().await?
        };
        let keys = if scans.keys { self.reader.keys().to_vec() } else { Vec::new() };
        let scope = Scope { everyone: scans.everyone, keys, groups, all_rosters: scans.all_rosters };
        Ok(Query { filter: filter.clone(), scope })
    }

    /// The groups that the filter names and may open.
    async fn named_groups(&mut self, filter: &Filter) -> Result<Vec<NostrGroupId>, ReadError> {
        let asker = Asker::new(self.reader, filter);
        let charges_for_documents = self.app.store.documents_read().is_some();
        let mut groups = Vec::new();
        for some in filter.tag_values(b'h').chunks(GROUPS_PER_TURN_MAX) {
            self.meter.may_go_on()?;
            let named = some.len() as u64;
            let documents = if charges_for_documents { named } else { 0 };
            self.meter.charge(Cost { units: named * NAMED_GROUP_UNITS, documents });
            let may_open = |id: &NostrGroupId| {
                // A group that is not managed may open to everyone, and a managed one to a reader with a key.
                let unmanaged = Group { id: id.clone(), status: GroupStatus::Unknown };
                !self.reader.is_anonymous() || self.app.gate.may_scan(&unmanaged, asker)
            };
            let some: Vec<NostrGroupId> = some.iter().filter_map(|h| NostrGroupId::parse(h)).filter(may_open).collect();
            if some.is_empty() {
                continue;
            }
            let closed = settling::for_named(self.caller, &self.meter, &some).await?;
            self.is_withheld |= !closed.is_empty();
            let some: Vec<NostrGroupId> = some.into_iter().filter(|id| !closed.contains(id)).collect();
            let _turn = self.meter.turn_at_store().await;
            let may_scan = |state: &Group| self.app.gate.may_scan(state, asker);
            groups.extend(self.app.groups.filter(some, &self.caller.named, may_scan).await?);
        }
        Ok(groups)
    }

    /// The groups of the reader's keys.
    async fn memberships(&mut self) -> Result<Vec<NostrGroupId>, ReadError> {
        if self.reader.is_anonymous() {
            return Ok(Vec::new());
        }
        if self.memberships.is_none() {
            let turn = self.meter.turn_at_store().await;
            let groups = self.app.store.groups_of(self.reader.keys()).await;
            drop(turn);
            let mut groups = groups?;
            let invited = settling::invited(self.caller, &mut self.meter, &groups).await?;
            let cause = |id: &NostrGroupId| if invited.contains(id) { Cause::Invited } else { Cause::Acted };
            let closed = settling::for_ids(self.caller, &self.meter, &groups, cause).await?.closed();
            self.is_withheld |= !closed.is_empty();
            groups.retain(|id| !closed.contains(id));
            let count = groups.len() as u64;
            let documents = if self.app.store.documents_read().is_some() { count.max(1) } else { 0 };
            self.meter.charge(Cost { units: count * MEMBERSHIP_UNITS, documents });
            self.memberships = Some(groups);
        }
        Ok(self.memberships.clone().unwrap_or_default())
    }
}

/// The groups of a page's events, and their states.
struct PageGroups<'a> {
    /// In ascending order.
    ids: Vec<&'a NostrGroupId>,
    states: Vec<Arc<GroupState>>,
    /// Groups about which the access service cannot be asked.
    closed: HashSet<NostrGroupId>,
}

impl<'a> PageGroups<'a> {
    async fn of(caller: &Caller, page: &'a [Sealed], asker: Asker<'_>) -> Result<Self, ReadError> {
        let app = &caller.app;
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
        let mut groups = Self { ids, states, closed: HashSet::new() };
        if app.access.is_some() {
            let now = app.clock.now();
            let asks = |sealed: &&Sealed| {
                let state = groups.state_for(sealed);
                // A reader to whom a closed group opens later has it asked about: nobody else may.
                let waits = |state: &Group| app.gate.opens_later(sealed, state, &caller.reader);
                state.is_some_and(waits) || app.gate.release(sealed, asker, state, now).is_some()
            };
            let asked: HashSet<&NostrGroupId> = page.iter().filter(asks).filter_map(Sealed::group).collect();
            let states = groups.states.iter().map(|state| state.group()).filter(|state| asked.contains(&state.id));
            let cause = settling::cause_of(asker.filter);
            groups.closed = settling::for_open(caller, states, |_| cause).await.of_request(cause)?;
            groups.states = app.groups.get_all(&groups.ids).await?;
            let closed = groups.states.iter().filter(|state| asked.contains(&state.id) && app.gate.is_closed(state));
            groups.closed.extend(closed.map(|state| state.id.clone()));
        }
        Ok(groups)
    }

    /// Whether events of the page stay sealed because their group is closed, which the reader may see at another time.
    fn withholds(&self) -> bool {
        !self.closed.is_empty()
    }

    fn state_for(&self, sealed: &Sealed) -> Option<&Group> {
        let id = sealed.group().filter(|id| !self.closed.contains(*id))?;
        let index = self.ids.binary_search(&id).ok()?;
        self.states.get(index).map(|state| state.group())
    }
}
