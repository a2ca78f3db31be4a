//! The task that asks the program: it starts the program with the relay, asks it about several events at one time, and
//! starts it anew when it ends, when it is silent for too long, and when its file or the configuration changes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use nostr_protocol::Rejection;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{ASKED_MAX, START_MS_MAX, answer::Answer, patience, program::Program};
use crate::{manage::Management, turns::Turn};

/// Milliseconds after a start before which the program is not started again.
const RESTART_MS: u64 = 500;

/// The client's end of a question.
type Client = oneshot::Sender<Result<(), Rejection>>;

/// An event to ask about.
pub(super) struct Question {
    id: String,
    line: Vec<u8>,
    client: Client,
    /// Held until the program has answered or is given up, also where the client has gone.
    turn: Turn,
}

impl Question {
    pub(super) fn new(id: String, line: Vec<u8>, turn: Turn) -> (Self, oneshot::Receiver<Result<(), Rejection>>) {
        let (client, answered) = oneshot::channel();
        (Self { id, line, client, turn }, answered)
    }
}

/// See the module.
pub(super) struct Asking {
    management: Arc<Management>,
    running: Option<Running>,
    not_before: Option<Instant>,
    given_up: Arc<Notify>,
}

/// A program that runs, and the questions that it has not answered.
struct Running {
    program: Program,
    /// By the event's id. Clients of one event are answered in their order.
    asked: HashMap<String, VecDeque<Asked>>,
    started: Instant,
    /// Time of the last answer, or of the first question since.
    heard: Instant,
    has_answered: bool,
}

struct Asked {
    client: Client,
    at: Instant,
    _turn: Turn,
}

impl Asking {
    pub(super) fn new(management: Arc<Management>, given_up: Arc<Notify>) -> Self {
        Self { management, running: None, not_before: None, given_up }
    }

    pub(super) async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        let mut changes = self.management.changes();
        // The first event does not wait for the start.
        self.started();
        loop {
            let limit = Duration::from_millis(self.management.shown().config.write_policy.timeout_ms);
            let Some(running) = self.running.as_mut() else {
                tokio::select! {
                    question = questions.recv() => match question {
                        Some(question) => self.ask(question),
                        None => return,
                    },
                    Ok(()) = changes.changed() => drop(self.started()),
                }
                continue;
            };
            running.forget_overdue(limit);
            let (late, is_asked) = (running.late(limit), running.is_asked());
            tokio::select! {
                answer = running.program.exchange() => match answer {
                    Some(answer) => running.take(&answer),
                    None => self.end("ended, or wrote a line that is too long"),
                },
                () = sleep_until(late), if is_asked => self.end("gave no answer in time"),
                question = questions.recv(), if running.has_room() => match question {
                    Some(question) => self.ask(question),
                    None => return,
                },
                Ok(()) = changes.changed() => drop(self.started()),
            }
        }
    }

    /// Hands a question to the program, which is started where it does not run. A question that is dropped tells its
    /// client that there was no answer.
    fn ask(&mut self, question: Question) {
        if question.client.is_closed() {
            return;
        }
        if let Some(running) = self.started() {
            running.ask(question);
        }
    }

    /// The program as the configuration names it now. One that it names no more ends.
    fn started(&mut self) -> Option<&mut Running> {
        let shown = self.management.shown();
        let Some(command) = shown.config.write_policy.plugin.as_deref() else {
            self.running = None;
            return None;
        };
        if !self.running.as_ref().is_some_and(|running| running.program.is(command)) {
            let is_changed = self.running.take().is_some();
            let now = Instant::now();
            if !is_changed && self.not_before.is_some_and(|not_before| now < not_before) {
                return None;
            }
            self.not_before = Some(now + Duration::from_millis(RESTART_MS));
            match Program::start(command) {
                Ok(program) => {
                    tracing::info!(process = program.number(), "write_policy.plugin was started");
                    self.running = Some(Running::new(program));
                }
                Err(error) => tracing::error!(%error, "write_policy.plugin does not start; events are refused"),
            }
        }
        self.running.as_mut()
    }

    /// Ends the program, and with it its questions, which are answered with `error:`. If it never answered, the events
    /// that wait are not kept waiting for another one of its sort.
    fn end(&mut self, why: &str) {
        if let Some(running) = self.running.take() {
            tracing::error!("the program of write_policy.plugin {why}; it is started anew for the next event");
            if !running.has_answered {
                // The program's turns go to the events that wait when it is dropped, which is later.
                self.given_up.notify_waiters();
            }
        }
    }
}

impl Running {
    fn new(program: Program) -> Self {
        let now = Instant::now();
        Self { program, asked: HashMap::new(), started: now, heard: now, has_answered: false }
    }

    /// Whether the program may be asked another question now.
    fn has_room(&self) -> bool {
        let unanswered: usize = self.asked.values().map(VecDeque::len).sum();
        unanswered < ASKED_MAX && self.program.has_room()
    }

    /// Whether the program has a question to answer, or at least to read: one that does neither is not kept.
    fn is_asked(&self) -> bool {
        !self.asked.is_empty() || !self.program.has_read()
    }

    /// The time at which the program has been silent for too long. It has longer for its first answer.
    fn late(&self, limit: Duration) -> Instant {
        let late = self.heard + limit;
        if self.has_answered { late } else { late.max(self.started + Duration::from_millis(START_MS_MAX)) }
    }

    fn ask(&mut self, Question { id, line, client, turn }: Question) {
        let at = Instant::now();
        if self.asked.is_empty() {
            self.heard = at;
        }
        self.program.queue(line);
        self.asked.entry(id).or_default().push_back(Asked { client, at, _turn: turn });
    }

    /// Gives up questions that the program passes over while it answers others, so that they hold no place.
    fn forget_overdue(&mut self, limit: Duration) {
        let (now, patience) = (Instant::now(), patience(limit));
        self.asked.retain(|_, waiting| {
            waiting.retain(|asked| now.duration_since(asked.at) < patience);
            !waiting.is_empty()
        });
    }

    /// Takes an answer in. A line that answers nothing is passed over, and shows no life.
    fn take(&mut self, line: &str) {
        let Some((id, outcome)) = Answer::read(line) else {
            tracing::warn!("write_policy.plugin wrote a line that is no answer");
            return;
        };
        let Some(waiting) = self.asked.get_mut(&id) else { return };
        if let Some(asked) = waiting.pop_front() {
            self.heard = Instant::now();
            self.has_answered = true;
            let _ = asked.client.send(outcome);
        }
        if waiting.is_empty() {
            self.asked.remove(&id);
        }
    }
}
