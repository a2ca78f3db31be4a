//! Reads a list in the order of receipt for one reader, by the same meter and gate as [`super::ArchiveRead`].

use nostr_extensions::{Asker, Group, NostrGroupId, Released};
use nostr_protocol::Filter;
use nostr_store::{Cost, Cursor, Receipt, Received, ReceivedBounds, Recipient};

use super::{
    FILTER_UNITS, Meter, NAMED_GROUP_UNITS, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, PAGE_EVENTS_MAX, PageGroups, ReadError,
};
use crate::session::{Caller, settling};

/// Units for a mark of the log's history.
const MARK_UNITS: u64 = 1;
/// Bytes of the events of one answer, which the last event may exceed.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A place in the order of receipt, as it is known to its reader.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) receipt: Receipt,
    /// The mark of the log's history up to it. A store that was restored may have grown past the place by other events,
    /// and would pass over those before it.
    pub(crate) history: u64,
}

/// The events of one answer.
#[derive(Default)]
pub(crate) struct Receipts {
    /// In the order of their receipt.
    pub(crate) events: Vec<Released>,
    /// The place behind them. It is the one that was asked from where no event was given, so that a list that is shut
    /// to its reader goes on like an empty one.
    pub(crate) next: Place,
    /// Whether more events may lie behind them.
    pub(crate) has_more: bool,
}

/// Reads at most `events_max` events that stand behind `from` and were committed up to `up_to`.
///
/// `filter` names the list in the gate's terms: its kinds, and the group or the recipient. The list ends before a page
/// of which a group is closed, so that nobody misses the events of that page who goes on from its end.
///
/// # Errors
/// [`ReadError::OtherHistory`] where the store has lost what stood before `from`; [`ReadError::Closed`] where the group
/// is closed and no event stands before.
pub(crate) async fn read(
    caller: &Caller,
    (query, filter): (&Received, &Filter),
    from: Place,
    up_to: Cursor,
    events_max: usize,
) -> Result<Receipts, ReadError> {
    let mut meter = Meter::new(caller);
    meter.may_go_on()?;
    meter.charge(Cost::of_units(FILTER_UNITS));
    if mark_at(caller, &mut meter, &from.receipt).await? != from.history {
        return Err(ReadError::OtherHistory);
    }
    let mut receipts = Receipts { next: from, ..Receipts::default() };
    let is_open = match &query.to {
        Recipient::Group(group) => opens(caller, &mut meter, group, filter).await?,
        Recipient::Key(_) => true,
    };
    if is_open {
        look(caller, &mut meter, (query, filter), (up_to, events_max), &mut receipts).await?;
    }
    // Asked also where the place is the same, so that the time does not tell whether there were events.
    receipts.next.history = mark_at(caller, &mut meter, &receipts.next.receipt).await?;
    Ok(receipts)
}

/// The mark of the history up to a place. The party that asks pays, and waits for its turn at the store.
async fn mark_at(caller: &Caller, meter: &mut Meter<'_>, place: &Receipt) -> Result<u64, ReadError> {
    let turn = meter.turn_at_store().await;
    let mark = caller.app.store.history_at(place.cursor).await?;
    drop(turn);
    meter.charge(Cost::of_units(MARK_UNITS));
    Ok(mark)
}

/// Reads the events of a list that is open, behind the place in `receipts`.
async fn look(
    caller: &Caller,
    meter: &mut Meter<'_>,
    (query, filter): (&Received, &Filter),
    (up_to, events_max): (Cursor, usize),
    receipts: &mut Receipts,
) -> Result<(), ReadError> {
    let mut held = caller.in_flight.outbox().holding().hold(0);
    let (mut place, mut bytes) = (receipts.next.receipt, 0);
    loop {
        meter.may_go_on()?;
        let bounds = ReceivedBounds {
            events_max: PAGE_EVENTS_MAX.min(events_max - receipts.events.len()),
            bytes_max: PAGE_BYTES_MAX,
            entries_max: PAGE_ENTRIES_MAX,
        };
        let turn = meter.turn_at_store().await;
        let started = std::time::Instant::now();
        let page = caller.app.store.received(query, place, up_to, bounds, caller.app.clock.now()).await?;
        drop(turn);
        caller.app.metrics.db_operation("scan", started.elapsed());
        meter.charge(page.cost);
        if !page.events.is_empty() {
            if !caller.app.delivery.is_current() {
                return Err(ReadError::NotCurrent);
            }
            caller.app.delivery.recent().await.map_err(|_| ReadError::NotCurrent)?;
            let (asker, now) = (Asker::new(&caller.reader, filter), caller.app.clock.now());
            let groups = PageGroups::of(caller, &page.events, asker).await?;
            if groups.withholds() {
                if receipts.events.is_empty() {
                    return Err(ReadError::Closed);
                }
                receipts.has_more = true;
                break;
            }
            for sealed in &page.events {
                let released = caller.app.gate.release(sealed, asker, groups.state_for(sealed), now);
                if let Some(event) = released {
                    bytes += event.event().record().len();
                    meter.charge(Cost::of_units(Cost::of_sent(event.event().view())));
                    receipts.events.push(event);
                }
            }
            held.set(bytes);
        }
        (place, receipts.has_more) = (page.next, page.has_more);
        if held.is_shed() {
            return Err(ReadError::NoMemory);
        }
        if !receipts.has_more || receipts.events.len() >= events_max || bytes >= ANSWER_BYTES_MAX {
            break;
        }
    }
    if !receipts.events.is_empty() {
        receipts.next.receipt = place;
    }
    Ok(())
}

/// Whether the list of a group is read at all: a group that stays shut is never looked into, at the cost of one that
/// does not exist.
///
/// # Errors
/// [`ReadError::Closed`] where the access service cannot be asked, whether or not the group exists.
async fn opens(
    caller: &Caller,
    meter: &mut Meter<'_>,
    group: &NostrGroupId,
    filter: &Filter,
) -> Result<bool, ReadError> {
    let app = &caller.app;
    meter.charge(Cost { units: NAMED_GROUP_UNITS, documents: u64::from(app.store.documents_read().is_some()) });
    let asker = Asker::new(&caller.reader, filter);
    let may_scan = |state: &Group| app.gate.may_scan(state, asker);
    if !settling::for_named(caller, meter, std::slice::from_ref(group)).await?.is_empty() {
        return Err(ReadError::Closed);
    }
    let _turn = meter.turn_at_store().await;
    Ok(!app.groups.filter(vec![group.clone()], &caller.named, may_scan).await?.is_empty())
}
