//! The operator's program that may refuse events, by strfry's plugin protocol: one line of JSON on its standard input
//! for each event, and one on its standard output for each answer.
//!
//! Source: docs/rules.md, "Management" 12. The program is asked about events that the rules have admitted, so it can
//! refuse and never admit. One task runs it, asks it about several events at one time, and starts it anew when it ends,
//! when it is silent for too long, and when its file or the configuration changes.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use nostr_protocol::{Event, PublicKey, Rejection, Rule, UnixSecs};
use serde::Deserialize;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    sync::CancellationToken,
};

use crate::{config, manage::Management};

/// Most events that wait for the program. Further ones are refused with `error:`.
const WAITING_MAX: usize = 1_024;
/// Most events that the program is asked about at one time. Their answers fit into a pipe.
const ASKED_MAX: usize = 16;
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4_096;
/// Most bytes of a reason for a client.
const REASON_BYTES_MAX: usize = 256;
/// Milliseconds after a start before which the program is not started again.
const RESTART_MS: u64 = 500;
/// Most programs started for one event: the one that was found dead, and another.
const STARTS_MAX: usize = 2;

/// The relay's end of the program.
pub(crate) struct WritePolicy {
    questions: mpsc::Sender<Question>,
    management: Arc<Management>,
}

/// The source of an event, for the program.
pub(crate) struct Source {
    pub(crate) address: IpAddr,
    /// The primary key of the connection.
    pub(crate) authenticated: Option<PublicKey>,
}

struct Question {
    id: String,
    line: Vec<u8>,
    answer: oneshot::Sender<Result<(), Rejection>>,
}

/// The rule by which the program refuses.
const ASKED: Rule = Rule("Management", 12);

impl WritePolicy {
    /// Starts the task that runs the program that the configuration in force names.
    pub(crate) fn start(management: Arc<Management>, stopping: CancellationToken) -> Self {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        let program = Program { management: Arc::clone(&management), running: None, not_before: None };
        tokio::spawn(async move { stopping.run_until_cancelled(program.run(asked)).await });
        Self { questions, management }
    }

    /// Asks the program about an admitted event; without a program every event passes.
    ///
    /// # Errors
    /// The reason of the program, or `error:` where it gives no answer in time.
    pub(crate) async fn ask(&self, event: &Event, source: Source, now: UnixSecs) -> Result<(), Rejection> {
        let shown = self.management.shown();
        let config = &shown.config.write_policy;
        if config.plugin.is_none() {
            return Ok(());
        }
        let silent = || Rejection::error("this relay's write policy gives no answer; try again");
        let (answer, answered) = oneshot::channel();
        let question = Question { id: event.id().to_hex(), line: line(event, &source, now), answer };
        self.questions.try_send(question).map_err(|_| silent().under(ASKED))?;
        let answered = timeout(Duration::from_millis(config.timeout_ms), answered).await;
        let outcome = answered.unwrap_or_else(|_| Ok(Err(silent()))).unwrap_or_else(|_| Err(silent()));
        outcome.map_err(|refusal| refusal.under(ASKED))
    }
}

/// The question about an event, as one line.
fn line(event: &Event, source: &Source, now: UnixSecs) -> Vec<u8> {
    let (address, json) = (source.address.to_canonical(), event.json());
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let mut line = b"{\"type\":\"new\",\"event\":".to_vec();
    // A line break of the JSON lies between its tokens, where a space says the same.
    line.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    let rest = format!(",\"receivedAt\":{now},\"sourceType\":\"{family}\",\"sourceInfo\":\"{address}\"");
    line.extend_from_slice(rest.as_bytes());
    if let Some(key) = source.authenticated {
        line.extend_from_slice(format!(",\"authed\":\"{}\"", key.to_hex()).as_bytes());
    }
    line.extend_from_slice(b"}\n");
    line
}

/// An answer of the program.
#[derive(Deserialize)]
struct Answer {
    id: String,
    action: String,
    #[serde(default)]
    msg: Option<String>,
}

impl Answer {
    fn outcome(&self) -> Option<Result<(), Rejection>> {
        let refused = || Rejection::blocked("this relay's write policy refuses this event");
        match self.action.as_str() {
            "accept" => Some(Ok(())),
            "reject" => Some(Err(self.msg.as_deref().and_then(rejection).unwrap_or_else(refused))),
            // A client is never told `OK true` for an event that is not stored.
            "shadowReject" => Some(Err(refused())),
            _ => None,
        }
    }
}

/// The reason that a program gives, under its own word if it is one of NIP-01; `None` if it is empty.
fn rejection(text: &str) -> Option<Rejection> {
    let mut cut = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if cut.len() + character.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        cut.push(character);
    }
    let (word, rest) = cut.split_once(':').map_or(("", cut.as_str()), |(word, rest)| (word, rest.trim()));
    let rest = rest.to_owned();
    Some(match word {
        "invalid" => Rejection::invalid(rest),
        "restricted" => Rejection::restricted(rest),
        "rate-limited" => Rejection::rate_limited(rest),
        "error" => Rejection::error(rest),
        "blocked" => Rejection::blocked(rest),
        _ if cut.trim().is_empty() => return None,
        _ => Rejection::blocked(cut),
    })
}

/// The task that runs the program.
struct Program {
    management: Arc<Management>,
    running: Option<Running>,
    not_before: Option<Instant>,
}

struct Running {
    command: String,
    /// Time of the last change of the file that the command names.
    changed: Option<SystemTime>,
    stdin: ChildStdin,
    answers: FramedRead<ChildStdout, LinesCodec>,
    asked: HashMap<String, VecDeque<oneshot::Sender<Result<(), Rejection>>>>,
    count: usize,
    /// Time of the last answer, or of the first question since.
    heard: Instant,
    /// Killed when this is dropped.
    _child: Child,
}

impl Program {
    async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        loop {
            let limit = Duration::from_millis(self.management.shown().config.write_policy.timeout_ms);
            let Some(running) = self.running.as_mut() else {
                let Some(question) = questions.recv().await else { return };
                self.ask(question, limit).await;
                continue;
            };
            let late = running.heard + limit;
            let is_asked = running.count > 0;
            tokio::select! {
                answer = running.answers.next() => match answer {
                    Some(Ok(answer)) => running.take(&answer),
                    _ => self.end("ended, or wrote a line that is too long"),
                },
                () = sleep_until(late), if is_asked => self.end("gave no answer in time"),
                question = questions.recv(), if running.count < ASKED_MAX => {
                    let Some(question) = question else { return };
                    self.ask(question, limit).await;
                }
            }
        }
    }

    /// Hands a question to the program, which is started where it does not run.
    async fn ask(&mut self, question: Question, limit: Duration) {
        if question.answer.is_closed() {
            // Its client has been told that there was no answer.
            return;
        }
        let shown = self.management.shown();
        for _ in 0..STARTS_MAX {
            let Some(running) = self.started(&shown.config.write_policy) else { break };
            match timeout(limit, running.stdin.write_all(&question.line)).await {
                Ok(Ok(())) => {
                    if running.count == 0 {
                        running.heard = Instant::now();
                    }
                    running.count += 1;
                    running.asked.entry(question.id).or_default().push_back(question.answer);
                    return;
                }
                _ => self.end("takes no question"),
            }
        }
        // The dropped question tells its client that there was no answer.
    }

    /// The program as the configuration names it now.
    fn started(&mut self, config: &config::WritePolicy) -> Option<&mut Running> {
        let command = config.plugin.as_deref()?;
        let changed = changed(command);
        let is_current = |running: &Running| running.command == command && running.changed == changed;
        if !self.running.as_ref().is_some_and(is_current) {
            let is_changed = self.running.take().is_some();
            let now = Instant::now();
            if !is_changed && self.not_before.is_some_and(|not_before| now < not_before) {
                return None;
            }
            self.not_before = Some(now + Duration::from_millis(RESTART_MS));
            match Running::start(command, changed) {
                Ok(running) => self.running = Some(running),
                Err(error) => tracing::error!(%error, "write_policy.plugin does not start; events are refused"),
            }
        }
        self.running.as_mut()
    }

    /// Ends the program, and with it its questions, which are answered with `error:`.
    fn end(&mut self, why: &str) {
        if self.running.take().is_some() {
            tracing::error!("the program of write_policy.plugin {why}; it is started anew for the next event");
        }
    }
}

/// The time of the last change of the file that a command names, which is a path if it has no space.
fn changed(command: &str) -> Option<SystemTime> {
    if command.contains(' ') { None } else { Path::new(command).metadata().ok()?.modified().ok() }
}

impl Running {
    fn start(command: &str, changed: Option<SystemTime>) -> std::io::Result<Self> {
        let mut start = if command.contains(' ') {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", command]);
            shell
        } else {
            Command::new(command)
        };
        // Variables of the relay may hold its secrets.
        for (name, _) in config::process_environment().filter(|(name, _)| name.starts_with("RNOSTR_")) {
            start.env_remove(name);
        }
        let mut child = start.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("it has no pipes"));
        };
        Ok(Self {
            command: command.to_owned(),
            changed,
            stdin,
            answers: FramedRead::new(stdout, LinesCodec::new_with_max_length(ANSWER_BYTES_MAX)),
            asked: HashMap::new(),
            count: 0,
            heard: Instant::now(),
            _child: child,
        })
    }

    /// Takes an answer in. A line that answers nothing is passed over.
    fn take(&mut self, line: &str) {
        let answer = serde_json::from_str::<Answer>(line).ok();
        let Some((outcome, answer)) = answer.and_then(|answer| Some((answer.outcome()?, answer))) else {
            tracing::warn!("write_policy.plugin wrote a line that is no answer");
            return;
        };
        let Some(waiting) = self.asked.get_mut(&answer.id) else { return };
        if let Some(client) = waiting.pop_front() {
            self.count -= 1;
            self.heard = Instant::now();
            let _ = client.send(outcome);
        }
        if waiting.is_empty() {
            self.asked.remove(&answer.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::{
        Word,
        testing::{EventBuilder, keypair},
    };

    use super::*;

    fn outcome(action: &str, msg: Option<&str>) -> Option<Result<(), Rejection>> {
        Answer { id: String::new(), action: action.to_owned(), msg: msg.map(str::to_owned) }.outcome()
    }

    #[test]
    fn answers_are_read_as_strfry_reads_them() {
        assert_eq!(outcome("accept", None), Some(Ok(())));
        let refused = |action, msg| outcome(action, msg).expect("an answer").expect_err("a refusal");
        let rejection = refused("reject", Some("blocked: not on white-list"));
        assert_eq!(rejection.to_string(), "blocked: not on white-list");
        assert_eq!(refused("reject", Some("rate-limited: slow down")).word, Word::RateLimited);
        assert_eq!(refused("reject", Some("no thanks")).to_string(), "blocked: no thanks");
        assert_eq!(refused("reject", Some("odd: word")).to_string(), "blocked: odd: word");
        for msg in [None, Some(""), Some(" \n")] {
            assert_eq!(refused("reject", msg), refused("shadowReject", Some("accepted: not really")));
        }
        assert_eq!(outcome("maybe", None), None);
        assert!(refused("reject", Some(&"é".repeat(500))).text.len() <= REASON_BYTES_MAX);
    }

    #[test]
    fn a_question_is_one_line() {
        let event = EventBuilder::new(1).content("a\nb").event(&keypair("alice"));
        let source = Source { address: "::ffff:192.0.2.1".parse().expect("an address"), authenticated: None };
        let line = line(&event, &source, 1_795_370_831);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            (&read["type"], &read["sourceType"], &read["sourceInfo"]),
            (&"new".into(), &"IP4".into(), &"192.0.2.1".into())
        );
        assert_eq!((&read["event"]["content"], &read["receivedAt"]), (&"a\nb".into(), &1_795_370_831.into()));
    }
}
