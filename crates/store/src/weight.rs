//! The work that an event gives a store, by which batches are cut and senders charged.
//!
//! Every store counts in the same way, and the relay charges by the same count, so that a sender pays for the work that
//! a batch is cut by. The count follows from the event alone: it is known before the event is admitted.

use std::time::Duration;

use nostr_protocol::{EventRef, Kind, tag::name};

/// Most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 1_024;
/// Most rows that the events of one batch add to the indexes of a store, by their weights.
pub const BATCH_ROWS_MAX: usize = 2_560;
/// Most targets of the deletions in one batch.
pub const BATCH_TARGETS_MAX: usize = 500;
/// Most events of one batch whose deciding may read a group with all its members.
pub const BATCH_GROUPS_MAX: usize = 32;
/// Most bytes of the events of one batch.
pub const BATCH_BYTES_MAX: usize = 2 << 20;
/// Most index rows of removed events that a store takes off the disk with the events of one batch. Other removed events
/// are gone for every reader as soon, and a sweep takes their rows.
pub const REMOVED_ROWS_MAX: usize = BATCH_ROWS_MAX;
/// Number of index rows after which one transaction of a sweep takes no further event: events that wait go first.
pub const SWEPT_ROWS_MAX: usize = 640;
/// Times of the duration of a piece of a sweep for which the next piece waits: a sweep takes a quarter of the writer.
const SWEEP_PAUSE_TIMES: u32 = 3;
/// Longest pause, in milliseconds, between two pieces of a sweep.
const SWEEP_PAUSE_MS_MAX: u64 = 1_000;
/// Most index rows of the events that one deletion removes, in the store that removes them with the deletion.
pub const DELETED_ROWS_MAX: usize = 20_000;

/// Rows of an event's indexes that belong to every event: its id, author, kind and time.
const ROWS: usize = 4;
/// Tags that a filter can name, of which each further number costs the price of one more event.
const TAGS_PER_EVENT: usize = 25;
/// Targets of a deletion, of which each further number costs the price of one more event.
const TARGETS_PER_EVENT: usize = 5;
/// Groups, of which each number costs the price of one more event.
const GROUPS_PER_EVENT: usize = 2;
/// Members of a group that an event changes, of which each number costs the price of one more event.
const MEMBERS_PER_EVENT: usize = 100;
/// Bytes, of which each further number costs the price of one more event.
const BYTES_PER_EVENT: usize = 32 << 10;

/// Waits between two pieces of a sweep, of which the last one took `worked`, so that events go first.
pub async fn give_way(worked: Duration) {
    tokio::time::sleep(pause_after(worked)).await;
}

fn pause_after(worked: Duration) -> Duration {
    worked.saturating_mul(SWEEP_PAUSE_TIMES).min(Duration::from_millis(SWEEP_PAUSE_MS_MAX))
}

/// The work that an event gives a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Rows that it adds to the indexes: four, and one for each tag that a filter can name.
    pub rows: usize,
    /// Targets of a deletion.
    pub targets: usize,
    /// Groups that deciding may read with all their members: one for a roster, one for a gift wrap with `h`, and as
    /// many as a batch has for a request to vanish, which some stores write in a transaction of its own.
    pub groups: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Weight {
    /// The weight of an event.
    #[must_use]
    pub fn of(event: EventRef<'_>) -> Self {
        let tags = event.tags();
        let kind = event.kind();
        let targets = match kind {
            Kind::DELETION => tags.iter().filter(|tag| matches!(tag.name(), name::EVENT | name::ADDRESS)).count(),
            _ => 0,
        };
        let groups = match kind {
            Kind::VANISH => BATCH_GROUPS_MAX,
            Kind::ROSTER => 1,
            Kind::GIFT_WRAP => usize::from(tags.value(name::GROUP).is_some()),
            _ => 0,
        };
        Self { rows: ROWS + tags.indexed().count(), targets, groups, bytes: event.record().len() }
    }

    /// The number of ordinary events whose price the event costs (docs/rules.md, "Rate limits" 4): 1 for nearly all.
    #[must_use]
    pub fn price(&self) -> u32 {
        let more = self.rows.saturating_sub(ROWS) / TAGS_PER_EVENT
            + self.targets / TARGETS_PER_EVENT
            + self.bytes / BYTES_PER_EVENT
            + self.groups / GROUPS_PER_EVENT;
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// The number of ordinary events whose price it costs, beside the event's own, that an event changes a group of so many
/// members: a store decides it by all of them, and each instance reads them anew.
#[must_use]
pub fn price_of_members(members: usize) -> u32 {
    u32::try_from(members / MEMBERS_PER_EVENT).unwrap_or(u32::MAX)
}

/// The events that a batch has taken so far, by their weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    events: usize,
    taken: Weight,
}

impl Load {
    /// Takes an event of this weight, if the batch stays within its bounds with it. A batch always takes a first event.
    pub fn take(&mut self, weight: Weight) -> bool {
        let with = Weight {
            rows: self.taken.rows.saturating_add(weight.rows),
            targets: self.taken.targets.saturating_add(weight.targets),
            groups: self.taken.groups.saturating_add(weight.groups),
            bytes: self.taken.bytes.saturating_add(weight.bytes),
        };
        let fits = self.events < BATCH_EVENTS_MAX
            && with.rows <= BATCH_ROWS_MAX
            && with.targets <= BATCH_TARGETS_MAX
            && with.groups <= BATCH_GROUPS_MAX
            && with.bytes <= BATCH_BYTES_MAX;
        let takes = fits || self.events == 0;
        if takes {
            self.events += 1;
            self.taken = with;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    fn weight(kind: u16, tags: &[[&str; 2]]) -> Weight {
        let event = tags.iter().fold(EventBuilder::new(kind), |event, tag| event.tag(tag));
        Weight::of(event.event(&keypair("alice")).view())
    }

    #[test]
    fn an_event_weighs_what_it_makes_a_store_do() {
        let plain = weight(1, &[["t", "a"], ["title", "b"], ["p", "c"]]);
        assert_eq!((plain.rows, plain.targets, plain.groups, plain.price()), (6, 0, 0, 1));
        let many = weight(1, &vec![["t", "a"]; 2_500]);
        // Its tags and its bytes.
        assert_eq!((many.rows, many.price()), (2_504, 102));
        let deletion = weight(5, &vec![["e", "a"]; 500]);
        assert_eq!((deletion.rows, deletion.targets, deletion.price()), (504, 500, 121));
        assert_eq!(weight(1, &vec![["e", "a"]; 500]).targets, 0);
        assert_eq!(weight(450, &[["h", "grp"]]).groups, 1);
        let vanish = weight(62, &[["relay", "ALL_RELAYS"]]);
        assert_eq!((vanish.groups, vanish.price()), (BATCH_GROUPS_MAX, 17));
        assert_eq!(weight(1_059, &[["p", "a"]]).groups, 0);
        assert_eq!(weight(1_059, &[["p", "a"], ["h", "grp"]]).groups, 1);
        assert_eq!(Weight { bytes: 256 << 10, rows: 4, ..Weight::default() }.price(), 9);
    }

    #[test]
    fn a_sweep_takes_a_quarter_of_the_time() {
        let [short, long] = [Duration::from_millis(20), Duration::from_secs(9)];
        assert_eq!(pause_after(short), 3 * short);
        assert_eq!(pause_after(long), Duration::from_secs(1), "a sweep of a slow store goes on all the same");
        const { assert!(SWEPT_ROWS_MAX < BATCH_ROWS_MAX && REMOVED_ROWS_MAX <= BATCH_ROWS_MAX) }
    }

    fn taken(weight: Weight) -> usize {
        let mut load = Load::default();
        (0..10_000).take_while(|_| load.take(weight)).count()
    }

    #[test]
    fn a_batch_is_cut_by_its_work() {
        let light = Weight { rows: 6, bytes: 500, ..Weight::default() };
        assert_eq!(taken(light), BATCH_ROWS_MAX / light.rows);
        assert_eq!(taken(Weight { rows: 2, ..light }), BATCH_EVENTS_MAX);
        assert_eq!(taken(Weight { rows: 2_504, ..light }), 1);
        assert_eq!(taken(Weight { targets: 250, ..light }), 2);
        assert_eq!(taken(Weight { groups: 1, ..light }), BATCH_GROUPS_MAX);
        assert_eq!(taken(Weight { bytes: 256 << 10, ..light }), 8);
        assert_eq!(taken(Weight { rows: BATCH_ROWS_MAX + 1, ..light }), 1, "no event waits for ever");
    }
}
