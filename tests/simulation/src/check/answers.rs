//! The answers to what a client sent: `OK`, `EOSE`, `CLOSED` and `COUNT`.

use serde_json::Value;

use super::{Check, Keys};
use crate::{
    event::Event,
    model::{Group, Model},
    record::{Happened, Line},
};

/// Something that is to be answered, and its line.
struct Open<'l> {
    line: usize,
    what: &'l Happened,
}

impl Check<'_> {
    /// Checks the answers that a connection got.
    pub(super) fn answers(&mut self, number: usize) {
        let connection = self.connection(number);
        let lines = &connection.lines;
        let mut open: Vec<Open<'_>> = Vec::new();
        // The relay handles a connection's messages one after the other.
        let mut answered_ms = 0;
        for (at, line) in lines.iter().enumerate() {
            match &line.what {
                Happened::Proof { .. } | Happened::Published(_) | Happened::Asked { .. } => {
                    open.push(Open { line: at, what: &line.what });
                }
                Happened::Closed(id) => {
                    open.retain(|it| !matches!(it.what, Happened::Asked { id: asked, .. } if asked == id));
                }
                Happened::Got(frame) => {
                    let answered = open.iter().position(|it| is_answer(it.what, frame));
                    if let Some(answered) = answered {
                        let it = open.remove(answered);
                        self.in_time(number, &lines[it.line], line, answered_ms);
                        answered_ms = line.at_ms;
                        self.answer(number, it.line, at, frame);
                    } else if frame[0] == "CLOSED" {
                        self.ended(number, at, frame);
                    }
                }
                Happened::Synced { id, ids } => {
                    let is_of = |it: &Open<'_>| matches!(it.what, Happened::Asked { id: asked, .. } if asked == id);
                    if let Some(answered) = open.iter().position(is_of) {
                        let it = open.remove(answered);
                        self.in_time(number, &lines[it.line], line, answered_ms);
                        answered_ms = line.at_ms;
                        self.synced(number, it.line, at, ids);
                    }
                }
                Happened::Ended => {
                    self.disconnected(number, at);
                    for it in open.drain(..) {
                        self.in_time(number, &lines[it.line], line, answered_ms);
                    }
                }
            }
        }
        let waited_ms = connection.lines.last().map_or(0, |line| line.at_ms);
        if self.is_honest(number)
            && connection.greeted_ms.unwrap_or(waited_ms) > self.due_ms(connection.instance, connection.opened_ms)
        {
            self.violated("served", format!("{} waited for its challenge", self.name(number)));
        }
    }

    /// Checks that something was answered in time, or that the connection ended before that.
    fn in_time(&mut self, number: usize, sent: &Line, end: &Line, answered_ms: u64) {
        let due_ms = self.due_ms(self.connection(number).instance, sent.at_ms.max(answered_ms));
        if self.is_honest(number) && end.at_ms > due_ms {
            let waited_ms = end.at_ms - sent.at_ms;
            let text = format!("{} waited {waited_ms} ms for the answer to {}", self.name(number), short(&sent.what));
            self.violated("served", text);
        }
    }

    fn answer(&mut self, number: usize, asked: usize, at: usize, frame: &Value) {
        let connection = self.connection(number);
        let (sent, got) = (&connection.lines[asked], &connection.lines[at]);
        let in_trouble = self.in_trouble(connection.instance, sent.at_ms, got.at_ms);
        let keys = Self::keys_before(&connection.lines, asked);
        match &sent.what {
            Happened::Published(event) => self.ok(number, (sent, got), event, &keys, frame),
            // A session ends where a group was shut to its reader meanwhile (docs/rules.md, "Who may publish, who may
            // read" 11).
            Happened::Asked { .. }
                if frame[0] == "NEG-ERR"
                    && frame[2].as_str().is_some_and(|reason| reason.starts_with("closed:"))
                    && self.model.changes_between(sent.acknowledged, got.place) => {}
            Happened::Asked { filter, .. } if frame[0] == "CLOSED" || frame[0] == "NEG-ERR" => {
                self.refused(number, filter, &keys, in_trouble, &frame[2]);
            }
            Happened::Asked { filter, verb: "COUNT", .. } => {
                let count = frame[2]["count"].as_u64().unwrap_or(u64::MAX);
                let keys = Keys { possible: Self::keys_before(&connection.lines, at).possible, ..keys };
                self.counted(number, (sent, got), filter, &keys, count);
            }
            Happened::Proof { .. } if frame[2] == false && !in_trouble => {
                let text = format!("{} could not prove its key: {frame}", self.name(number));
                self.violated("answer", text);
            }
            _ => {}
        }
    }

    /// Checks the answer to an event.
    fn ok(&mut self, number: usize, (sent, got): (&Line, &Line), event: &Event, keys: &Keys, frame: &Value) {
        let place = self.log.place(event.id()).filter(|place| *place < got.place);
        let reason = frame[3].as_str().unwrap_or_default();
        let instance = self.connection(number).instance;
        let in_trouble = self.in_trouble(instance, sent.at_ms, got.at_ms);
        if frame[2] == true {
            if place.is_none() {
                let text = format!("{} got {frame}, and the log does not have the event", self.name(number));
                self.violated("answer", text);
            }
            return;
        }
        let word = reason.split(':').next().unwrap_or_default();
        if place.is_some_and(|place| place >= sent.place) && word != "error" && self.times_published(event.id()) == 1 {
            let text = format!("{} got {frame}, and the log has the event", self.name(number));
            self.violated("answer", text);
        }
        let is_wrong = match word {
            "error" => !in_trouble,
            "rate-limited" => self.is_honest(number),
            "restricted" | "auth-required" => self.is_sure_member(event, keys, sent, got),
            _ => false,
        };
        if is_wrong && self.is_honest(number) {
            let text = format!("{} was refused without a cause: {frame}", self.name(number));
            self.violated("answer", text);
        }
    }

    fn times_published(&self, id: &str) -> usize {
        let lines = self.record.connections.iter().flat_map(|connection| &connection.lines);
        lines.filter(|line| matches!(&line.what, Happened::Published(event) if event.id() == id)).count()
    }

    /// Whether the event is a group message of a reader that was a member in every state that could count.
    fn is_sure_member(&self, event: &Event, keys: &Keys, sent: &Line, got: &Line) -> bool {
        let Some(group) = event.group().filter(|_| event.kind() == 445) else { return false };
        (sent.acknowledged..=got.place).all(|place| match self.model.groups_at(place).get(group) {
            Some(Group::Managed { members, .. }) => keys.sure.iter().any(|key| members.contains_key(key)),
            Some(Group::Unlisted) => true,
            None => false,
        })
    }

    /// Checks the refusal of a request.
    fn refused(&mut self, number: usize, filter: &Value, keys: &Keys, in_trouble: bool, reason: &Value) {
        let reason = reason.as_str().unwrap_or_default();
        let is_right = match reason.split(':').next().unwrap_or_default() {
            "auth-required" => Model::needs_key(filter, &keys.sure),
            "error" => in_trouble,
            _ => false,
        };
        if !is_right && self.is_honest(number) {
            let text = format!("{} was refused {filter} without a cause: {reason}", self.name(number));
            self.violated("answer", text);
        }
    }

    /// Checks a number of events: some that the reader may read by a state that could count, all that it may read by
    /// every one.
    fn counted(&mut self, number: usize, (sent, got): (&Line, &Line), filter: &Value, keys: &Keys, count: u64) {
        let instance = self.connection(number).instance;
        let slack_ms = self.clock_slack_ms(instance, sent.at_ms, got.at_ms);
        let window = (sent, got, slack_ms);
        let (mut least, mut most) = (0, 0);
        for (place, event) in self.log.events() {
            least += u64::from(self.must_be_stored(place, event, &keys.sure, filter, window));
            most += u64::from(self.may_be_stored(place, event, &keys.possible, filter, window));
        }
        if count < least && self.is_honest(number) {
            let text = format!("{} counted {count} by {filter}, of at least {least}", self.name(number));
            self.violated("complete", text);
        }
        if count > most {
            let text = format!("{} counted {count} by {filter}, of at most {most}", self.name(number));
            self.violated("reading", text);
        }
    }

    /// Checks the ids that a NIP-77 session found, as a count is checked.
    fn synced(&mut self, number: usize, asked: usize, at: usize, ids: &[String]) {
        let connection = self.connection(number);
        let (sent, got) = (&connection.lines[asked], &connection.lines[at]);
        let Happened::Asked { filter, .. } = &sent.what else { return };
        let window = (sent, got, self.clock_slack_ms(connection.instance, sent.at_ms, got.at_ms));
        let sure = Self::keys_before(&connection.lines, asked).sure;
        let possible = Self::keys_before(&connection.lines, at).possible;
        for (place, event) in self.log.events() {
            let is_found = ids.iter().any(|id| id == event.id());
            self.looked_at.1 += u64::from(is_found);
            if is_found && !self.may_be_stored(place, event, &possible, filter, window) {
                let text = format!("{} synced event {} by {filter}", self.name(number), event.id());
                self.violated("reading", text);
            }
            if self.must_be_stored(place, event, &sure, filter, window) {
                self.looked_at.0 += 1;
                if !is_found && self.is_honest(number) {
                    let text = format!("{} did not sync event {} by {filter}", self.name(number), event.id());
                    self.violated("complete", text);
                }
            }
        }
    }

    /// Checks that the relay ended a subscription for a reason.
    fn ended(&mut self, number: usize, at: usize, frame: &Value) {
        let connection = self.connection(number);
        let line = &connection.lines[at];
        if self.is_honest(number) && !self.in_trouble(connection.instance, line.at_ms, line.at_ms) {
            let text = format!("{} lost a subscription without a cause: {frame}", self.name(number));
            self.violated("complete", text);
        }
    }

    /// Checks that the relay ended a connection for a reason.
    fn disconnected(&mut self, number: usize, at: usize) {
        let connection = self.connection(number);
        let line = &connection.lines[at];
        let is_wanted = connection.is_cut || connection.leaves;
        if self.is_honest(number) && !is_wanted && !self.in_trouble(connection.instance, line.at_ms, line.at_ms) {
            let text = format!("{} was disconnected without a cause", self.name(number));
            self.violated("served", text);
        }
    }
}

fn is_answer(what: &Happened, frame: &Value) -> bool {
    match what {
        Happened::Proof { id, .. } => frame[0] == "OK" && frame[1] == id.as_str(),
        Happened::Published(event) => frame[0] == "OK" && frame[1] == event.id(),
        Happened::Asked { verb: "REQ", id, .. } => {
            (frame[0] == "EOSE" || frame[0] == "CLOSED") && frame[1] == id.as_str()
        }
        Happened::Asked { verb: "NEG-OPEN", id, .. } => frame[0] == "NEG-ERR" && frame[1] == id.as_str(),
        Happened::Asked { id, .. } => (frame[0] == "COUNT" || frame[0] == "CLOSED") && frame[1] == id.as_str(),
        _ => false,
    }
}

fn short(what: &Happened) -> String {
    match what {
        Happened::Published(event) => format!("EVENT {}", event.id()),
        Happened::Asked { verb, id, .. } => format!("{verb} {id}"),
        Happened::Proof { id, .. } => format!("AUTH {id}"),
        _ => String::new(),
    }
}
