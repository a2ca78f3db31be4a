//! `rnostr req`: asks a relay for events, and prints each as one line of JSON.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    address::Address,
    client::{self, ANSWER_SECS, Client, Connection, Message, text},
};

/// Most filters of one request.
const FILTERS_MAX: usize = 100;
/// Most stored events of one answer.
const REQUEST_EVENTS_MAX: u64 = 1_000_000;
/// Longest wait for more of an answer after a notice, in seconds.
const NOTICE_SECS: u64 = 2;
/// Time without a sign of life after which a stream asks for one, in seconds; as long again ends it.
const STREAM_SILENCE_SECS: u64 = 60;
/// Name of the subscription.
const SUBSCRIPTION: &str = "rnostr";

/// Ask a relay for events, and print each as one line of JSON
///
/// Standard output has the events alone, each with a right id and signature. With a key the command authenticates
/// first. It ends with exit code 1 and the relay's words if the relay refuses the request or sends a notice.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, the ten newest messages of a group and then each new one:\n  \
    rnostr req '{\"kinds\":[445],\"#h\":[\"grp_abc123\"]}' --limit 10 --stream \\\n    \
    --relay wss://relay.example.com --key-file my.key")]
pub(super) struct Req {
    /// Filters of NIP-01, each one JSON object; without any the command asks for everything
    #[arg(value_name = "FILTER-JSON")]
    filters: Vec<String>,
    #[command(flatten)]
    connection: Connection,
    /// Go on with new events until Ctrl-C, or until the relay ends the connection
    #[arg(long)]
    stream: bool,
    /// Ask for at most so many stored events of each filter, the newest ones
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
}

impl Req {
    pub(super) fn run(self) -> Result<(), String> {
        let filters = filters(&self.filters, self.limit)?;
        let (relay, key) = (self.connection.relay()?, self.connection.key()?);
        client::run(async {
            let mut client = Client::open(&relay, key.as_ref()).await?;
            client.subscribe(SUBSCRIPTION, &filters).await?;
            let mut reading = Reading::new(&relay, self.stream, key.is_some());
            reading.follow(&mut client, &filters).await?;
            reading.end()
        })
    }
}

/// Reads the filters, and writes the limit into each.
fn filters(texts: &[String], limit: Option<u64>) -> Result<Vec<Value>, String> {
    if texts.len() > FILTERS_MAX {
        return Err(format!("a request has at most {FILTERS_MAX} filters; send several"));
    }
    let read = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(mut filter)) => {
            if let Some(limit) = limit {
                filter.insert("limit".to_owned(), limit.into());
            }
            Ok(Value::Object(filter))
        }
        Ok(_) => Err("a filter is one JSON object, such as '{\"kinds\":[1],\"limit\":10}'".to_owned()),
        Err(error) => Err(format!("a filter is one JSON object, such as '{{\"kinds\":[1],\"limit\":10}}': {error}")),
    };
    if texts.is_empty() { Ok(vec![read("{}")?]) } else { texts.iter().map(|text| read(text)).collect() }
}

/// The next step after a message.
enum Step {
    GoOn,
    /// The relay closed the request for this reason.
    Closed(String),
    End,
}

/// An answer as far as it was read.
struct Reading<'a> {
    relay: &'a Address,
    stream: bool,
    has_key: bool,
    is_live: bool,
    events: u64,
    /// Events whose id or signature is wrong.
    wrong: u64,
    notice: Option<String>,
}

impl<'a> Reading<'a> {
    const fn new(relay: &'a Address, stream: bool, has_key: bool) -> Self {
        Self { relay, stream, has_key, is_live: false, events: 0, wrong: 0, notice: None }
    }

    /// The wait for the next message.
    fn wait(&self) -> Duration {
        Duration::from_secs(match (self.is_live, &self.notice) {
            (true, _) => STREAM_SILENCE_SECS,
            (false, Some(_)) => NOTICE_SECS,
            (false, None) => ANSWER_SECS,
        })
    }

    async fn follow(&mut self, client: &mut Client, filters: &[Value]) -> Result<(), String> {
        let mut until = Instant::now() + self.wait();
        let mut is_asked = false;
        loop {
            let Some(message) = client.next(until).await? else {
                if !self.is_live || is_asked {
                    return Err(self.silence());
                }
                client.ping().await?;
                is_asked = true;
                until = Instant::now() + self.wait();
                continue;
            };
            let before = self.progress();
            let step = self.take(message, &mut io::stdout().lock())?;
            // A relay that sends anything else does not prolong the wait for stored events.
            let mut prolongs = self.is_live || self.progress() != before;
            match step {
                Step::GoOn => {}
                Step::End => return Ok(()),
                Step::Closed(reason) => {
                    if !(client::asks_for_auth(&reason) && client.prove().await?) {
                        return Err(self.closed(&reason));
                    }
                    client.subscribe(SUBSCRIPTION, filters).await?;
                    prolongs = true;
                }
            }
            if prolongs {
                (is_asked, until) = (false, Instant::now() + self.wait());
            }
        }
    }

    /// Progress of the answer.
    const fn progress(&self) -> (u64, bool) {
        (self.events, self.notice.is_some())
    }

    fn take(&mut self, message: Message, out: &mut impl Write) -> Result<Step, String> {
        match message {
            Message::Event { subscription, event } if subscription == SUBSCRIPTION => {
                self.events += 1;
                if !self.is_live && self.events > REQUEST_EVENTS_MAX {
                    return Err(format!("{} sent more than {REQUEST_EVENTS_MAX} stored events", self.relay.url));
                }
                match event {
                    Ok(event) => return print(&text::json_line(&event.json()), out),
                    Err(error) => self.note_wrong(&error.to_string()),
                }
            }
            Message::Eose { subscription, holds_more } if subscription == SUBSCRIPTION => {
                if holds_more {
                    eprintln!("the relay holds more events that match; ask for older ones by \"until\"");
                }
                self.is_live = true;
                return Ok(if self.stream { Step::GoOn } else { Step::End });
            }
            Message::Closed { subscription, reason } if subscription == SUBSCRIPTION => {
                return Ok(Step::Closed(reason));
            }
            Message::Notice(notice) => {
                eprintln!("the relay's notice: {notice}");
                if !self.is_live {
                    self.notice = Some(notice);
                }
            }
            _ => {}
        }
        Ok(Step::GoOn)
    }

    fn note_wrong(&mut self, error: &str) {
        if self.wrong == 0 {
            eprintln!("the relay sent an event that is none, which is not printed: {}", text::said(error));
        }
        self.wrong += 1;
    }

    fn closed(&self, reason: &str) -> String {
        format!("{} closed the request: {reason}{}", self.relay.url, client::hint(reason, self.has_key))
    }

    fn silence(&self) -> String {
        let (url, secs) = (&self.relay.url, self.wait().as_secs());
        match &self.notice {
            Some(notice) => format!("{url} does not finish its answer, and says: {notice}"),
            None if self.is_live => format!("{url} gives no sign of life for {} s", 2 * secs),
            None => format!("{url} does not answer within {secs} s"),
        }
    }

    /// The end of the command after an answer that was read to its end.
    fn end(&self) -> Result<(), String> {
        match (&self.notice, self.wrong) {
            (_, 1..) => {
                let wrong = text::count(self.wrong, "event");
                Err(format!("{} sent {wrong} with a wrong id or signature", self.relay.url))
            }
            (Some(notice), 0) => Err(format!("{} says: {notice}", self.relay.url)),
            (None, 0) => Ok(()),
        }
    }
}

/// Prints a line. A reader that has seen enough (`| head`) ends the command.
fn print(line: &str, out: &mut impl Write) -> Result<Step, String> {
    match out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Step::GoOn),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Step::End),
        Err(error) => Err(format!("cannot write: {error}")),
    }
}
