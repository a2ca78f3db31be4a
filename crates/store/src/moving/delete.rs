//! Events that fit a filter, wherever they lie in the store, and their removal by the operator's word.
//!
//! Both walk through the log, because no index finds private events without their readers. The positions of a walk are
//! places in the log, so removals and new events do not disturb it.

use nostr_extensions::Restored;
use nostr_protocol::{Filter, UnixSecs};

use super::{ExportBounds, ExportPosition, Exported, Imported, Moving, Record, Removal};
use crate::{Cursor, StoreError};

/// Bounds of one page of a walk.
const WALK: ExportBounds = ExportBounds { records_max: 1_000, bytes_max: 4 << 20 };
/// Most events that one transaction removes, so that writers of a shared store wait for it only briefly.
const REMOVED_AT_ONCE_MAX: usize = 200;

/// Numbers of events of a walk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Events that were looked at.
    pub seen: u64,
    /// Events that fit the filter.
    pub fit: u64,
    /// Events that were removed.
    pub removed: u64,
}

/// Goes through the events of the log up to `up_to` that have not expired at `now`, and hands those that fit the filter
/// to `each`. Calls `walked` after each page.
///
/// # Errors
/// The store's.
pub async fn matching(
    store: &dyn Moving,
    filter: &Filter,
    up_to: Cursor,
    now: UnixSecs,
    mut each: impl FnMut(&Exported),
    mut walked: impl FnMut(&Matching),
) -> Result<Matching, StoreError> {
    let mut matching = Matching::default();
    let mut position = Some(ExportPosition::events(up_to));
    while let Some(from) = position {
        let page = store.export(&from, WALK, now).await?;
        fitting(&page.records, filter, &mut matching).for_each(&mut each);
        walked(&matching);
        position = page.next;
    }
    Ok(matching)
}

/// Removes the events of the log up to `up_to` that fit the filter and have not expired at `now`. Calls `walked` after
/// each page.
///
/// # Errors
/// The store's; events that were removed before stay removed.
pub async fn delete(
    store: &dyn Moving,
    filter: &Filter,
    up_to: Cursor,
    now: UnixSecs,
    mut walked: impl FnMut(&Matching),
) -> Result<Matching, StoreError> {
    let mut matching = Matching::default();
    let mut position = Some(ExportPosition::events(up_to));
    while let Some(from) = position {
        let page = store.export(&from, WALK, now).await?;
        let removals: Vec<Record<Restored>> =
            fitting(&page.records, filter, &mut matching).map(|it| Record::Removal(Removal::from(&it.event))).collect();
        for some in removals.chunks(REMOVED_AT_ONCE_MAX) {
            let outcomes = store.import(some.to_vec(), now).await?;
            matching.removed += outcomes.into_iter().filter(|outcome| *outcome == Imported::New).count() as u64;
        }
        walked(&matching);
        position = page.next;
    }
    Ok(matching)
}

/// The events of a page that fit the filter, counted.
fn fitting<'a>(
    records: &'a [Record<Exported>],
    filter: &'a Filter,
    matching: &'a mut Matching,
) -> impl Iterator<Item = &'a Exported> {
    records.iter().filter_map(|record| {
        let Record::Event(exported) = record else { return None };
        matching.seen += 1;
        let fits = filter.matches(exported.event.view());
        matching.fit += u64::from(fits);
        fits.then_some(exported)
    })
}
