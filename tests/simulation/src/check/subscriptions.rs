//! Subscriptions: which events come, how often, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, end_ms};
use crate::{
    event::Event,
    record::{Happened, Line},
};

/// Time for which an event that a live subscription must get has to be far from its end, in milliseconds.
const LIVE_END_MS_MIN: u64 = 30_000;

/// The line of a request, the line of an answer, and the error of the clock.
pub(super) type Window<'l> = (&'l Line, &'l Line, u64);

/// A subscription of a connection.
struct Subscription<'l> {
    asked: usize,
    filter: &'l Value,
    stored: Vec<(usize, Event)>,
    live: Vec<(usize, Event)>,
    /// The line of `EOSE`.
    complete: Option<usize>,
    has_ended: bool,
}

impl Check<'_> {
    /// Checks the subscriptions of a connection.
    pub(super) fn subscriptions(&mut self, number: usize) {
        let lines = &self.connection(number).lines;
        let mut subscriptions: BTreeMap<&str, Subscription<'_>> = BTreeMap::new();
        for (at, line) in lines.iter().enumerate() {
            match &line.what {
                Happened::Asked { verb: "REQ", id, filter } => {
                    let (stored, live) = (Vec::new(), Vec::new());
                    let new = Subscription { asked: at, filter, stored, live, complete: None, has_ended: false };
                    subscriptions.insert(id, new);
                }
                Happened::Closed(id) => {
                    if let Some(it) = subscriptions.get_mut(id.as_str()) {
                        it.has_ended = true;
                    }
                }
                Happened::Ended if line.at_ms > self.record.settled_ms => {}
                Happened::Ended => subscriptions.values_mut().for_each(|it| it.has_ended = true),
                Happened::Got(frame) => {
                    let Some(it) = frame[1].as_str().and_then(|id| subscriptions.get_mut(id)) else { continue };
                    match frame[0].as_str() {
                        Some("EVENT") => {
                            let list = if it.complete.is_some() { &mut it.live } else { &mut it.stored };
                            list.push((at, Event::of(frame[2].clone())));
                        }
                        Some("EOSE") => it.complete = Some(at),
                        Some("CLOSED") => it.has_ended = true,
                        _ => {}
                    }
                }
                Happened::Proof { .. } | Happened::Published(_) | Happened::Asked { .. } | Happened::Synced { .. } => {}
            }
        }
        for it in subscriptions.values() {
            self.order(number, it);
            self.reading(number, it);
            if self.is_honest(number) {
                self.complete(number, it);
            }
        }
    }

    /// Each event once, stored ones from the newest on, live ones in the order of the log.
    fn order(&mut self, number: usize, it: &Subscription<'_>) {
        let mut seen = BTreeSet::new();
        let all = it.stored.iter().chain(&it.live);
        let twice: Vec<&str> = all.map(|(_, event)| event.id()).filter(|id| !seen.insert(*id)).collect();
        if let Some(id) = twice.first() {
            let text = format!("{} got event {id} twice by {}", self.name(number), it.filter);
            self.violated("complete", text);
        }
        let is_before = |one: &Event, other: &Event| {
            (std::cmp::Reverse(one.created_at()), one.id()) <= (std::cmp::Reverse(other.created_at()), other.id())
        };
        if !it.stored.is_sorted_by(|(_, one), (_, other)| is_before(one, other)) {
            let text = format!("{} got stored events out of order by {}", self.name(number), it.filter);
            self.violated("complete", text);
        }
        let places: Vec<Option<usize>> = it.live.iter().map(|(_, event)| self.log.place(event.id())).collect();
        if !places.is_sorted() {
            let text = format!("{} got live events out of the log's order by {}", self.name(number), it.filter);
            self.violated("complete", text);
        }
    }

    /// No event that the reader may not read.
    fn reading(&mut self, number: usize, it: &Subscription<'_>) {
        let connection = self.connection(number);
        let lines = &connection.lines;
        let sent = &lines[it.asked];
        for (list, is_live) in [(&it.stored, false), (&it.live, true)] {
            for (at, event) in list {
                self.looked_at.1 += 1;
                let got = &lines[*at];
                let keys = Self::keys_before(lines, *at).possible;
                let Some(place) = self.log.place(event.id()).filter(|place| *place < got.place) else {
                    self.violated(
                        "reading",
                        format!("{} got event {}, which is in no log", self.name(number), event.id()),
                    );
                    continue;
                };
                let slack_ms = self.clock_slack_ms(connection.instance, sent.at_ms, got.at_ms);
                let is_right = if is_live {
                    (place + 1..=got.place).any(|state| self.model.may_read(event, &keys, it.filter, state))
                } else {
                    self.may_be_stored(place, event, &keys, it.filter, (sent, got, slack_ms))
                };
                if !is_right {
                    let way = if is_live { "live" } else { "stored" };
                    let text = format!(
                        "{} got event {} (kind {}, place {place}) {way} by {}, between places {} and {}",
                        self.name(number),
                        event.id(),
                        event.kind(),
                        it.filter,
                        sent.acknowledged,
                        got.place
                    );
                    self.violated("reading", text);
                }
            }
        }
    }

    /// Every event that the reader must get.
    fn complete(&mut self, number: usize, it: &Subscription<'_>) {
        let Some(complete) = it.complete else { return };
        let connection = self.connection(number);
        let lines = &connection.lines;
        let (sent, eose) = (&lines[it.asked], &lines[complete]);
        let keys = Self::keys_before(lines, it.asked).sure;
        // A key that is proved later counts for the events behind the answer to its proof.
        let proofs: Vec<(usize, String)> = (it.asked..lines.len())
            .filter(|at| matches!(&lines[*at].what, Happened::Got(frame) if frame[0] == "OK"))
            .flat_map(|at| Self::keys_before(lines, at + 1).sure.into_iter().map(move |key| (lines[at].place, key)))
            .collect();
        let slack_ms = self.clock_slack_ms(connection.instance, sent.at_ms, eose.at_ms);
        let stored: BTreeSet<&str> = it.stored.iter().map(|(_, event)| event.id()).collect();
        let live: BTreeSet<&str> = it.live.iter().map(|(_, event)| event.id()).collect();
        let mut missing = Vec::new();
        for (place, event) in self.log.events() {
            if self.must_be_stored(place, event, &keys, it.filter, (sent, eose, slack_ms)) {
                self.looked_at.0 += 1;
                if !stored.contains(event.id()) {
                    missing.push(format!("stored event {} (kind {}, place {place})", event.id(), event.kind()));
                }
                continue;
            }
            let proved = proofs.iter().filter(|(at, _)| *at <= place).map(|(_, key)| key.clone());
            let keys: Vec<String> = keys.iter().cloned().chain(proved).collect();
            if !it.has_ended && self.must_come_live(place, event, &keys, it.filter, eose) {
                self.looked_at.0 += 1;
                if !live.contains(event.id()) && !stored.contains(event.id()) {
                    missing.push(format!("live event {} (kind {}, place {place})", event.id(), event.kind()));
                }
            }
        }
        if let Some(first) = missing.first() {
            let text = format!(
                "{} did not get {first} by {}, asked at place {}, complete at {}, and {} in all",
                self.name(number),
                it.filter,
                sent.acknowledged,
                eose.place,
                missing.len()
            );
            self.violated("complete", text);
        }
    }

    /// Whether queries find events of this kind.
    fn is_kept(&self, event: &Event) -> bool {
        !event.is_ephemeral() && (self.setup.has_archive || !matches!(event.kind(), 445 | 446))
    }

    /// Whether an answer from the archive may hold the event, by one of the states that could count.
    pub(super) fn may_be_stored(
        &self,
        place: usize,
        event: &Event,
        keys: &[String],
        filter: &Value,
        (sent, got, slack_ms): Window<'_>,
    ) -> bool {
        let is_over = end_ms(event).is_some_and(|end_ms| sent.at_ms >= end_ms + slack_ms);
        let states = sent.acknowledged.max(place + 1)..=got.place;
        let mut states = states.filter(|state| self.model.is_there(place, *state));
        self.is_kept(event) && !is_over && states.any(|state| self.model.may_read(event, keys, filter, state))
    }

    /// Whether an answer from the archive must hold the event, by all states that could count.
    pub(super) fn must_be_stored(
        &self,
        place: usize,
        event: &Event,
        keys: &[String],
        filter: &Value,
        (sent, got, slack_ms): Window<'_>,
    ) -> bool {
        let is_over = end_ms(event).is_some_and(|end_ms| got.at_ms + slack_ms >= end_ms);
        let is_always = |state| self.model.is_there(place, state) && self.model.may_read(event, keys, filter, state);
        place < sent.acknowledged && self.is_kept(event) && !is_over && (sent.acknowledged..=got.place).all(is_always)
    }

    /// Whether a subscription that lasts to the end must get the event, live if it did not get it from the archive.
    fn must_come_live(&self, place: usize, event: &Event, keys: &[String], filter: &Value, eose: &Line) -> bool {
        let due_ms = self.log.at_ms[place].max(eose.at_ms) + LIVE_END_MS_MIN;
        let ends_soon = end_ms(event).is_some_and(|end_ms| end_ms < due_ms);
        (place >= eose.place || self.is_kept(event))
            && self.model.stays(place)
            && !ends_soon
            && (place + 1..=self.model.end()).all(|state| self.model.may_read(event, keys, filter, state))
    }
}
