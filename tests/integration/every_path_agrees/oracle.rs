//! A second, small implementation of the rules for publishing and reading, made from the table of docs/rules.md alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::Event;

/// State of a group, as far as the table needs it.
#[derive(Clone, Debug, PartialEq)]
pub enum Group {
    Unlisted,
    Managed { by_roster: bool, members: BTreeMap<String, bool> },
}

/// State of an accepted event.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Stored,
    /// Removed by a kind 5.
    Deleted,
    /// Never stored, superseded, or removed with a key that vanished: it counts as if it had never been published.
    Forgotten,
}

/// An event that was accepted.
pub struct Known {
    pub event: Event,
    expires_at: u64,
    fate: Fate,
    /// For a kind 5: whether it names no event that is private to its author.
    public: bool,
    /// The key that deleted it.
    deleted_by: Option<String>,
}

impl Known {
    fn is_public(&self) -> bool {
        is_public(self.event.kind()) && self.public
    }

    /// Whether it is for some keys alone, and by this one or to it.
    fn is_private_of(&self, key: &str) -> bool {
        let is_to = matches!(self.event.kind(), 4 | 446 | 447 | 1059) && tags(&self.event, "p").any(|to| to == key);
        !self.is_public() && (author(&self.event) == key || is_to)
    }

    fn may_be_deleted_by(&self, key: &str) -> bool {
        let is_to = matches!(self.event.kind(), 446 | 447 | 1059) && tags(&self.event, "p").any(|to| to == key);
        !matches!(self.event.kind(), 5 | 62 | 445 | 450) && (author(&self.event) == key || is_to)
    }
}

/// The answer to a claim.
pub struct Claimed {
    /// The ids of the KeyPackages, each with whether it is of last resort.
    pub given: Vec<(String, bool)>,
    pub remaining: usize,
}

/// All accepted events, and the groups that they made.
#[derive(Default)]
pub struct Oracle {
    /// Ids of KeyPackages that were given as the last ones of their owners.
    pub last_resort: BTreeSet<String>,
    pub admin: String,
    pub now: u64,
    pub known: Vec<Known>,
    pub groups: BTreeMap<String, Group>,
}

/// Kinds that only a reader with a key may ask for by name.
const FOR_KEYS: [u64; 6] = [4, 446, 447, 450, 1059, 21059];

pub fn tags<'e>(event: &'e Event, name: &'e str) -> impl Iterator<Item = &'e str> {
    let all = event.0["tags"].as_array().expect("tags").iter();
    all.filter(move |tag| tag[0] == name).filter_map(|tag| tag[1].as_str())
}

fn author(event: &Event) -> &str {
    event.0["pubkey"].as_str().expect("an author")
}

pub fn created_at(event: &Event) -> u64 {
    event.0["created_at"].as_u64().expect("a time")
}

fn is_capability(group: &str) -> bool {
    group.len() == 64 && group.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

fn is_public(kind: u64) -> bool {
    !FOR_KEYS.contains(&kind) && kind != 445
}

impl Oracle {
    /// Whether a reader of these keys may publish the event; if so the oracle remembers it.
    pub fn publish(&mut self, event: &Event, reader: &[String]) -> bool {
        let taken = match event.kind() {
            445 => self.message(event, reader),
            450 => reader.contains(&self.admin) && self.roster(event),
            447 => reader.contains(&self.admin),
            1059 => self.wrap(event, reader),
            5 => return self.deletion(event),
            62 => {
                self.vanish(event);
                true
            }
            30023 => {
                self.replace(event);
                true
            }
            _ => true,
        };
        if taken {
            self.know(event, true);
        }
        taken
    }

    fn know(&mut self, event: &Event, public: bool) {
        let end = tags(event, "expiration").next().map_or(u64::MAX, |end| end.parse().expect("a number"));
        let fate = if event.kind() == 21059 { Fate::Forgotten } else { Fate::Stored };
        self.known.push(Known { event: event.clone(), expires_at: end, fate, public, deleted_by: None });
    }

    fn message(&mut self, event: &Event, reader: &[String]) -> bool {
        let group = tags(event, "h").next().expect("an h").to_owned();
        match self.groups.get(&group) {
            Some(Group::Managed { members, .. }) => reader.iter().any(|key| members.contains_key(key)),
            _ if is_capability(&group) => {
                self.groups.insert(group, Group::Unlisted);
                true
            }
            _ => false,
        }
    }

    fn roster(&mut self, event: &Event) -> bool {
        let group = tags(event, "h").next().expect("an h").to_owned();
        let op = tags(event, "op").next().expect("an op");
        let keys: Vec<String> = tags(event, "p").map(str::to_owned).collect();
        let fresh = || keys.iter().map(|key| (key.clone(), false)).collect::<BTreeMap<_, _>>();
        let next = match (self.groups.get(&group), op) {
            (None, "bootstrap") | (Some(Group::Managed { by_roster: false, .. }), "bootstrap") => fresh(),
            (None | Some(Group::Unlisted), _) | (_, "bootstrap") => return false,
            (Some(Group::Managed { members, .. }), op) => {
                let mut next = members.clone();
                match op {
                    "add" => keys.iter().for_each(|key| {
                        next.entry(key.clone()).or_insert(false);
                    }),
                    "remove" => next.retain(|key, _| !keys.contains(key)),
                    "replace" => next = keys.iter().map(|key| (key.clone(), members.get(key) == Some(&true))).collect(),
                    _ => {
                        if keys.iter().any(|key| !members.contains_key(key)) {
                            return false;
                        }
                        keys.iter().for_each(|key| {
                            next.insert(key.clone(), op == "promote");
                        });
                    }
                }
                if next == *members {
                    return false;
                }
                next
            }
        };
        self.groups.insert(group, Group::Managed { by_roster: true, members: next });
        true
    }

    fn wrap(&mut self, event: &Event, reader: &[String]) -> bool {
        let Some(group) = tags(event, "h").next() else { return true };
        let recipient = tags(event, "p").next().expect("a p");
        match self.groups.get_mut(group) {
            Some(Group::Managed { by_roster, members }) => {
                let by_member = reader.iter().any(|key| members.contains_key(key));
                if !*by_roster && by_member {
                    members.entry(recipient.to_owned()).or_insert(false);
                }
                by_member || (*by_roster && reader.contains(&self.admin))
            }
            _ if is_capability(group) => true,
            _ => match reader.first().filter(|primary| *primary != recipient) {
                Some(primary) => {
                    let members = BTreeMap::from([(primary.clone(), true), (recipient.to_owned(), false)]);
                    self.groups.insert(group.to_owned(), Group::Managed { by_roster: false, members });
                    true
                }
                None => false,
            },
        }
    }

    fn deletion(&mut self, event: &Event) -> bool {
        let by = author(event);
        let targets: BTreeSet<&str> = tags(event, "e").collect();
        let now = self.now;
        // Every other target counts as one that was never published.
        let is_there =
            |known: &Known| known.fate == Fate::Stored && known.expires_at > now && targets.contains(known.event.id());
        let there: Vec<&Known> = self.known.iter().filter(|known| is_there(known)).collect();
        if there.iter().any(|known| matches!(known.event.kind(), 445 | 450) && author(&known.event) == by) {
            return false;
        }
        let is_seen = |known: &&&Known| known.is_public() || known.is_private_of(by);
        let others = there.iter().filter(is_seen).filter(|known| !known.may_be_deleted_by(by)).count();
        if others == targets.len() {
            return false;
        }
        let was_private = |known: &Known| {
            known.fate == Fate::Deleted && known.deleted_by.as_deref() == Some(by) && !known.is_public()
        };
        let named = self.known.iter().filter(|known| targets.contains(known.event.id()));
        let public = !there.iter().any(|known| known.is_private_of(by)) && !named.into_iter().any(was_private);
        for known in self.known.iter_mut().filter(|known| is_there(known) && known.may_be_deleted_by(by)) {
            known.fate = Fate::Deleted;
            known.deleted_by = Some(by.to_owned());
        }
        self.know(event, public);
        true
    }

    fn vanish(&mut self, event: &Event) {
        let key = author(event).to_owned();
        for known in &mut self.known {
            let to = || matches!(known.event.kind(), 446 | 447 | 1059) && tags(&known.event, "p").any(|p| p == key);
            if known.fate == Fate::Stored
                && !matches!(known.event.kind(), 450 | 62)
                && (author(&known.event) == key || to())
            {
                known.fate = Fate::Forgotten;
            }
        }
        for group in self.groups.values_mut() {
            if let Group::Managed { members, .. } = group {
                let admins = members.values().filter(|admin| **admin).count();
                if members.get(&key).is_some_and(|admin| !admin || admins > 1) {
                    members.remove(&key);
                }
            }
        }
    }

    fn replace(&mut self, event: &Event) {
        let (by, d) = (author(event), tags(event, "d").next());
        for known in &mut self.known {
            let same = known.event.kind() == 30023 && author(&known.event) == by && tags(&known.event, "d").next() == d;
            if same && known.fate == Fate::Stored {
                known.fate = Fate::Forgotten;
            }
        }
    }

    /// Claims at most `count` KeyPackages of an owner: the oldest are used up while the owner has another one.
    pub fn claim(&mut self, owner: &str, count: usize) -> Claimed {
        let now = self.now;
        let is_there = |known: &&mut Known| {
            let is_owners = matches!(known.event.kind(), 443 | 30443) && author(&known.event) == owner;
            is_owners && known.fate == Fate::Stored && known.expires_at > now
        };
        let (marked, mut fresh): (Vec<&mut Known>, Vec<&mut Known>) =
            self.known.iter_mut().filter(is_there).partition(|known| self.last_resort.contains(known.event.id()));
        let mut given = Vec::new();
        while given.len() < count && fresh.len() + marked.len() > 1 && !fresh.is_empty() {
            let oldest = fresh.remove(0);
            oldest.fate = Fate::Forgotten;
            given.push((oldest.event.id().to_owned(), false));
        }
        if given.len() < count && marked.is_empty() && fresh.len() == 1 {
            let last = fresh.remove(0).event.id().to_owned();
            self.last_resort.insert(last.clone());
            given.push((last, true));
        }
        let rest = count - given.len();
        given.extend(marked.iter().take(rest).map(|known| (known.event.id().to_owned(), true)));
        Claimed { given, remaining: fresh.len() }
    }

    /// Whether a request is refused because its reader has no key.
    pub fn needs_key(&self, filter: &Value, reader: &[String]) -> bool {
        let kinds = filter["kinds"].as_array().into_iter().flatten();
        let names = || filter["#h"].as_array().into_iter().flatten().filter_map(Value::as_str).any(is_capability);
        let needs = |kind: u64| FOR_KEYS.contains(&kind) || (kind == 445 && !names());
        reader.is_empty() && kinds.filter_map(Value::as_u64).any(needs)
    }

    /// Whether the reader may get this event in answer to this filter.
    pub fn may_read(&self, known: &Known, reader: &[String], filter: &Value) -> bool {
        let event = &known.event;
        let has = |key: &str| reader.iter().any(|own| own == key);
        let addressed = || tags(event, "p").any(has);
        let open = match event.kind() {
            4 => addressed() || has(author(event)),
            446 | 447 | 1059 | 21059 => addressed(),
            5 => known.public || has(author(event)),
            445 | 450 => {
                let group = tags(event, "h").next().expect("an h");
                let names = |list: &Value, text: &str| list.as_array().into_iter().flatten().any(|value| value == text);
                match self.groups.get(group) {
                    Some(Group::Managed { members, .. }) => {
                        reader.iter().any(|key| members.contains_key(key)) || (event.kind() == 450 && has(&self.admin))
                    }
                    _ => event.kind() == 445 && (names(&filter["#h"], group) || names(&filter["ids"], event.id())),
                }
            }
            _ => true,
        };
        open && known.expires_at > self.now && matches(filter, event)
    }

    /// Ids of the stored events that the reader gets, newest first.
    pub fn stored(&self, reader: &[String], filter: &Value) -> Vec<String> {
        let open = |known: &&Known| known.fate == Fate::Stored && self.may_read(known, reader, filter);
        let mut found: Vec<&Event> = self.known.iter().filter(open).map(|known| &known.event).collect();
        found.sort_by_key(|event| (std::cmp::Reverse(created_at(event)), event.id().to_owned()));
        found.truncate(filter["limit"].as_u64().map_or(usize::MAX, |limit| limit as usize));
        found.into_iter().map(|event| event.id().to_owned()).collect()
    }
}

fn matches(filter: &Value, event: &Event) -> bool {
    let any =
        |name: &str, test: &dyn Fn(&Value) -> bool| filter[name].as_array().is_none_or(|list| list.iter().any(test));
    let tag = |name: &str| any(&format!("#{name}"), &|value| tags(event, name).any(|text| value == text));
    any("ids", &|id| id == event.id())
        && any("authors", &|key| key == author(event))
        && any("kinds", &|kind| *kind == event.kind())
        && ["h", "p"].into_iter().all(tag)
        && filter["since"].as_u64().is_none_or(|since| created_at(event) >= since)
        && filter["until"].as_u64().is_none_or(|until| created_at(event) <= until)
}
