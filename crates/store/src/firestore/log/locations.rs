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
            events::EventDocument,
            query,
        },
        log::follow::{LAG_SECS, SKEW_SECS},
        wire::{
            clock::{Micros, SEC, micros, time_of},
            fail::Fail,
        },
    },
};

/// Most bytes of locations that are remembered, by estimate.
const LOCATIONS_BYTES_MAX: u64 = 16 << 20;
/// Estimated bytes of a location, without an ephemeral event.
const LOCATION_BYTES: u64 = 128;
/// Number of locations that the cache is laid out for.
const LOCATIONS_EXPECTED: usize = 100_000;

/// The location of an event: a document of its own, or its entry in the log.
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

/// A cache of the locations of recent events, by which they are fetched without reading the log.
pub(crate) struct Locations(Cache<Cursor, EventLocation, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<Cursor, EventLocation> for Weight {
    fn weight(&self, _: &Cursor, location: &EventLocation) -> u64 {
        match location {
            EventLocation::Document(_) => LOCATION_BYTES,
            EventLocation::Entry(event) => LOCATION_BYTES + event.byte_len() as u64,
        }
    }
}

impl Default for Locations {
    fn default() -> Self {
        Self(Cache::with_weighter(LOCATIONS_EXPECTED, LOCATIONS_BYTES_MAX, Weight))
    }
}

impl Locations {
    pub(crate) fn remember(&self, cursor: Cursor, location: EventLocation) {
        self.0.insert(cursor, location);
    }
}

impl Inner {
    /// See [`crate::Store::events_at`].
    pub(crate) async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, Fail> {
        let mut wanted: Vec<(Cursor, EventLocation)> = Vec::new();
        let mut unknown: BTreeMap<Micros, Vec<Cursor>> = BTreeMap::new();
        for cursor in cursors {
            match self.locations.0.get(cursor) {
                Some(location) => wanted.push((*cursor, location)),
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
        let names = wanted.iter().filter_map(|(_, location)| match location {
            EventLocation::Document(id) => Some(self.names.event(id)),
            EventLocation::Entry(_) => None,
        });
        let hidden = self.hiding.now();
        let got = self.client.get(names.collect(), None).await?;
        let now = got.read_at.max(time_of(self.head()));
        let mut events = Vec::with_capacity(wanted.len());
        for (cursor, location) in wanted {
            match location {
                EventLocation::Entry(_) if now.saturating_sub(time_of(cursor)) > EPHEMERAL_SECS * SEC => {}
                EventLocation::Entry(event) => events.push(event.seal(cursor)),
                EventLocation::Document(id) => {
                    let Some(document) = got.get(&self.names.event(&id)) else { continue };
                    let stored = EventDocument::read(document)?;
                    // An event that was removed and stored again has another cursor.
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
