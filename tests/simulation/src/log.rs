//! The commits of the shared store in their order: the log by which the model decides.

use std::collections::BTreeMap;

use crate::{event::Event, seam};

/// One commit.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An event was stored, with its effects.
    Event(Event),
    /// KeyPackages of these ids were used up.
    UsedUp(Vec<String>),
}

/// See the module. Places are indexes, so the state before the first commit is at place 0.
#[derive(Debug, Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    /// Milliseconds from the beginning to each commit.
    pub at_ms: Vec<u64>,
    /// Places of events, by id. An event that was stored, expired and stored again has its last place.
    places: BTreeMap<String, usize>,
    /// Places by the store's cursors, which also rise.
    cursors: Vec<u64>,
}

impl Log {
    fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.at_ms.push(seam::elapsed_ms());
    }

    /// Notes an event that the store has committed.
    pub fn committed(&mut self, cursor: u64, event: Event) {
        assert!(self.cursors.last().is_none_or(|last| *last < cursor), "the store's cursors rise");
        self.cursors.push(cursor);
        self.places.insert(event.id().to_owned(), self.entries.len());
        self.add(Entry::Event(event));
    }

    /// Notes KeyPackages that a claim has used up.
    pub fn claimed(&mut self, ids: &[String]) {
        if !ids.is_empty() {
            self.add(Entry::UsedUp(ids.to_vec()));
        }
    }

    /// Number of commits so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The place of an event, if it was committed.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// The event at a place.
    pub fn event(&self, place: usize) -> Option<&Event> {
        match self.entries.get(place)? {
            Entry::Event(event) => Some(event),
            Entry::UsedUp(_) => None,
        }
    }

    /// All events with their places.
    pub fn events(&self) -> impl Iterator<Item = (usize, &Event)> {
        self.entries.iter().enumerate().filter_map(|(place, entry)| match entry {
            Entry::Event(event) => Some((place, event)),
            Entry::UsedUp(_) => None,
        })
    }
}
