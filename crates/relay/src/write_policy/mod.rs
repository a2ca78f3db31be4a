//! The operator's program that may refuse events, by strfry's plugin protocol: one line of JSON on its standard input
//! for each event, and one on its standard output for each answer.
//!
//! Source: docs/rules.md, "Management" 12. The program is asked about events that the rules have admitted, so it can
//! refuse and never admit. An event waits for a turn first, so that the program serves the payers alike; a connection
//! and a request wait with one event each, so that their number bounds the events that wait. Then one task
//! ([`asking`]) asks the program, which is a process ([`program`]), about several events at one time.

mod answer;
mod asking;
mod program;

use std::{net::IpAddr, sync::Arc, time::Duration};

use nostr_protocol::{Event, PublicKey, Rejection, Rule, UnixSecs};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::asking::{Asking, Question};
use crate::{
    manage::Management,
    turns::{PayerHash, Turns},
};

/// Most events that the program is asked about at one time.
const ASKED_MAX: usize = 16;
/// Most of them that one payer has.
const ASKED_BY_ONE_MAX: usize = ASKED_MAX / 2;
/// Milliseconds from its start within which the program may be silent: it reads its own files first.
const START_MS_MAX: u64 = 10_000;

/// The characters that end a line for some program.
const LINE_ENDS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// The rule by which the program refuses.
const ASKED: Rule = Rule("Management", 12);

/// The relay's end of the program.
pub(crate) struct WritePolicy {
    questions: mpsc::Sender<Question>,
    turns: Arc<Turns>,
    /// Told when a program ended that never answered: events that wait are refused with it.
    given_up: Arc<Notify>,
    management: Arc<Management>,
}

/// The source of an event.
pub(crate) struct Source {
    pub(crate) address: IpAddr,
    /// The primary key of the connection.
    pub(crate) authenticated: Option<PublicKey>,
    /// The party that pays, whose events take turns with those of others.
    pub(crate) payer: PayerHash,
}

/// The longest wait of one event for its turn, or for its answer: the program may answer each of the events that were
/// asked before it just in time.
fn patience(limit: Duration) -> Duration {
    Duration::from_millis(START_MS_MAX) + limit * u32::try_from(ASKED_MAX).unwrap_or(u32::MAX)
}

impl WritePolicy {
    /// Starts the program that the configuration in force names, and the task that asks it.
    pub(crate) fn start(management: Arc<Management>, stopping: CancellationToken) -> Self {
        let (questions, asked) = mpsc::channel(ASKED_MAX);
        let given_up = Arc::<Notify>::default();
        let asking = Asking::new(Arc::clone(&management), Arc::clone(&given_up));
        tokio::spawn(async move { stopping.run_until_cancelled(asking.run(asked)).await });
        Self { questions, turns: Turns::new(ASKED_MAX, ASKED_BY_ONE_MAX), given_up, management }
    }

    /// Whether there is a program to ask.
    pub(crate) fn asks(&self) -> bool {
        self.management.shown().config.write_policy.plugin.is_some()
    }

    /// Asks the program about an admitted event; without a program every event passes.
    ///
    /// # Errors
    /// The reason of the program, or `error:` where it gives no answer in time.
    pub(crate) async fn ask(&self, event: &Event, source: Source, now: UnixSecs) -> Result<(), Rejection> {
        if !self.asks() {
            return Ok(());
        }
        let silent = || Rejection::error("this relay's write policy gives no answer; try again").under(ASKED);
        let limit = Duration::from_millis(self.management.shown().config.write_policy.timeout_ms);
        let turn = tokio::select! {
            // The end of a program gives its turns to events that are given up with it.
            biased;
            () = self.given_up.notified() => return Err(silent()),
            // The task has ended, as the relay stops.
            () = self.questions.closed() => return Err(silent()),
            turn = timeout(patience(limit), self.turns.take(source.payer)) => turn.map_err(|_| silent())?,
        };
        // The line is made now, so that no event that waits has a copy.
        let (question, answered) = Question::new(event.id().to_hex(), line(event, &source, now), turn);
        self.questions.send(question).await.map_err(|_| silent())?;
        let outcome = answered.await.unwrap_or_else(|_| Err(silent()));
        outcome.map_err(|refusal| refusal.under(ASKED))
    }
}

/// The question about an event, as one line.
fn line(event: &Event, source: &Source, now: UnixSecs) -> Vec<u8> {
    let (address, json) = (source.address.to_canonical(), event.json());
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let mut line = b"{\"type\":\"new\",\"event\":".to_vec();
    push_on_one_line(&mut line, &json);
    let rest = format!(",\"receivedAt\":{now},\"sourceType\":\"{family}\",\"sourceInfo\":\"{address}\"");
    line.extend_from_slice(rest.as_bytes());
    if let Some(key) = source.authenticated {
        line.extend_from_slice(format!(",\"authed\":\"{}\"", key.to_hex()).as_bytes());
    }
    line.extend_from_slice(b"}\n");
    line
}

/// Appends an event's JSON without a character that the readers of some languages take for the end of a line, as Node's
/// do with U+2028 and U+2029: a program that reads half an event may end, and its relay would take no event.
fn push_on_one_line(line: &mut Vec<u8>, json: &[u8]) {
    let json = String::from_utf8_lossy(json);
    let mut rest = &*json;
    while let Some((at, end)) = rest.char_indices().find(|(_, character)| LINE_ENDS.contains(character)) {
        line.extend_from_slice(&rest.as_bytes()[..at]);
        // Line feeds lie between the tokens of JSON, where a space says the same; the others lie in strings.
        match end {
            '\n' | '\r' => line.push(b' '),
            _ => line.extend_from_slice(format!("\\u{:04x}", u32::from(end)).as_bytes()),
        }
        rest = &rest[at + end.len_utf8()..];
    }
    line.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    #[test]
    fn a_question_is_one_line() {
        let content = "a\nb\u{2028}c\u{2029}\u{2029}\u{85}d\\u2028";
        let event = EventBuilder::new(1).content(content).tag(&["t", "\u{2028}"]).event(&keypair("alice"));
        let raw = String::from_utf8_lossy(&event.json()).matches(LINE_ENDS).count();
        assert_eq!(raw, 5, "the sender wrote them as they are");
        let address = "::ffff:192.0.2.1".parse().expect("an address");
        let line = line(&event, &Source { address, authenticated: None, payer: 0 }, 1_795_370_831);
        let text = std::str::from_utf8(&line).expect("text");
        assert_eq!(text.matches(LINE_ENDS).count(), 1, "{text}");
        assert!(text.ends_with('\n'));
        let read: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            (&read["type"], &read["sourceType"], &read["sourceInfo"]),
            (&"new".into(), &"IP4".into(), &"192.0.2.1".into())
        );
        assert_eq!((&read["event"]["content"], &read["receivedAt"]), (&content.into(), &1_795_370_831.into()));
        assert_eq!(read["event"]["tags"][0][1], "\u{2028}");
    }
}
