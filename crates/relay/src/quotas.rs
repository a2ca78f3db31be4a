//! Quotas: bounds on the events of one key that the relay keeps without end.
//!
//! Source: docs/rules.md, "Quotas". No store has a count of an author's events, so this module counts them by the index
//! of authors, keeps the count in memory, and adds the events that this process stores. An event that is under way
//! holds its room in the quota until the store has answered, so that any number of connections together pass no bound.
//! The party that publishes pays for a count as for any other read.

use std::{convert::Infallible, sync::Arc};

use nostr_extensions::{Admitted, Sealed, kinds::Quota, policy::QuotaBounds};
use nostr_protocol::{PublicKey, Rejection, Rule};
use nostr_store::{Cursor, PageBounds, Part, authored};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::{
    error::read_failed,
    session::{
        Caller,
        archive::{Meter, ReadError},
    },
};

/// Most keys whose counts are kept in memory.
const COUNTED_KEYS_MAX: usize = 32_768;
/// Time in milliseconds after which a count is made anew: at once where other processes write to the store, and else
/// when it leaves no room, since sweeps may have given some back.
const COUNT_STANDS_MS: u64 = 60_000;
/// Most events of one page of a count.
const COUNTED_PAGE_EVENTS_MAX: usize = 128;
/// Bytes of such a page, which ends with the event that reaches them.
const COUNTED_PAGE_BYTES_MAX: usize = 256 << 10;
/// Most index entries that such a page looks at.
const COUNTED_PAGE_ENTRIES_MAX: usize = 2_000;
/// Most pages of private events that a count reads and does not find full of the author's. Others may send the author
/// any number of direct messages, which lie beside its own.
const POOR_PAGES_MAX: usize = 2;

const FULL: Rule = Rule("Quotas", 3);
const OF_OTHERS: Rule = Rule("Quotas", 4);

/// Events, and the bytes that they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    events: u64,
    bytes: u64,
}

impl Amount {
    const fn of_event(bytes: usize) -> Self {
        Self { events: 1, bytes: bytes as u64 }
    }

    const fn plus(self, other: Self) -> Self {
        Self { events: self.events.saturating_add(other.events), bytes: self.bytes.saturating_add(other.bytes) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { events: self.events.saturating_sub(other.events), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    const fn is_within(self, bounds: QuotaBounds) -> bool {
        (bounds.events_max == 0 || self.events <= bounds.events_max)
            && (bounds.bytes_max == 0 || self.bytes <= bounds.bytes_max)
    }
}

/// State of one quota of one key, as this process knows it.
#[derive(Debug, Default)]
struct Count {
    /// The result of the last count of the store.
    counted: Amount,
    /// Time of that count, in milliseconds; `None` before the first.
    counted_at_ms: Option<u64>,
    /// The bounds at which it stopped to count.
    counted_to: QuotaBounds,
    /// Changes that this process had seen when that count began.
    counted_after: Seen,
    seen: Seen,
    /// Events that are under way.
    under_way: Amount,
}

/// Changes by this process since it holds the count. The numbers only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    stored: Amount,
    /// Deletions of the key, and its requests to vanish.
    deletions: u64,
}

/// The bounds that an event meets.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Those of the quota.
    whole: QuotaBounds,
    /// The part of them that its sender may fill.
    part: QuotaBounds,
}

/// Whether an event has room.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// It has, and holds it now.
    Held,
    /// The store has to be counted first.
    Unknown,
    /// It has none.
    Full,
}

impl Count {
    /// Gives an event room if there is some.
    fn hold(&mut self, amount: Amount, bounds: Bounds, is_shared: bool, now_ms: u64) -> Room {
        let Some(counted_at_ms) = self.counted_at_ms else { return Room::Unknown };
        let is_old = now_ms.saturating_sub(counted_at_ms) >= COUNT_STANDS_MS;
        // A count goes no further than its bounds, which the operator may have raised since.
        if (is_shared && is_old) || self.counted_to != bounds.whole {
            return Room::Unknown;
        }
        let since = self.seen.stored.minus(self.counted_after.stored);
        if self.counted.plus(since).plus(self.under_way).plus(amount).is_within(bounds.part) {
            self.under_way = self.under_way.plus(amount);
            return Room::Held;
        }
        // An event that was stored may have replaced another one, or may have been counted twice.
        if is_old || self.seen != self.counted_after { Room::Unknown } else { Room::Full }
    }

    /// Takes the result of a count that began when this process had seen `after`.
    fn take(&mut self, counted: Amount, to: QuotaBounds, after: Seen, now_ms: u64) {
        if after.stored.events >= self.counted_after.stored.events && after.deletions >= self.counted_after.deletions {
            (self.counted, self.counted_to) = (counted, to);
            (self.counted_after, self.counted_at_ms) = (after, Some(now_ms));
        }
    }
}

/// The counts of one key.
#[derive(Debug, Default)]
struct Counts {
    events: Count,
    direct_messages: Count,
    deletions: Count,
    vanishing: Count,
}

impl Counts {
    const fn of(&mut self, quota: Quota) -> &mut Count {
        match quota {
            Quota::Events => &mut self.events,
            Quota::DirectMessages => &mut self.direct_messages,
            Quota::Deletions => &mut self.deletions,
            Quota::Vanishing => &mut self.vanishing,
        }
    }

    /// Notes an event that was stored. One that takes others back may have given room in every quota.
    fn note(&mut self, quota: Quota, amount: Amount) {
        let count = self.of(quota);
        count.seen.stored = count.seen.stored.plus(amount);
        if matches!(quota, Quota::Deletions | Quota::Vanishing) {
            for count in [&mut self.events, &mut self.direct_messages, &mut self.deletions, &mut self.vanishing] {
                count.seen.deletions += 1;
            }
        }
    }
}

/// The counts of all keys.
pub(crate) struct Quotas {
    by_author: Cache<PublicKey, Arc<Mutex<Counts>>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { by_author: Cache::new(COUNTED_KEYS_MAX) }
    }
}

/// The room of an event that is under way, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    counts: Arc<Mutex<Counts>>,
    quota: Quota,
    amount: Amount,
}

impl Held {
    /// Notes that the event is stored.
    pub(crate) fn stored(self) {
        self.counts.lock().note(self.quota, self.amount);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        let count = counts.of(self.quota);
        count.under_way = count.under_way.minus(self.amount);
    }
}

impl Quotas {
    /// Holds room for an event in a quota of its author, where it counts against one.
    ///
    /// # Errors
    /// `blocked:` where the key has no room, and `auth-required:` or `restricted:` where it has some for events that it
    /// publishes itself; `rate-limited:` where the caller has read too much to have the events counted.
    pub(crate) async fn hold(&self, caller: &Caller, admitted: &Admitted) -> Result<Option<Held>, Rejection> {
        let app = &caller.app;
        let (author, kind) = (admitted.event().pubkey(), admitted.event().kind());
        let Some((quota, whole)) = app.policy().quota_for(&author, kind) else { return Ok(None) };
        let is_author = caller.reader.has(&author);
        let bounds = Bounds { whole, part: if is_author { whole } else { half(whole) } };
        let amount = Amount::of_event(admitted.event().record().len());
        let counts = self.of(&author);
        let is_shared = app.delivery.is_followed();
        let hold = |is_shared| counts.lock().of(quota).hold(amount, bounds, is_shared, app.clock.now_ms());
        let mut room = hold(is_shared);
        if room == Room::Unknown {
            let after = counts.lock().of(quota).seen;
            let counted = count_stored(caller, &author, quota, whole).await?;
            counts.lock().of(quota).take(counted, whole, after, app.clock.now_ms());
            room = hold(false);
        }
        if room == Room::Held {
            return Ok(Some(Held { counts, quota, amount }));
        }
        // The store finds out that an event is stored already.
        let now = app.clock.now();
        if is_shared && app.store.holds(&admitted.event().id(), now).await.map_err(read_failed)? {
            return Ok(None);
        }
        Err(refusal(quota, bounds.part, is_author, caller.reader.is_anonymous()))
    }

    fn of(&self, author: &PublicKey) -> Arc<Mutex<Counts>> {
        let Ok(counts) = self.by_author.get_or_insert_with(author, || Ok::<_, Infallible>(Arc::default()));
        counts
    }
}

/// The part that events of others' sending may take. An author whose old events others publish here keeps the rest.
const fn half(bounds: QuotaBounds) -> QuotaBounds {
    QuotaBounds { events_max: bounds.events_max.div_ceil(2), bytes_max: bounds.bytes_max.div_ceil(2) }
}

/// Counts a quota of a key in the store, until it is full.
async fn count_stored(
    caller: &Caller,
    author: &PublicKey,
    quota: Quota,
    bounds: QuotaBounds,
) -> Result<Amount, Rejection> {
    let app = &caller.app;
    let mut meter = Meter::new(caller);
    let mut counted = Amount::default();
    for query in authored(author, quota) {
        let (mut from, mut poor_pages) = (None, 0);
        while poor_pages < POOR_PAGES_MAX && counted.is_within(bounds) {
            match meter.may_go_on() {
                Ok(()) => {}
                // Events that end by themselves may lie beside those that count. A count that passes over more of them
                // than one request may costs the key nothing.
                Err(ReadError::TooLarge) => break,
                Err(error) => return Err(error.into()),
            }
            let bounds = PageBounds {
                part: Part::WHOLE,
                events_max: COUNTED_PAGE_EVENTS_MAX,
                bytes_max: COUNTED_PAGE_BYTES_MAX,
                entries_max: COUNTED_PAGE_ENTRIES_MAX,
            };
            let turn = meter.turn_at_store().await;
            let page = app.store.scan(&query, from, Cursor::MAX, bounds, app.clock.now()).await;
            drop(turn);
            let page = page.map_err(read_failed)?;
            meter.charge(page.cost);
            let bytes: usize = page.events.iter().map(Sealed::byte_len).sum();
            let is_full = page.events.len() >= COUNTED_PAGE_EVENTS_MAX || bytes >= COUNTED_PAGE_BYTES_MAX;
            poor_pages += usize::from(!is_full && !query.scope.everyone);
            let policy = app.policy();
            let counts = page.events.iter().filter(|sealed| policy.quota_of(sealed.kind()) == Some(quota));
            counted = counts.map(|sealed| Amount::of_event(sealed.byte_len())).fold(counted, Amount::plus);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(counted)
}

fn refusal(quota: Quota, bounds: QuotaBounds, is_author: bool, is_anonymous: bool) -> Rejection {
    let (what, remedy) = match quota {
        Quota::Events => ("events", "delete some of them (kind 5)"),
        Quota::DirectMessages => ("direct messages (kind 4)", "delete some of them (kind 5)"),
        Quota::Deletions => ("deletions", "a request to vanish (kind 62) removes them with all other events"),
        Quota::Vanishing => ("requests to vanish", "those that are stored hold"),
    };
    let most = match bounds {
        QuotaBounds { events_max, bytes_max: 0 } => format!("{events_max} {what}"),
        QuotaBounds { events_max: 0, bytes_max } => format!("{bytes_max} bytes of {what}"),
        QuotaBounds { events_max, bytes_max } => format!("{events_max} {what} and {bytes_max} bytes"),
    };
    if is_author {
        return Rejection::blocked(format!("this relay keeps at most {most} of a key; {remedy}")).under(FULL);
    }
    let text = format!("this relay keeps at most {most} of a key that others publish; AUTH with the author's key");
    let refusal = if is_anonymous { Rejection::auth_required(text) } else { Rejection::restricted(text) };
    refusal.under(OF_OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Amount = Amount { events: 1, bytes: 10 };
    const THREE: QuotaBounds = QuotaBounds { events_max: 3, bytes_max: 0 };
    const BOUNDS: Bounds = Bounds { whole: THREE, part: THREE };

    fn counted(events: u64) -> Count {
        let counted = Amount { events, bytes: 10 * events };
        Count { counted, counted_to: THREE, counted_at_ms: Some(0), ..Count::default() }
    }

    fn store(count: &mut Count) {
        count.under_way = count.under_way.minus(ONE);
        count.seen.stored = count.seen.stored.plus(ONE);
    }

    #[test]
    fn events_under_way_hold_their_room() {
        let mut count = counted(1);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Full, "though nothing is stored yet");
        count.under_way = count.under_way.minus(ONE);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held, "one was refused by the store");
    }

    #[test]
    fn a_full_quota_is_counted_again_if_something_happened_since() {
        let mut count = counted(2);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        store(&mut count);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Unknown, "it may have replaced another one");
        let after = count.seen;
        count.take(Amount { events: 3, bytes: 30 }, THREE, after, 0);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Full);
        count.seen.deletions += 1;
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Unknown);
        let after = count.seen;
        count.take(Amount { events: 2, bytes: 20 }, THREE, after, 0);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        let mut full = counted(3);
        assert_eq!(full.hold(ONE, BOUNDS, false, COUNT_STANDS_MS - 1), Room::Full);
        assert_eq!(full.hold(ONE, BOUNDS, false, COUNT_STANDS_MS), Room::Unknown, "a sweep may have given room");
    }

    #[test]
    fn a_count_stands_for_a_minute_where_others_write_too() {
        assert_eq!(counted(0).hold(ONE, BOUNDS, true, COUNT_STANDS_MS - 1), Room::Held);
        assert_eq!(counted(0).hold(ONE, BOUNDS, true, COUNT_STANDS_MS), Room::Unknown);
        assert_eq!(counted(0).hold(ONE, BOUNDS, false, COUNT_STANDS_MS), Room::Held);
    }

    /// Two counts may run at one time. One that began first and ends last is given up.
    #[test]
    fn a_count_that_began_earlier_does_not_hide_what_was_stored_since() {
        let mut count = counted(0);
        let earlier = count.seen;
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        store(&mut count);
        let later = count.seen;
        count.take(ONE, THREE, later, 0);
        count.take(Amount::default(), THREE, earlier, 0);
        assert_eq!(count.counted, ONE);
        // An event that was stored while its count ran counts beside the result.
        let began = count.seen;
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        store(&mut count);
        count.take(ONE, THREE, began, 0);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Held);
        assert_eq!(count.hold(ONE, BOUNDS, false, 0), Room::Unknown);
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let whole = QuotaBounds { events_max: 0, bytes_max: 25 };
        let with = |events| Count { counted_to: whole, ..counted(events) };
        let bounds = Bounds { whole, part: whole };
        assert_eq!(with(1).hold(ONE, bounds, false, 0), Room::Held);
        assert_eq!(with(2).hold(ONE, bounds, false, 0), Room::Full);
        assert_eq!(with(1).hold(ONE, Bounds { whole, part: half(whole) }, false, 0), Room::Full);
        assert_eq!(half(whole).bytes_max, 13);
    }

    #[test]
    fn a_count_to_other_bounds_says_nothing() {
        let whole = QuotaBounds { events_max: 9, bytes_max: 0 };
        assert_eq!(counted(0).hold(ONE, Bounds { whole, part: whole }, false, 0), Room::Unknown);
    }
}
