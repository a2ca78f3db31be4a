//! Answers of the REST doors: claims and lists of messages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, SERVED_MS_MAX};
use crate::{
    event::Keys,
    log::Entry,
    plan::{MALLORY, PEOPLE},
    record::{Call, Happened, Line, ListName},
};

/// An answer with a page of a list.
struct Page<'r> {
    call: &'r Call,
    sent: Line,
    got: Line,
    body: &'r Value,
}

impl<'r> Page<'r> {
    fn of(call: &'r Call, (at_ms, place): (u64, usize), body: &'r Value) -> Self {
        let line = |at_ms| Line { at_ms, place, acknowledged: call.acknowledged, what: Happened::Ended };
        Self { call, sent: line(call.at_ms), got: line(at_ms), body }
    }
}

impl Check<'_> {
    /// Checks the answers to all calls.
    pub(super) fn calls(&mut self) {
        let mut used_up = BTreeSet::new();
        for entry in &self.log.entries {
            let Entry::UsedUp(ids) = entry else { continue };
            for id in ids {
                if !used_up.insert(id.clone()) {
                    self.violations.push(super::Violation {
                        invariant: "claims",
                        text: format!("KeyPackage {id} was used up twice"),
                    });
                }
            }
        }
        let mut given = BTreeSet::new();
        let mut pages: BTreeMap<&ListName, Vec<Page<'_>>> = BTreeMap::new();
        for call in &self.record.calls {
            let Some((at_ms, place, status, body)) = &call.answer else { continue };
            let in_trouble = self.in_trouble(call.instance, call.at_ms, *at_ms);
            if call.who != MALLORY && !in_trouble {
                let took_ms = at_ms - call.at_ms;
                if took_ms > SERVED_MS_MAX {
                    self.violated("served", format!("{} waited {took_ms} ms for {}", PEOPLE[call.who], call.path));
                }
                if !matches!(status, 200 | 404) {
                    let text = format!("{} got {status} for {}: {body}", PEOPLE[call.who], call.path);
                    self.violated("answer", text);
                }
            }
            if *status != 200 {
                continue;
            }
            match &call.list {
                None => self.claim(call, body, &used_up, &mut given),
                Some(name) => pages.entry(name).or_default().push(Page::of(call, (*at_ms, *place), body)),
            }
        }
        for (name, pages) in pages {
            self.list(name, &pages);
        }
    }

    fn claim(&mut self, call: &Call, body: &Value, used_up: &BTreeSet<String>, given: &mut BTreeSet<String>) {
        for package in body["keypackages"].as_array().into_iter().flatten() {
            let id = package["event"]["id"].as_str().unwrap_or_default().to_owned();
            if package["last_resort"] == true {
                continue;
            }
            if !used_up.contains(&id) {
                self.violated("claims", format!("{} was given {id}, which was not used up", PEOPLE[call.who]));
            }
            if !given.insert(id.clone()) {
                self.violated("claims", format!("{} was given {id}, as another was", PEOPLE[call.who]));
            }
        }
    }

    /// Checks a list that a person caught up on: its pages have each event once, in the order of the log, and after the
    /// last page none is missing.
    fn list(&mut self, name: &ListName, pages: &[Page<'_>]) {
        let who = PEOPLE[name.who];
        let keys = [Keys::of(who).hex];
        let Some(filter) = self.record.lists.get(name).map(|list| list.filter.clone()) else { return };
        let mut all: Vec<&str> = Vec::new();
        for Page { call, sent, got, body } in pages {
            let window = (sent, got, self.clock_slack_ms(call.instance, sent.at_ms, got.at_ms));
            let events = body["events"].as_array().into_iter().flatten();
            for id in events.filter_map(|event| event["id"].as_str()) {
                all.push(id);
                self.looked_at.1 += 1;
                let stored = self.log.place(id).and_then(|place| Some((place, self.log.event(place)?)));
                let may = |(place, event)| self.may_be_stored(place, event, &keys, &filter, window);
                if !stored.is_some_and(may) {
                    self.violated("reading", format!("{who} got event {id} for {}", call.path));
                }
            }
        }
        let places: Vec<Option<usize>> = all.iter().map(|id| self.log.place(id)).collect();
        if !places.is_sorted_by(|one, other| one < other) {
            self.violated("complete", format!("{who} got {} twice or out of the log's order", name.path));
        }
        let Some(Page { call, sent, got, body }) = pages.last() else { return };
        if body["has_more"] != false {
            return;
        }
        let window = (sent, got, self.clock_slack_ms(call.instance, sent.at_ms, got.at_ms));
        for (stored, event) in self.log.events() {
            if self.must_be_stored(stored, event, &keys, &filter, window) {
                self.looked_at.0 += 1;
                if !all.contains(&event.id()) {
                    self.violated("complete", format!("{who} did not get event {} for {}", event.id(), name.path));
                }
            }
        }
    }
}
