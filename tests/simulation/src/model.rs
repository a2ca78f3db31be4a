//! The rules of docs/rules.md in plain words, as a second and small implementation that shares no code with the relay.
//!
//! The model goes through the log of commits. It says at each place of the log which groups there are and which events
//! are gone, who may send an event, and who may read it.

use std::{collections::BTreeMap, rc::Rc};

use serde_json::Value;

use crate::{
    chance::Chance,
    event::Event,
    log::{Entry, Log},
};

/// A group that has a record, or that carried unlisted messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    Unlisted,
    Managed {
        /// Whether a roster has ever decided the group.
        by_roster: bool,
        seq: u64,
        /// The members, each with whether it is a group admin.
        members: BTreeMap<String, bool>,
    },
}

/// All groups at one place of the log.
pub type Groups = BTreeMap<String, Group>;

/// The reader, or the sender, that a connection is: the keys that it has proved.
pub type Proved = [String];

/// See the module.
pub struct Model<'l> {
    log: &'l Log,
    /// The admin key.
    admin: String,
    /// The groups before each commit, and behind the last.
    groups: Vec<Rc<Groups>>,
    /// The place of the commit that removed the event of each place.
    gone: Vec<Option<usize>>,
}

/// Kinds that only a reader with a key may ask for by name.
const FOR_KEYS: [u64; 6] = [4, 446, 447, 450, 1059, 21059];

/// Whether an id has the form of an unlisted group's.
fn is_capability(group: &str) -> bool {
    group.len() == 64 && group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a recipient owns the event too.
fn is_to_recipient(event: &Event) -> bool {
    matches!(event.kind(), 446 | 447 | 1059)
}

impl<'l> Model<'l> {
    /// Goes through the log.
    pub fn of(log: &'l Log, admin: &str) -> Self {
        let mut model = Self { log, admin: admin.to_owned(), groups: vec![Rc::default()], gone: vec![None; log.len()] };
        for place in 0..log.len() {
            let mut groups = (*model.groups[place]).clone();
            match &log.entries[place] {
                Entry::Event(event) => model.apply(place, event, &mut groups),
                Entry::UsedUp(ids) => {
                    for id in ids {
                        model.remove(id, place);
                    }
                }
            }
            let is_same = groups == *model.groups[place];
            let next = if is_same { Rc::clone(&model.groups[place]) } else { Rc::new(groups) };
            model.groups.push(next);
        }
        model
    }

    /// Marks an event that was stored before `place` as gone.
    fn remove(&mut self, id: &str, place: usize) {
        if let Some(stored) = self.log.place(id).filter(|stored| *stored < place) {
            self.gone[stored].get_or_insert(place);
        }
    }

    fn apply(&mut self, place: usize, event: &Event, groups: &mut Groups) {
        match event.kind() {
            445 => {
                let group = event.group().unwrap_or_default();
                groups.entry(group.to_owned()).or_insert(Group::Unlisted);
            }
            450 => apply_roster(event, groups),
            5 => {
                let named: Vec<String> = event.tags("e").map(str::to_owned).collect();
                for id in named {
                    if let Some(target) = self.log.place(&id).and_then(|at| self.log.event(at))
                        && may_delete(target, event.author())
                    {
                        self.remove(&id, place);
                    }
                }
            }
            62 => {
                let left: Vec<String> = self
                    .log
                    .events()
                    .take_while(|(at, _)| *at < place)
                    .filter(|(_, it)| vanishes(it, event.author(), event.created_at()))
                    .map(|(_, it)| it.id().to_owned())
                    .collect();
                for id in left {
                    self.remove(&id, place);
                }
                leave_groups(event.author(), groups);
            }
            30023 => {
                let older: Vec<String> = self
                    .log
                    .events()
                    .take_while(|(at, _)| *at < place)
                    .filter(|(_, it)| {
                        it.kind() == 30023 && it.author() == event.author() && it.tag("d") == event.tag("d")
                    })
                    .map(|(_, it)| it.id().to_owned())
                    .collect();
                for id in older {
                    self.remove(&id, place);
                }
            }
            _ => {}
        }
    }

    /// Hashes of the groups at all places, each of a member's key and role, without the numbers of rosters.
    pub fn states(&self) -> impl Iterator<Item = u64> {
        let hash = |groups: &Groups| {
            let mut text = String::new();
            for (id, group) in groups {
                text.push_str(id);
                match group {
                    Group::Unlisted => text.push('?'),
                    Group::Managed { members, .. } => text.push_str(&format!("{members:?}")),
                }
            }
            Chance::new(0, &text).below(u64::MAX)
        };
        self.groups.iter().map(move |groups| hash(groups))
    }

    /// The place behind the last commit.
    pub fn end(&self) -> usize {
        self.log.len()
    }

    /// The groups behind the first `place` commits.
    pub fn groups_at(&self, place: usize) -> &Groups {
        &self.groups[place.min(self.log.len())]
    }

    /// Whether a group changed between two places of the log.
    pub fn changes_between(&self, from: usize, to: usize) -> bool {
        (from..=to).any(|place| self.groups_at(place) != self.groups_at(from))
    }

    /// The group of this id, if it is managed behind the first `place` commits.
    pub fn managed_at<'g>(&self, group: &'g str, place: usize) -> Option<&'g str> {
        matches!(self.groups_at(place).get(group), Some(Group::Managed { .. })).then_some(group)
    }

    /// Why the sender of this event broke a rule by it, given the groups before its commit.
    pub fn fault_of_sender(&self, place: usize, event: &Event, sender: &Proved) -> Option<String> {
        let groups = self.groups_at(place);
        let group = event.group().and_then(|id| groups.get(id));
        let is_admin = |key: &str| key == self.admin;
        match event.kind() {
            445 => match group {
                Some(Group::Managed { members, .. }) => (!sender.iter().any(|key| members.contains_key(key)))
                    .then(|| "no key of the sender was a member then".to_owned()),
                _ => (!event.group().is_some_and(is_capability)).then(|| "the group did not exist".to_owned()),
            },
            450 => {
                let signer = event.author();
                if !sender.iter().any(|key| key == signer) {
                    return Some("the sender had not proved the signer's key".to_owned());
                }
                let op = event.tag("op").unwrap_or_default();
                let seq: u64 = event.tag("seq").and_then(|seq| seq.parse().ok()).unwrap_or(0);
                match group {
                    Some(Group::Managed { seq: last, members, .. }) => {
                        let leaves = op == "remove" && event.tags("p").eq([signer]);
                        let may = is_admin(signer)
                            || members.get(signer) == Some(&true)
                            || (leaves && members.contains_key(signer));
                        if !may {
                            return Some("its signer was no admin of the group then".to_owned());
                        }
                        (seq <= *last).then(|| format!("its seq {seq} was not above {last}"))
                    }
                    Some(Group::Unlisted) => Some("the group carried unlisted messages".to_owned()),
                    None => (!is_admin(signer) || op != "bootstrap").then(|| "the group did not exist".to_owned()),
                }
            }
            447 => (!sender.iter().any(|key| is_admin(key))).then(|| "no admin sent it".to_owned()),
            _ => None,
        }
    }

    /// Whether a filter is refused because its reader has no key.
    pub fn needs_key(filter: &Value, reader: &Proved) -> bool {
        let kinds = filter["kinds"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        let names = || {
            let groups = filter["#h"].as_array().into_iter().flatten().filter_map(Value::as_str);
            groups.into_iter().any(is_capability)
        };
        reader.is_empty() && kinds.into_iter().any(|kind| FOR_KEYS.contains(&kind) || (kind == 445 && !names()))
    }

    /// Whether the reader may be given this event in answer to this filter, by the state behind `place` commits.
    pub fn may_read(&self, event: &Event, reader: &Proved, filter: &Value, place: usize) -> bool {
        let has = |key: &str| reader.iter().any(|own| own == key);
        let is_to = || event.tags("p").any(has);
        let open = match event.kind() {
            4 => is_to() || has(event.author()),
            446 | 447 | 1059 | 21059 => is_to(),
            5 => self.is_public_deletion(event) || has(event.author()),
            445 | 450 => {
                let group = event.group().unwrap_or_default();
                let names = |list: &Value, text: &str| list.as_array().into_iter().flatten().any(|value| value == text);
                match self.groups_at(place).get(group) {
                    Some(Group::Managed { members, .. }) => {
                        reader.iter().any(|key| members.contains_key(key)) || (event.kind() == 450 && has(&self.admin))
                    }
                    _ => event.kind() == 445 && (names(&filter["#h"], group) || names(&filter["ids"], event.id())),
                }
            }
            _ => true,
        };
        open && event.fits(filter)
    }

    /// A deletion is public unless it names an event that is private to its author, and that is there or that its
    /// author has deleted before.
    fn is_public_deletion(&self, deletion: &Event) -> bool {
        let before = self.log.place(deletion.id()).unwrap_or(0);
        let is_known = |at: &usize| {
            let by = self.gone[*at].and_then(|gone| self.log.event(gone));
            self.is_there(*at, before) || by.is_some_and(|it| it.kind() == 5 && it.author() == deletion.author())
        };
        let named = deletion.tags("e").filter_map(|id| self.log.place(id).filter(|at| *at < before)).filter(is_known);
        let mut named = named.filter_map(|at| self.log.event(at));
        !named.any(|target| {
            let by = deletion.author();
            let is_to = matches!(target.kind(), 4 | 446 | 447 | 1059) && target.tags("p").any(|to| to == by);
            let is_public = !FOR_KEYS.contains(&target.kind())
                && target.kind() != 445
                && (target.kind() != 5 || self.is_public_deletion(target));
            !is_public && (target.author() == by || is_to)
        })
    }

    /// Whether the event that was committed at `stored` is there behind the first `place` commits.
    pub fn is_there(&self, stored: usize, place: usize) -> bool {
        stored < place && self.gone[stored].is_none_or(|gone| gone >= place)
    }

    /// Whether the event that was committed at `stored` was never removed.
    pub fn stays(&self, stored: usize) -> bool {
        self.gone[stored].is_none()
    }
}

/// Whether a deletion of this key removes the event.
fn may_delete(target: &Event, by: &str) -> bool {
    let is_to = is_to_recipient(target) && target.tags("p").any(|to| to == by);
    !matches!(target.kind(), 5 | 62 | 445 | 450) && (target.author() == by || is_to)
}

/// Whether the event goes with a key that vanished up to a time.
fn vanishes(event: &Event, key: &str, until: u64) -> bool {
    let is_to = is_to_recipient(event) && event.tags("p").any(|to| to == key);
    // The authors of group messages sign nothing else here, so none of them vanishes.
    let stays = matches!(event.kind(), 445 | 450 | 62);
    !stays && event.created_at() <= until && (event.author() == key || is_to)
}

fn leave_groups(key: &str, groups: &mut Groups) {
    for group in groups.values_mut() {
        if let Group::Managed { members, .. } = group {
            let admins = members.values().filter(|is_admin| **is_admin).count();
            let is_only_admin = members.get(key) == Some(&true) && admins == 1;
            if !is_only_admin {
                members.remove(key);
            }
        }
    }
}

fn apply_roster(event: &Event, groups: &mut Groups) {
    let id = event.group().unwrap_or_default().to_owned();
    let seq = event.tag("seq").and_then(|seq| seq.parse().ok()).unwrap_or(0);
    let is_admin = event.tag("role") == Some("admin");
    let keys: Vec<String> = event.tags("p").map(str::to_owned).collect();
    let mut members = match groups.get(&id) {
        Some(Group::Managed { members, .. }) => members.clone(),
        _ => BTreeMap::new(),
    };
    match event.tag("op").unwrap_or_default() {
        "bootstrap" => members = keys.into_iter().map(|key| (key, is_admin)).collect(),
        "add" => {
            for key in keys {
                members.entry(key).or_insert(is_admin);
            }
        }
        "remove" => members.retain(|key, _| !keys.contains(key)),
        "promote" => {
            for key in keys {
                members.insert(key, true);
            }
        }
        "demote" => {
            for key in keys {
                members.insert(key, false);
            }
        }
        "replace" => {
            let role = |key: &String| members.get(key).copied().unwrap_or(is_admin);
            members = keys.iter().map(|key| (key.clone(), role(key))).collect();
        }
        _ => {}
    }
    groups.insert(id, Group::Managed { by_roster: true, seq, members });
}
