//! `rnostr publish`: publishes signed events, or one that it makes, and prints the relay's answer to each.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nostr_protocol::{Event, Kind, Unverified};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use super::{
    address::Address,
    client::{
        self, ANSWER_SECS, Answer, Client, Connection, Draft, Message, sign,
        text::{count, said},
    },
};

/// Most events that are sent before the relay has answered one of them.
const UNANSWERED_MAX: usize = 32;
/// Most bytes of a line.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Most lines that are read ahead.
const LINES_AHEAD_MAX: usize = 4;

/// Publish events, and print the relay's answer to each
///
/// Reads signed events, one a line, or makes and signs one with --kind. It prints `ok ID` or `refused ID REASON` for
/// each, and ends with exit code 1 if one was refused or has no answer. With a key it authenticates first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    rnostr publish events.jsonl --relay wss://relay.example.com\n  \
    rnostr publish --kind 1 --content 'good morning' --tag t=morning \\\n    \
    --relay wss://relay.example.com --key-file my.key")]
pub(super) struct Publish {
    /// The file with one signed event a line, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
    /// Make an event of this kind, and sign it with your key
    #[arg(long, value_name = "NUMBER", conflicts_with = "file")]
    kind: Option<u16>,
    /// The event's content; without it the content is empty
    #[arg(long, value_name = "TEXT", requires = "kind")]
    content: Option<String>,
    /// A tag of the event: its name and its value; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", requires = "kind")]
    tags: Vec<String>,
}

impl Publish {
    pub(super) fn run(self) -> Result<(), String> {
        let relay = self.connection.relay()?;
        let (key, lines) = match self.kind {
            Some(kind) => {
                let key = self.connection.signing_key()?;
                let event = sign(&self.draft(Kind(kind))?, &key)?;
                (Some(key), one_line(event.json().to_vec()))
            }
            None => (self.connection.key()?, lines(source(self.file.as_deref())?)),
        };
        client::run(async {
            let client = Client::open(&relay, key.as_ref()).await?;
            Publication::new(client, &relay, key.is_some()).run(lines).await
        })
    }

    fn draft(&self, kind: Kind) -> Result<Draft, String> {
        let mut draft = Draft::new(kind).content(self.content.clone().unwrap_or_default());
        for tag in &self.tags {
            let (name, value) = tag
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("--tag {}: write a name and a value, such as p=KEY", said(tag)))?;
            draft = draft.tag(&[name, value]);
        }
        Ok(draft)
    }
}

/// A line of the input, or the reason why there is no further one.
type Line = Result<Vec<u8>, String>;

fn source(file: Option<&Path>) -> Result<Box<dyn BufRead + Send>, String> {
    match file {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Box::new(BufReader::new(file)))
        }
        None if io::stdin().is_terminal() => {
            Err("name a file of signed events, or - for standard input; or make an event with --kind".to_owned())
        }
        _ => Ok(Box::new(BufReader::new(io::stdin()))),
    }
}

/// Reads lines in a thread of its own, since the connection must go on while the input has none.
fn lines(mut source: Box<dyn BufRead + Send>) -> Receiver<Line> {
    let (sender, receiver) = channel(LINES_AHEAD_MAX);
    std::thread::spawn(move || {
        loop {
            let line = read_line(&mut *source);
            let is_last = !matches!(line, Ok(Some(_)));
            if let Some(line) = line.transpose()
                && sender.blocking_send(line).is_err()
            {
                return;
            }
            if is_last {
                return;
            }
        }
    });
    receiver
}

fn one_line(line: Vec<u8>) -> Receiver<Line> {
    let (sender, receiver) = channel(1);
    // The channel is empty, so the line fits.
    let _ = sender.try_send(Ok(line));
    receiver
}

/// The next line without its end; `None` at the end of the input.
fn read_line(source: &mut dyn BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let read = source.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
    read.map_err(|error| format!("the input cannot be read: {error}"))?;
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("a line is longer than {LINE_BYTES_MAX} bytes; nothing behind it is published"));
    }
    if line.is_empty() { Ok(None) } else { Ok(Some(line.trim_ascii().to_vec())) }
}

/// Events on their way to the relay.
struct Publication<'a> {
    client: Client,
    relay: &'a Address,
    has_key: bool,
    /// Events that the relay has not answered.
    unanswered: VecDeque<Event>,
    published: u64,
    refused: u64,
    /// Lines that were read.
    lines: u64,
    /// Whether there may be further lines.
    is_open: bool,
}

impl<'a> Publication<'a> {
    const fn new(client: Client, relay: &'a Address, has_key: bool) -> Self {
        Self { client, relay, has_key, unanswered: VecDeque::new(), published: 0, refused: 0, lines: 0, is_open: true }
    }

    async fn run(mut self, mut lines: Receiver<Line>) -> Result<(), String> {
        let sent = self.send_all(&mut lines).await;
        for event in &self.unanswered {
            // The lines before were printed, so this one is worth a try.
            let _ = say(&format!("unanswered {}", event.id()));
        }
        sent.map_err(|why| match self.is_open {
            true => format!("{why}; nothing behind line {} of the input was sent", self.lines),
            false => why,
        })?;
        match (self.refused, self.refused + self.published) {
            (0, 0) => Err("the input has no events".to_owned()),
            (0, _) => Ok(()),
            (refused, all) => Err(format!("{refused} of {all} events were refused")),
        }
    }

    async fn send_all(&mut self, lines: &mut Receiver<Line>) -> Result<(), String> {
        let mut fault = None;
        let mut until = Instant::now() + Duration::from_secs(ANSWER_SECS);
        while self.is_open || !self.unanswered.is_empty() {
            tokio::select! {
                line = lines.recv(), if self.is_open && self.unanswered.len() < UNANSWERED_MAX => match line {
                    Some(Ok(line)) => {
                        self.lines += 1;
                        if self.unanswered.is_empty() {
                            until = Instant::now() + Duration::from_secs(ANSWER_SECS);
                        }
                        self.send(&line).await?;
                    }
                    Some(Err(reason)) => (fault, self.is_open) = (Some(reason), false),
                    None => self.is_open = false,
                },
                message = self.client.next(until) => {
                    let is_answer = match message? {
                        Some(message) => self.take(message).await?,
                        None if self.unanswered.is_empty() => true,
                        None => return Err(self.silence()),
                    };
                    if is_answer {
                        until = Instant::now() + Duration::from_secs(ANSWER_SECS);
                    }
                }
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// Sends the event of a line; says of a line without one that it was not sent.
    async fn send(&mut self, line: &[u8]) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        match Unverified::parse(line) {
            Ok(unverified) => {
                let event = unverified.event().clone();
                self.unanswered.push_back(event.clone());
                Ok(self.client.submit(&event).await?)
            }
            Err(error) => {
                self.refused += 1;
                say(&format!("refused line {}: not sent: {}", self.lines, said(&error.to_string())))
            }
        }
    }

    /// Takes a message, and returns whether it answers an event.
    async fn take(&mut self, message: Message) -> Result<bool, String> {
        match message {
            Message::Ok { id, answer } => self.answered(&id, answer).await,
            Message::Notice(notice) => {
                eprintln!("the relay's notice: {notice}");
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    async fn answered(&mut self, id: &str, Answer { accepted, reason }: Answer) -> Result<bool, String> {
        let Some(at) = self.unanswered.iter().position(|event| event.id().to_hex() == id) else { return Ok(false) };
        let Some(event) = self.unanswered.remove(at) else { return Ok(false) };
        if !accepted && client::asks_for_auth(&reason) && self.client.prove().await? {
            self.client.submit(&event).await?;
            self.unanswered.push_back(event);
            return Ok(true);
        }
        if accepted {
            self.published += 1;
            say(format!("ok {id} {reason}").trim_end())?;
        } else {
            self.refused += 1;
            say(&format!("refused {id} {reason}{}", client::hint(&reason, self.has_key)))?;
        }
        Ok(true)
    }

    fn silence(&self) -> String {
        let (url, waiting) = (&self.relay.url, self.unanswered.len());
        format!("{url} does not answer within {ANSWER_SECS} s; without an answer: {}", count(waiting, "event"))
    }
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout().lock(), "{line}").map_err(|error| format!("cannot write: {error}"))
}
