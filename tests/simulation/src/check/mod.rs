//! The invariants: the record of a simulation held against the model.
//!
//! 1. *sender*: a committed event came from a client, which might send it by the state right before its commit. So one
//!    of any number of rosters with one `seq` is committed, and one commit of an epoch where the order is strict.
//! 2. *answer*: `OK true` means that the event is in the log; a refusal that it is not; a client is refused by a rule
//!    alone, and by `error:` only while something is wrong on purpose.
//! 3. *reading*: no reader gets an event that the rules forbid by every state that could count, on any way to read.
//! 4. *complete*: a reader gets every event that it may read by every state that could count: each once in a
//!    subscription, stored ones in NIP-01's order and live ones in the order of the log, unless the relay said that the
//!    subscription ended.
//! 5. *served*: an honest client is answered within [`SERVED_MS_MAX`], whatever the others do.
//! 6. *claims*: a KeyPackage is used up once, for one claimant.
//! 7. *memory*: the relay's estimate of its clients' memory stays under its bound, and ends at nothing.

mod answers;
mod calls;
mod subscriptions;

use std::fmt;

use crate::{
    log::Log,
    model::Model,
    plan::{MALLORY, Setup},
    record::{Connection, Happened, Line, Record},
    seam,
};

/// Longest wait of an honest client for an answer, in simulated milliseconds, where nothing is wrong on purpose.
pub const SERVED_MS_MAX: u64 = 4_000;
/// Time after a fault, in milliseconds, in which the instance recovers.
const RECOVERY_MS: u64 = 9_000;
/// Most bytes of clients' memory that a simulation may lead to.
const MEMORY_BYTES_MAX: usize = 32 << 20;

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// The record and the model, and the violations that were found.
pub struct Check<'r> {
    record: &'r Record,
    log: &'r Log,
    model: Model<'r>,
    setup: Setup,
    violations: Vec<Violation>,
    /// Events that a client had to get and got, and events that a client got: what the invariants looked at.
    pub looked_at: (u64, u64),
}

/// The keys of a connection at one of its lines.
#[derive(Clone, Debug, Default)]
struct Keys {
    /// Keys of which the client knows that the relay took their proofs.
    sure: Vec<String>,
    /// Keys whose proofs were sent, and not refused so far.
    possible: Vec<String>,
}

impl<'r> Check<'r> {
    /// Checks everything.
    pub fn all(record: &'r Record, log: &'r Log, setup: Setup, admin: &str) -> Self {
        let model = Model::of(log, admin);
        let mut check = Self { record, log, model, setup, violations: Vec::new(), looked_at: (0, 0) };
        for number in 0..record.connections.len() {
            check.answers(number);
            check.subscriptions(number);
        }
        check.senders();
        check.calls();
        if record.memory_most > MEMORY_BYTES_MAX {
            check.violated("memory", format!("{} bytes were in use", record.memory_most));
        }
        if record.memory_left > 0 {
            check.violated("memory", format!("{} bytes stay in use without clients", record.memory_left));
        }
        check
    }

    /// The first violations of each invariant.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Hashes of the states of groups that the log went through.
    pub fn states(&self) -> impl Iterator<Item = u64> {
        self.model.states()
    }

    fn violated(&mut self, invariant: &'static str, text: String) {
        self.violations.push(Violation { invariant, text });
    }

    fn connection(&self, number: usize) -> &'r Connection {
        &self.record.connections[number]
    }

    /// The connection as stories name it.
    fn name(&self, number: usize) -> String {
        let Connection { who, instance, .. } = self.connection(number);
        format!("{}#{number} at instance {instance}", crate::plan::PEOPLE[*who])
    }

    /// Whether something was wrong on purpose at the instance in this time, or shortly before.
    fn in_trouble(&self, instance: usize, from_ms: u64, to_ms: u64) -> bool {
        self.record.troubles.iter().any(|trouble| {
            trouble.instance == instance && trouble.from_ms <= to_ms && from_ms <= trouble.to_ms + RECOVERY_MS
        })
    }

    /// The time up to which an instance must answer something that was sent at this time.
    fn due_ms(&self, instance: usize, sent_ms: u64) -> u64 {
        let mut due_ms = sent_ms + SERVED_MS_MAX;
        let mut troubles: Vec<_> = self.record.troubles.iter().filter(|it| it.instance == instance).collect();
        troubles.sort_by_key(|trouble| trouble.from_ms);
        for trouble in troubles {
            let recovered_ms = trouble.to_ms + RECOVERY_MS;
            if trouble.from_ms <= due_ms && recovered_ms >= sent_ms {
                due_ms = due_ms.max(recovered_ms + SERVED_MS_MAX);
            }
        }
        due_ms
    }

    /// Milliseconds by which an instance may be wrong about the time.
    fn clock_slack_ms(&self, instance: usize, from_ms: u64, to_ms: u64) -> u64 {
        if self.in_trouble(instance, from_ms, to_ms) { 5_000 } else { 4 * self.setup.store_ms.1 + 100 }
    }

    fn is_honest(&self, number: usize) -> bool {
        self.connection(number).who != MALLORY
    }

    /// The keys of the connection before its line of this number.
    fn keys_before(lines: &[Line], line: usize) -> Keys {
        let mut keys = Keys::default();
        let mut sent: Vec<(&str, &str)> = Vec::new();
        for Line { what, .. } in &lines[..line] {
            match what {
                Happened::Proof { key, id } => {
                    sent.push((id, key));
                    keys.possible.push(key.clone());
                }
                Happened::Got(frame) if frame[0] == "OK" => {
                    let Some((_, key)) = sent.iter().find(|(id, _)| frame[1] == *id) else { continue };
                    if frame[2] == true {
                        keys.sure.push((*key).to_owned());
                    } else {
                        keys.possible.retain(|other| other != key);
                    }
                }
                _ => {}
            }
        }
        keys
    }

    /// Checks that each committed event came from a client that might send it.
    fn senders(&mut self) {
        let mut commits: Vec<(String, u64)> = Vec::new();
        for (place, event) in self.log.events() {
            let mut faults = Vec::new();
            let mut is_allowed = false;
            for (number, connection) in self.record.connections.iter().enumerate() {
                for (at, line) in connection.lines.iter().enumerate() {
                    let Happened::Published(published) = &line.what else { continue };
                    if published.id() != event.id() || line.place > place {
                        continue;
                    }
                    // A proof that came before counts; the relay reads a connection's messages in their order.
                    let keys = Self::keys_before(&connection.lines, at).possible;
                    match self.model.fault_of_sender(place, event, &keys) {
                        None => is_allowed = true,
                        Some(fault) => faults.push(format!("{}: {fault}", self.name(number))),
                    }
                }
            }
            let (id, kind) = (event.id().to_owned(), event.kind());
            if !is_allowed {
                let text = format!("event {id} of kind {kind} is at {place} of the log: {}", faults.join("; "));
                self.violated("sender", text);
            }
            let managed = event.group().and_then(|group| self.model.managed_at(group, place));
            if let (Some(group), Some(epoch)) = (managed, crate::world::epoch_of(event))
                && self.setup.is_strict
                && kind == 445
            {
                if commits.contains(&(group.to_owned(), epoch)) {
                    self.violated("sender", format!("epoch {epoch} of {group} has a second commit, {id}"));
                }
                commits.push((group.to_owned(), epoch));
            }
        }
    }
}

/// Milliseconds since the beginning at which an event ends, if it names its end.
fn end_ms(event: &crate::event::Event) -> Option<u64> {
    event.expiration().map(|end| end.saturating_sub(seam::BEGIN_SECS) * 1_000)
}
