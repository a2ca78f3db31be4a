//! The public events of this store that fit the filter, by time and id: this side's set in a reconciliation.
//!
//! In a reconciliation the other relay learns the ids of this set: it answers each range with a wrong fingerprint,
//! until this side lists the range's ids. The id of an unlisted group's message opens the message. So the set holds
//! only events that the gate would release to any stranger.

use std::mem::size_of;

use nostr_extensions::{Asker, Gate, Reader, Sealed, Stamp};
use nostr_protocol::{Filter, UnixSecs};
use nostr_store::moving::{Exported, Moving, matching};

use super::{
    super::moving::now,
    connection::Trouble,
    window::{Asked, Window},
};

/// The time and the id of an event.
pub(super) type Item = (UnixSecs, [u8; 32]);

/// Most public events of this store that one run compares with the other relay's.
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
    /// Goes through the store, and takes the events that the gate releases to a reader without keys and with a filter
    /// that names nothing.
    pub(super) async fn of(store: &dyn Moving, gate: &Gate, asked: &Asked) -> Result<Self, Trouble> {
        let (mut items, mut public): (Vec<Item>, usize) = (Vec::new(), 0);
        let (stranger, everything, now) = (Reader::new(&[]), Filter::default(), now());
        let each = |found: &Exported| {
            let sealed = sealed(found);
            if found.kept.log_only || gate.release(&sealed, Asker::new(&stranger, &everything), None, now).is_none() {
                return;
            }
            public += 1;
            if items.len() < LOCAL_EVENTS_MAX {
                items.push((found.event.created_at(), *found.event.id().as_bytes()));
            }
        };
        let found = matching(store, &asked.filter, store.head(), now, each, |_| ()).await;
        found.map_err(|error| Trouble(error.to_string()))?;
        if public > LOCAL_EVENTS_MAX {
            return Err(Trouble(format!(
                "over {LOCAL_EVENTS_MAX} public events of this store fit the filter, and to compare so many would \
                 take over {} MiB; narrow it by since and until, and run once for each part",
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

    /// Adds events that the other relay gave since, whoever may read them here.
    pub(super) fn add(&mut self, items: Vec<Item>) {
        self.is_mixed |= !items.is_empty();
        self.items.extend(items);
    }
}

/// The event as the gate takes it. The gate decides about one event, so its place in the log says nothing.
fn sealed(found: &Exported) -> Sealed {
    let kept = &found.kept;
    let stamp =
        Stamp { cursor: 0, received_at: kept.received_at, expires_at: kept.expires_at, author_only: kept.author_only };
    Sealed::new(found.event.clone(), stamp)
}
