//! The connection to the other relay, which is trusted with nothing: each frame, each answer and each wait has a bound.

use std::{borrow::Cow, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_protocol::{
    Kind, hex,
    sign::{SecretKey, Unsigned},
    tag::name,
};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout, timeout_at};
use yawc::{Frame, OpCode, Options, TcpWebSocket, WebSocket};

use super::super::{client::Controls, moving::now};

/// Longest wait for the connection, in seconds.
const CONNECT_SECS: u64 = 15;
/// Longest wait for the relay's challenge after the connection, in seconds. A relay may send none before it needs one.
const CHALLENGE_SECS: u64 = 3;
/// Longest wait for a whole answer, in seconds.
const ANSWER_SECS: u64 = 120;
/// Most bytes of one message of the relay.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Most bytes of the events of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most characters of the relay's words that an error repeats.
const WORDS_MAX: usize = 300;
/// Time between a refusal for the rate and the next try, in seconds.
const RATE_PAUSE_SECS: u64 = 5;
/// Most tries of one request that the relay refuses for the rate.
const RATE_TRIES_MAX: usize = 60;

/// The reason why the filling ends, in words for the operator.
#[derive(Debug)]
pub(super) struct Trouble(pub(super) String);

/// A message of the relay, as far as the filling knows it.
enum Message {
    Auth(String),
    Ok { id: String, accepted: bool, reason: String },
    Event { id: String, json: String },
    Eose { id: String },
    Closed { id: String, reason: String },
    NegMsg { id: String, message: String },
    NegErr { id: String, reason: String },
    Notice,
    Other,
}

impl Message {
    fn read(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::Other)
    }

    fn parse(text: &str) -> Option<Self> {
        let members: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let member = |at: usize| members.get(at).copied();
        let text = |at: usize| {
            let text = member(at).and_then(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()).ok());
            text.map(Cow::into_owned)
        };
        Some(match text(0)?.as_str() {
            "AUTH" => Self::Auth(text(1)?),
            "OK" => {
                Self::Ok { id: text(1)?, accepted: member(2)?.get() == "true", reason: text(3).unwrap_or_default() }
            }
            "EVENT" => Self::Event { id: text(1)?, json: member(2)?.get().to_owned() },
            "EOSE" => Self::Eose { id: text(1)? },
            "CLOSED" => Self::Closed { id: text(1)?, reason: text(2).unwrap_or_default() },
            "NEG-MSG" => Self::NegMsg { id: text(1)?, message: text(2)? },
            "NEG-ERR" => Self::NegErr { id: text(1)?, reason: text(2).unwrap_or_default() },
            "NOTICE" => Self::Notice,
            _ => Self::Other,
        })
    }
}

/// The relay's answer to a message of a reconciliation (NIP-77).
pub(super) enum NegAnswer {
    Message(Vec<u8>),
    /// The relay ends the session, or does not open it.
    Ended(String),
    /// The relay does not know NIP-77.
    Unknown,
}

/// An open connection.
pub(super) struct Connection {
    socket: TcpWebSocket,
    url: String,
    keys: Option<SecretKey>,
    challenge: Option<String>,
    is_authenticated: bool,
    /// Number of requests so far: each has an id of its own, so that a late answer is told from the next one.
    requests: u64,
    controls: Controls,
}

impl Connection {
    /// Connects, and authenticates if there is a key and the relay sends a challenge.
    pub(super) async fn open(url: &str, keys: Option<SecretKey>) -> Result<Self, Trouble> {
        let parsed = url.parse().map_err(|error| Trouble(format!("--from {url}: no URL: {error}")))?;
        let options = Options::default().with_limits(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        let connecting = async { WebSocket::connect(parsed).with_options(options).await };
        let socket = match timeout(Duration::from_secs(CONNECT_SECS), connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(Trouble(format!("no WebSocket opens at {url}: {error}"))),
            Err(_) => return Err(Trouble(format!("{url} does not answer within {CONNECT_SECS} s"))),
        };
        let url = url.to_owned();
        let controls = Controls::new();
        let mut connection =
            Self { socket, url, keys, challenge: None, is_authenticated: false, requests: 0, controls };
        if connection.keys.is_some() {
            let until = Instant::now() + Duration::from_secs(CHALLENGE_SECS);
            // An error shows again at the first request.
            while connection.challenge.is_none() {
                let Ok(_) = connection.next_until(until).await else { break };
            }
            if connection.challenge.is_some() {
                connection.authenticate().await?;
            }
        }
        Ok(connection)
    }

    /// The stored events that fit a filter, at most `most`, as their JSON. A request that needs a key, or comes too
    /// soon, is repeated.
    pub(super) async fn stored(&mut self, filter: &str, most: usize) -> Result<Vec<String>, Trouble> {
        for _ in 0..RATE_TRIES_MAX {
            match self.stored_once(filter, most).await? {
                Ok(events) => return Ok(events),
                Err(reason) => self.after_refusal(&reason).await?,
            }
        }
        Err(Trouble("the relay refuses request after request for their rate; try again later".to_owned()))
    }

    async fn stored_once(&mut self, filter: &str, most: usize) -> Result<Result<Vec<String>, String>, Trouble> {
        let request = self.new_id();
        self.write(format!("[\"REQ\",\"{request}\",{filter}]")).await?;
        let until = Instant::now() + Duration::from_secs(ANSWER_SECS);
        let (mut events, mut bytes) = (Vec::new(), 0);
        loop {
            match self.next_until(until).await? {
                Message::Event { id, json } if id == request => {
                    bytes += json.len();
                    events.push(json);
                    if events.len() > most || bytes > ANSWER_BYTES_MAX {
                        return Err(Trouble(format!(
                            "the relay answers with more than it was asked for: over {most} events, or over \
                             {ANSWER_BYTES_MAX} bytes of them"
                        )));
                    }
                }
                Message::Eose { id } if id == request => {
                    self.write(format!("[\"CLOSE\",\"{request}\"]")).await?;
                    return Ok(Ok(events));
                }
                Message::Closed { id, reason } if id == request => return Ok(Err(reason)),
                _ => {}
            }
        }
    }

    /// Opens a reconciliation. Gives its id and the relay's first answer.
    pub(super) async fn neg_open(&mut self, filter: &str, message: &[u8]) -> Result<(String, NegAnswer), Trouble> {
        for _ in 0..RATE_TRIES_MAX {
            let request = self.new_id();
            self.write(format!("[\"NEG-OPEN\",\"{request}\",{filter},\"{}\"]", hex::to_hex(message))).await?;
            match self.neg_answer(&request).await? {
                NegAnswer::Ended(reason) if is_passing(&reason) => self.after_refusal(&reason).await?,
                answer => return Ok((request, answer)),
            }
        }
        Err(Trouble("the relay refuses NEG-OPEN after NEG-OPEN for their rate; try again later".to_owned()))
    }

    /// Sends the next message of a reconciliation.
    pub(super) async fn neg_message(&mut self, request: &str, message: &[u8]) -> Result<NegAnswer, Trouble> {
        self.write(format!("[\"NEG-MSG\",\"{request}\",\"{}\"]", hex::to_hex(message))).await?;
        self.neg_answer(request).await
    }

    pub(super) async fn neg_close(&mut self, request: &str) -> Result<(), Trouble> {
        self.write(format!("[\"NEG-CLOSE\",\"{request}\"]")).await
    }

    async fn neg_answer(&mut self, request: &str) -> Result<NegAnswer, Trouble> {
        let until = Instant::now() + Duration::from_secs(ANSWER_SECS);
        loop {
            match self.next_until(until).await? {
                Message::NegMsg { id, message } if id == request => {
                    let wrong = || Trouble("the relay sends a NEG-MSG that is not hex".to_owned());
                    return Ok(NegAnswer::Message(hex::parse_any(message.as_bytes()).ok_or_else(wrong)?));
                }
                Message::NegErr { id, reason } if id == request => return Ok(NegAnswer::Ended(reason)),
                // A relay without NIP-77 answers with a notice, or closes the subscription that it takes this for.
                Message::Closed { id, reason } if id == request && is_passing(&reason) => {
                    return Ok(NegAnswer::Ended(reason));
                }
                Message::Closed { id, .. } if id == request => return Ok(NegAnswer::Unknown),
                Message::Notice => return Ok(NegAnswer::Unknown),
                _ => {}
            }
        }
    }

    /// Authenticates, or waits, as the relay's refusal asks for.
    async fn after_refusal(&mut self, reason: &str) -> Result<(), Trouble> {
        if reason.starts_with("rate-limited:") {
            tokio::time::sleep(Duration::from_secs(RATE_PAUSE_SECS)).await;
            return Ok(());
        }
        if reason.starts_with("auth-required:") && !self.is_authenticated {
            return self.authenticate().await;
        }
        Err(Trouble(format!("the relay refuses: {}", shown(reason))))
    }

    /// Proves the key (NIP-42).
    async fn authenticate(&mut self) -> Result<(), Trouble> {
        let Some(keys) = &self.keys else {
            return Err(Trouble(
                "the relay answers only with a key; name its file with --key-file, or set RNOSTR_KEY".to_owned(),
            ));
        };
        let Some(challenge) = self.challenge.take() else {
            return Err(Trouble("the relay asks for a key, and sends no challenge".to_owned()));
        };
        let tag = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let tags = [tag(name::RELAY, &self.url), tag(name::CHALLENGE, &challenge)];
        let unsigned = Unsigned { created_at: now(), kind: Kind::AUTH.0, tags: &tags, content: "" };
        let event = keys.sign(&unsigned).map_err(|error| Trouble(error.to_string()))?.into_event();
        self.write(format!("[\"AUTH\",{}]", String::from_utf8_lossy(&event.json()))).await?;
        let (wanted, until) = (event.id().to_hex(), Instant::now() + Duration::from_secs(ANSWER_SECS));
        loop {
            if let Message::Ok { id, accepted, reason } = self.next_until(until).await?
                && id == wanted
            {
                self.is_authenticated = accepted;
                let refused = || Trouble(format!("the relay refuses the key: {}", shown(&reason)));
                return accepted.then_some(()).ok_or_else(refused);
            }
        }
    }

    fn new_id(&mut self) -> String {
        self.requests += 1;
        format!("sync-{}", self.requests)
    }

    async fn write(&mut self, text: String) -> Result<(), Trouble> {
        let sending = self.socket.send(Frame::text(text));
        match timeout(Duration::from_secs(ANSWER_SECS), sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(&error)),
            Err(_) => Err(Trouble(format!("the relay takes no message within {ANSWER_SECS} s"))),
        }
    }

    async fn next_until(&mut self, until: Instant) -> Result<Message, Trouble> {
        let late = || Trouble(format!("the relay does not answer a request within {ANSWER_SECS} s"));
        let message = timeout_at(until, self.next()).await.map_err(|_| late())??;
        // A timeout returns a message that is ready without a look at its time, and some relays always have one ready.
        if Instant::now() < until { Ok(message) } else { Err(late()) }
    }

    /// The next message. Challenges are noted by the way.
    async fn next(&mut self) -> Result<Message, Trouble> {
        loop {
            let Some(frame) = self.socket.next().await else {
                return Err(Trouble("the relay closed the connection".to_owned()));
            };
            if frame.opcode() == OpCode::Close {
                let reason = frame.close_reason().ok().flatten().unwrap_or("no reason");
                return Err(Trouble(format!("the relay closed the connection: {}", shown(reason))));
            }
            if frame.opcode() == OpCode::Text {
                let message = Message::read(frame.as_str());
                if let Message::Auth(challenge) = &message {
                    self.challenge = Some(challenge.clone());
                }
                return Ok(message);
            }
            let taken = self.controls.take(&frame, &mut self.socket, ANSWER_SECS).await;
            taken.map_err(|trouble| Trouble(trouble.to_string()))?;
        }
    }
}

fn broken(error: &yawc::WebSocketError) -> Trouble {
    Trouble(format!("the connection broke: {error}"))
}

/// Whether the same request may succeed later, or with a key.
fn is_passing(reason: &str) -> bool {
    reason.starts_with("rate-limited:") || reason.starts_with("auth-required:")
}

/// The relay's words, as far as a terminal may show them.
pub(super) fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}
