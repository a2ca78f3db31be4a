//! The events of this store that fit the filter, by time and id: this side's set in a reconciliation.

use std::mem::size_of;

use nostr_protocol::{Event, UnixSecs};
use nostr_store::moving::{Moving, matching};

use super::{
    super::moving::now,
    connection::Trouble,
    window::{Asked, Window},
};

/// The time and the id of an event.
pub(super) type Item = (UnixSecs, [u8; 32]);

/// Most events of this store that one run compares with the other relay's.
const LOCAL_EVENTS_MAX: usize = 5_000_000;
/// Memory that they take at most, which the error names.
const LOCAL_BYTES_MAX: usize = LOCAL_EVENTS_MAX * size_of::<Item>();

/// See the module.
pub(super) struct Local {
    items: Vec<Item>,
    /// Whether items came since they were put in order.
    is_mixed: bool,
}

impl Local {
    /// Goes through the store. Events of any kind count, whoever may read them.
    pub(super) async fn of(store: &dyn Moving, asked: &Asked) -> Result<Self, Trouble> {
        let mut items: Vec<Item> = Vec::new();
        let each = |event: &Event| {
            if items.len() < LOCAL_EVENTS_MAX {
                items.push((event.created_at(), *event.id().as_bytes()));
            }
        };
        let found = matching(store, &asked.filter, store.head(), now(), each, |_| ()).await;
        let found = found.map_err(|error| Trouble(error.to_string()))?;
        if found.fit > LOCAL_EVENTS_MAX as u64 {
            return Err(Trouble(format!(
                "over {LOCAL_EVENTS_MAX} events of this store fit the filter, and to compare so many would take over \
                 {} MiB; narrow it by since and until, and run once for each part",
                LOCAL_BYTES_MAX >> 20
            )));
        }
        Ok(Self { items, is_mixed: true })
    }

    /// The items of a part of time.
    pub(super) fn within(&mut self, window: Window) -> &[Item] {
        if std::mem::take(&mut self.is_mixed) {
            self.items.sort_unstable();
            self.items.dedup();
        }
        let from = self.items.partition_point(|(at, _)| *at < window.since);
        let to = self.items.partition_point(|(at, _)| *at <= window.until);
        &self.items[from..to.max(from)]
    }

    /// Adds events that came since.
    pub(super) fn add(&mut self, items: Vec<Item>) {
        self.is_mixed |= !items.is_empty();
        self.items.extend(items);
    }
}
