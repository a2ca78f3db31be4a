//! The record of a simulation: what each client sent and got, and when, in time and in the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{event::Event, log::Log, seam};

/// Something that happened at a client.
#[derive(Clone, Debug)]
pub enum Happened {
    /// It sent the proof of a key; the id is the event's.
    Proof {
        key: String,
        id: String,
    },
    Published(Event),
    Asked {
        verb: &'static str,
        id: String,
        filter: Value,
    },
    Closed(String),
    Got(Value),
    /// A NIP-77 session ended with these ids.
    Synced {
        id: String,
        ids: Vec<String>,
    },
    /// The connection ended; no more arrives.
    Ended,
}

/// See [`Happened`].
#[derive(Clone, Debug)]
pub struct Line {
    pub at_ms: u64,
    /// Commits so far.
    pub place: usize,
    /// Commits up to the last one that any client knows to be acknowledged.
    pub acknowledged: usize,
    pub what: Happened,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Connection {
    pub who: usize,
    pub instance: usize,
    pub opened_ms: u64,
    /// The time of the relay's challenge.
    pub greeted_ms: Option<u64>,
    pub lines: Vec<Line>,
    /// Whether its wire was broken on purpose.
    pub is_cut: bool,
    /// Whether its client left.
    pub leaves: bool,
}

/// A list of the REST doors that a person catches up on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListName {
    pub who: usize,
    /// The path without a cursor.
    pub path: String,
}

/// The place of a person in a list.
#[derive(Debug)]
pub struct List {
    /// The filter that fits the same events.
    pub filter: Value,
    cursor: Option<String>,
    /// Whether a request for the next page is under way.
    is_busy: bool,
}

/// A request to the REST doors and its answer.
#[derive(Debug)]
pub struct Call {
    pub who: usize,
    pub instance: usize,
    pub path: String,
    /// The list that it is a page of; a claim is none of a list.
    pub list: Option<ListName>,
    pub at_ms: u64,
    pub acknowledged: usize,
    /// Milliseconds, commits, status and body of the answer.
    pub answer: Option<(u64, usize, u16, Value)>,
}

/// A time in which something is wrong on purpose at an instance.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub instance: usize,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// See the module.
pub struct Record {
    pub log: Arc<Mutex<Log>>,
    pub connections: Vec<Connection>,
    pub calls: Vec<Call>,
    pub lists: BTreeMap<ListName, List>,
    pub troubles: Vec<Trouble>,
    /// The end of the calm behind the last step: subscriptions that are open then have got all that they must.
    pub settled_ms: u64,
    /// Most bytes of clients' memory that an instance counted.
    pub memory_most: usize,
    /// Bytes of clients' memory that an instance counts when all clients are gone.
    pub memory_left: usize,
    acknowledged: usize,
    /// The story so far, where it is kept.
    pub story: Option<Vec<String>>,
    hash: Sha256,
    pub frames: u64,
}

impl Record {
    pub fn new(log: Arc<Mutex<Log>>, keeps_story: bool) -> Self {
        Self {
            log,
            connections: Vec::new(),
            calls: Vec::new(),
            lists: BTreeMap::new(),
            troubles: Vec::new(),
            settled_ms: u64::MAX,
            memory_most: 0,
            memory_left: 0,
            acknowledged: 0,
            story: keeps_story.then(Vec::new),
            hash: Sha256::new(),
            frames: 0,
        }
    }

    /// Adds a line to the story.
    pub fn tell(&mut self, text: &str) {
        let at_ms = seam::elapsed_ms();
        let line = format!("{:>4}.{:03} s  {text}", at_ms / 1_000, at_ms % 1_000);
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        if let Some(story) = &mut self.story {
            story.push(line);
        }
    }

    fn place(&self) -> usize {
        self.log.lock().expect("no panic while it is held").len()
    }

    pub const fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Notes what happened at a connection.
    pub fn note(&mut self, connection: usize, what: Happened) {
        if let Happened::Got(frame) = &what
            && frame[0] == "OK"
            && frame[2] == true
        {
            let log = Arc::clone(&self.log);
            let log = log.lock().expect("no panic while it is held");
            if let Some(place) = frame[1].as_str().and_then(|id| log.place(id)) {
                self.acknowledged = self.acknowledged.max(place + 1);
            }
        }
        self.frames += 1;
        let Connection { who, instance, .. } = self.connections[connection];
        let who = crate::plan::PEOPLE[who];
        self.tell(&format!("{who}#{connection} at {instance} {}", describe(&what)));
        let line = Line { at_ms: seam::elapsed_ms(), place: self.place(), acknowledged: self.acknowledged, what };
        self.connections[connection].lines.push(line);
    }

    /// Begins a request for the next page of a list, and gives the cursor that it begins with; nothing where one is
    /// under way.
    pub fn begin_list(&mut self, name: &ListName, filter: Value) -> Option<Option<String>> {
        let new = || List { filter, cursor: None, is_busy: false };
        let list = self.lists.entry(name.clone()).or_insert_with(new);
        (!std::mem::replace(&mut list.is_busy, true)).then(|| list.cursor.clone())
    }

    /// Ends a request for a page of a list.
    pub fn end_list(&mut self, name: &ListName) {
        if let Some(list) = self.lists.get_mut(name) {
            list.is_busy = false;
        }
    }

    /// Notes the answer to a call.
    pub fn answered(&mut self, call: usize, status: u16, body: Value) {
        let place = self.place();
        if let Some(name) = &self.calls[call].list
            && let Some(cursor) = body["next_cursor"].as_str()
            && let Some(list) = self.lists.get_mut(name)
        {
            list.cursor = Some(cursor.to_owned());
        }
        let Call { who, path, .. } = &self.calls[call];
        let text = format!("{} gets {status} for {path}: {}", crate::plan::PEOPLE[*who], short(&body.to_string()));
        self.tell(&text);
        self.calls[call].answer = Some((seam::elapsed_ms(), place, status, body));
    }

    /// The hash of all that happened, and of all that was drawn and read.
    pub fn hash(&self) -> String {
        let mut hash = self.hash.clone();
        let (readings, chance) = seam::position();
        hash.update(format!("{readings} {chance}"));
        nostr_protocol::hex::to_hex(&hash.finalize())
    }
}

fn short(text: &str) -> String {
    let cut = text.char_indices().nth(160).map_or(text.len(), |(at, _)| at);
    text[..cut].to_owned()
}

fn describe(what: &Happened) -> String {
    let event = |event: &Value| {
        let id = event["id"].as_str().unwrap_or_default();
        format!("{} (kind {}, {})", &id[..id.len().min(8)], event["kind"], short(&event["content"].to_string()))
    };
    match what {
        Happened::Proof { key, .. } => format!("sends AUTH by {}", &key[..8]),
        Happened::Published(it) => format!("sends EVENT {} {}", event(it.json()), it.json()["tags"]),
        Happened::Asked { verb, id, filter } => format!("sends {verb} {id} {}", short(&filter.to_string())),
        Happened::Closed(id) => format!("sends CLOSE {id}"),
        Happened::Got(frame) if frame[0] == "EVENT" => format!("gets EVENT {} {}", frame[1], event(&frame[2])),
        Happened::Got(frame) => format!("gets {}", short(&frame.to_string())),
        Happened::Synced { id, ids } => format!("has synced {id}: {} events", ids.len()),
        Happened::Ended => "is disconnected".to_owned(),
    }
}
