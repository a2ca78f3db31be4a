//! Events by their places in the log.

use std::collections::BTreeMap;

use nostr_extensions::Sealed;
use nostr_protocol::EventId;
use quick_cache::{Weighter, sync::Cache};

use crate::{
    Cursor,
    decide::EPHEMERAL_SECS,
    firestore::{
        Inner,
        documents::{
            commits::{CommitLog, EphemeralEvent, LoggedEntry},
            events::StoredEvent,
            query,
        },
        log::follow::{LAG_SECS, SKEW_SECS},
        wire::{
            clock::{Micros, SEC, micros, time_of},
            fail::Fail,
        },
    },
};

/// Most bytes of places that are remembered, by estimate.
const PLACES_BYTES_MAX: u64 = 16 << 20;
/// What a place takes in memory beside an ephemeral event, by estimate.
const PLACE_BYTES: u64 = 128;
/// Locations that the cache is laid out for.
const PLACES_EXPECTED: usize = 100_000;

/// What lies at a place of the log.
#[derive(Clone, Debug)]
pub(crate) enum EventLocation {
    Document(EventId),
    Entry(EphemeralEvent),
}

impl EventLocation {
    pub(crate) fn of(logged: &LoggedEntry) -> Self {
        logged.ephemeral.clone().map_or(Self::Document(logged.id), Self::Entry)
    }
}

/// What lies at the places that were met lately, so that their events are fetched by id.
pub(crate) struct Locations(Cache<Cursor, EventLocation, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<Cursor, EventLocation> for Weight {
    fn weight(&self, _: &Cursor, place: &EventLocation) -> u64 {
        match place {
            EventLocation::Document(_) => PLACE_BYTES,
            EventLocation::Entry(event) => PLACE_BYTES + event.byte_len() as u64,
        }
    }
}

impl Default for Locations {
    fn default() -> Self {
        Self(Cache::with_weighter(PLACES_EXPECTED, PLACES_BYTES_MAX, Weight))
    }
}

impl Locations {
    pub(crate) fn remember(&self, cursor: Cursor, place: EventLocation) {
        self.0.insert(cursor, place);
    }
}

impl Inner {
    /// See [`crate::Store::events_at`].
    pub(crate) async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, Fail> {
        let mut wanted: Vec<(Cursor, EventLocation)> = Vec::new();
        let mut unknown: BTreeMap<Micros, Vec<Cursor>> = BTreeMap::new();
        for cursor in cursors {
            match self.locations.0.get(cursor) {
                Some(place) => wanted.push((*cursor, place)),
                None => unknown.entry(time_of(*cursor)).or_default().push(*cursor),
            }
        }
        for (time, cursors) in unknown {
            let from = time.saturating_sub(LAG_SECS * SEC);
            let asked = query::log_between(&self.names, from, Some(time + SKEW_SECS * SEC));
            for document in self.client.query(asked).await?.documents {
                if document.update_time.map(micros) == Some(time) {
                    let log = CommitLog::read(&document)?;
                    let places = log.places().filter(|(place, _)| cursors.contains(place));
                    wanted.extend(places.map(|(place, logged)| (place, EventLocation::of(logged))));
                }
            }
        }
        let names = wanted.iter().filter_map(|(_, place)| match place {
            EventLocation::Document(id) => Some(self.names.event(id)),
            EventLocation::Entry(_) => None,
        });
        let hidden = self.hiding.now();
        let got = self.client.get(names.collect(), None).await?;
        let now = got.read_at.max(time_of(self.head()));
        let mut events = Vec::with_capacity(wanted.len());
        for (cursor, place) in wanted {
            match place {
                EventLocation::Entry(_) if now.saturating_sub(time_of(cursor)) > EPHEMERAL_SECS * SEC => {}
                EventLocation::Entry(event) => events.push(event.seal(cursor)),
                EventLocation::Document(id) => {
                    let Some(document) = got.get(&self.names.event(&id)) else { continue };
                    let stored = StoredEvent::read(document)?;
                    // An event that went and came again lies elsewhere.
                    if stored.cursor == cursor && !hidden.hides(stored.event.view()) {
                        events.push(stored.seal());
                    }
                }
            }
        }
        events.sort_by_key(Sealed::cursor);
        Ok(events)
    }
}
