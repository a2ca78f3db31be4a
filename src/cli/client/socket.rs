//! One connection to a relay.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::SinkExt as _;
use nostr_protocol::{Event, Kind, sign::SecretKey};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use yawc::{Frame, OpCode, Options, TcpWebSocket, WebSocket};

use super::{super::address::Address, Answer, Controls, Draft, Message, Trouble, sign, text::said, tls};

/// Longest wait for one answer of the relay, and for it to take a message, in seconds.
pub(in crate::cli) const ANSWER_SECS: u64 = 10;
/// Longest wait for a challenge before a command with a key goes on without AUTH, in seconds.
const CHALLENGE_SECS: u64 = 3;
/// Most bytes of a message that a command takes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most messages that wait until a step asks for them; the oldest go first.
const WAITING_MAX: usize = 256;
/// Most bytes of these messages.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Most stored events that a step holds in memory.
const STORED_MAX: usize = 2_000;
/// Most bytes of these events.
const STORED_BYTES_MAX: usize = 128 << 20;

/// The stored events of a subscription.
#[derive(Debug, Default)]
pub(in crate::cli) struct Stored {
    pub(in crate::cli) events: Vec<Event>,
    bytes: usize,
    /// Whether the relay holds more that match.
    pub(in crate::cli) holds_more: bool,
}

/// An open connection.
pub(in crate::cli) struct Client {
    socket: TcpWebSocket,
    /// The relay's name, for AUTH.
    name: String,
    /// The last challenge.
    challenge: Option<String>,
    /// The command's key, until the relay has taken it.
    unproven: Option<SecretKey>,
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    controls: Controls,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// No WebSocket opens at the URL.
    pub(in crate::cli) async fn connect(relay: &Address) -> Result<Self, Trouble> {
        let url = &relay.url;
        let parsed = url.parse().map_err(|error| Trouble(format!("{url} is no URL: {error}")))?;
        let options = Options::default().with_limits(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        let tls = tls::config().map_err(|error| Trouble(format!("TLS cannot be set up: {error}")))?;
        let connector = TlsConnector::from(Arc::new(tls));
        let connecting = async { WebSocket::connect(parsed).with_connector(connector).with_options(options).await };
        let socket = match timeout(Duration::from_secs(ANSWER_SECS), connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                return Err(Trouble(format!("no WebSocket opens at {url}: {}", said(&error.to_string()))));
            }
            Err(_) => return Err(Trouble(format!("{url} does not answer within {ANSWER_SECS} s"))),
        };
        let (name, waiting, controls) = (relay.name.clone(), VecDeque::new(), Controls::new());
        Ok(Self { socket, name, challenge: None, unproven: None, waiting, waiting_bytes: 0, controls })
    }

    /// Connects, and proves the key if there is one and the relay sends a challenge.
    ///
    /// # Errors
    /// No WebSocket opens at the URL, or the relay refuses the key.
    pub(in crate::cli) async fn open(relay: &Address, key: Option<&SecretKey>) -> Result<Self, Trouble> {
        let mut client = Self::connect(relay).await?;
        client.unproven = key.cloned();
        if client.unproven.is_some() {
            let wait = Duration::from_secs(CHALLENGE_SECS);
            client.find_within(wait, |message| matches!(message, Message::Auth(_))).await?;
            client.prove().await?;
        }
        Ok(client)
    }

    /// Proves the command's key, unless the relay took it before or sent no challenge. Returns whether it did now.
    ///
    /// # Errors
    /// The relay refuses the key, or gives no answer.
    pub(in crate::cli) async fn prove(&mut self) -> Result<bool, Trouble> {
        if self.challenge.is_none() {
            return Ok(false);
        }
        let Some(key) = self.unproven.take() else { return Ok(false) };
        let answer = self.auth(&key).await?;
        if answer.accepted { Ok(true) } else { Err(Trouble(format!("the relay refuses this key: {}", answer.reason))) }
    }

    /// Proves a key (NIP-42).
    ///
    /// # Errors
    /// The relay sends no challenge, or gives no answer.
    pub(in crate::cli) async fn auth(&mut self, keys: &SecretKey) -> Result<Answer, Trouble> {
        while self.challenge.is_none() {
            // Reading a challenge notes it.
            self.find(|message| matches!(message, Message::Auth(_))).await?;
        }
        let challenge = self.challenge.as_deref().unwrap_or_default();
        let draft = Draft::new(Kind::AUTH).tag(&["relay", &self.name]).tag(&["challenge", challenge]);
        let event = sign(&draft, keys)?;
        self.send("AUTH", &event).await?;
        self.answer_to(&event).await
    }

    /// Publishes an event.
    ///
    /// # Errors
    /// The relay gives no answer.
    pub(in crate::cli) async fn publish(&mut self, event: &Event) -> Result<Answer, Trouble> {
        self.submit(event).await?;
        self.answer_to(event).await
    }

    /// Sends an event without waiting for the answer.
    ///
    /// # Errors
    /// The relay does not take the message.
    pub(in crate::cli) async fn submit(&mut self, event: &Event) -> Result<(), Trouble> {
        self.send("EVENT", event).await
    }

    async fn send(&mut self, verb: &str, event: &Event) -> Result<(), Trouble> {
        self.write(Frame::text(format!("[\"{verb}\",{}]", String::from_utf8_lossy(&event.json())))).await
    }

    async fn answer_to(&mut self, event: &Event) -> Result<Answer, Trouble> {
        let expected = event.id().to_hex();
        loop {
            let found = self.find(|message| matches!(message, Message::Ok { id, .. } if *id == expected)).await?;
            if let Message::Ok { answer, .. } = found {
                return Ok(answer);
            }
        }
    }

    /// Opens a subscription.
    ///
    /// # Errors
    /// The relay does not take the message.
    pub(in crate::cli) async fn subscribe(&mut self, id: &str, filters: &[Value]) -> Result<(), Trouble> {
        let mut frame = vec![json!("REQ"), json!(id)];
        frame.extend_from_slice(filters);
        self.write(Frame::text(Value::from(frame).to_string())).await
    }

    /// Sends a ping, which a living relay answers.
    ///
    /// # Errors
    /// The relay does not take it.
    pub(in crate::cli) async fn ping(&mut self) -> Result<(), Trouble> {
        self.write(Frame::ping(&b""[..])).await
    }

    /// Asks for events and keeps the subscription open. Gives the ids of the stored ones, or the reason of `CLOSED`.
    ///
    /// # Errors
    /// The relay gives no answer.
    pub(in crate::cli) async fn request(
        &mut self,
        id: &str,
        filter: Value,
    ) -> Result<Result<Vec<String>, String>, Trouble> {
        let found = self.stored(id, &[filter]).await?;
        Ok(found.map(|stored| stored.events.iter().map(|event| event.id().to_hex()).collect()))
    }

    /// The stored events of a subscription, which stays open, or the reason of `CLOSED`.
    ///
    /// # Errors
    /// The relay gives no answer, more events than a step holds, or one whose id or signature is wrong.
    pub(in crate::cli) async fn stored(
        &mut self,
        id: &str,
        filters: &[Value],
    ) -> Result<Result<Stored, String>, Trouble> {
        self.subscribe(id, filters).await?;
        let mut stored = Stored::default();
        loop {
            let fits = |message: &Message| match message {
                Message::Event { subscription, .. }
                | Message::Closed { subscription, .. }
                | Message::Eose { subscription, .. } => subscription == id,
                _ => false,
            };
            match self.find(fits).await? {
                Message::Event { event, .. } => stored.push(event.map_err(wrong_event)?)?,
                Message::Closed { reason, .. } => return Ok(Err(reason)),
                Message::Eose { holds_more, .. } => {
                    stored.holds_more = holds_more;
                    return Ok(Ok(stored));
                }
                _ => {}
            }
        }
    }

    /// Waits for the next live event of a subscription.
    ///
    /// # Errors
    /// None comes in time, or one whose id or signature is wrong.
    pub(in crate::cli) async fn next_event(&mut self, id: &str) -> Result<Event, Trouble> {
        match self.find(|message| is_event_of(message, id)).await? {
            Message::Event { event, .. } => event.map_err(wrong_event),
            _ => Err(Trouble("the relay sent no event".to_owned())),
        }
    }

    /// Whether an event of the subscription has arrived.
    pub(in crate::cli) fn has_event(&self, id: &str) -> bool {
        self.waiting.iter().any(|message| is_event_of(message, id))
    }

    /// The next message, first of those that wait; `None` where none comes in time.
    ///
    /// # Errors
    /// The connection is at its end.
    pub(in crate::cli) async fn next(&mut self, until: Instant) -> Result<Option<Message>, Trouble> {
        if let Some(message) = self.waiting.pop_front() {
            self.waiting_bytes -= message.bytes();
            return Ok(Some(message));
        }
        let Ok(read) = timeout_at(until, self.read()).await else { return Ok(None) };
        let message = read?;
        if Instant::now() < until {
            return Ok(Some(message));
        }
        // A timeout returns a message that is ready without a look at its time, and some relays always have one ready.
        self.keep(message);
        Ok(None)
    }

    async fn write(&mut self, frame: Frame) -> Result<(), Trouble> {
        match timeout(Duration::from_secs(ANSWER_SECS), self.socket.send(frame)).await {
            Ok(sent) => sent.map_err(|error| Trouble(format!("the connection broke: {error}"))),
            Err(_) => Err(Trouble(format!("the relay takes no message within {ANSWER_SECS} s"))),
        }
    }

    /// Takes the first message that fits; the others wait for their turn.
    async fn find(&mut self, fits: impl Fn(&Message) -> bool) -> Result<Message, Trouble> {
        let found = self.find_within(Duration::from_secs(ANSWER_SECS), fits).await?;
        found.ok_or_else(|| self.silence())
    }

    /// [`Self::find`], which gives `None` where no message fits in time.
    async fn find_within(
        &mut self,
        wait: Duration,
        fits: impl Fn(&Message) -> bool,
    ) -> Result<Option<Message>, Trouble> {
        if let Some(at) = self.waiting.iter().position(&fits)
            && let Some(message) = self.waiting.remove(at)
        {
            self.waiting_bytes -= message.bytes();
            return Ok(Some(message));
        }
        let until = Instant::now() + wait;
        loop {
            match timeout_at(until, self.read()).await {
                Ok(Ok(message)) if fits(&message) => return Ok(Some(message)),
                Ok(Ok(message)) => {
                    self.keep(message);
                    // As in `next`.
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                }
                Ok(Err(trouble)) => return Err(trouble),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Lets a message wait. The oldest go where there are too many.
    fn keep(&mut self, message: Message) {
        if matches!(message, Message::Auth(_) | Message::Other) {
            return;
        }
        self.waiting_bytes += message.bytes();
        self.waiting.push_back(message);
        while self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX {
            let Some(oldest) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= oldest.bytes();
        }
    }

    /// The trouble of an answer that does not come; the relay may have said why.
    fn silence(&self) -> Trouble {
        let notice = self.waiting.iter().rev().find_map(|message| match message {
            Message::Notice(text) => Some(format!("; its last notice: {text}")),
            _ => None,
        });
        Trouble(format!("the relay does not answer within {ANSWER_SECS} s{}", notice.unwrap_or_default()))
    }

    /// Reads the next message; a control frame is a sign of life.
    async fn read(&mut self) -> Result<Message, Trouble> {
        let frame = self.socket.next_frame().await.map_err(|error| match error.is_closed() {
            true => Trouble("the relay closed the connection".to_owned()),
            false => Trouble(format!("the connection broke: {}", said(&error.to_string()))),
        })?;
        match frame.opcode() {
            OpCode::Text => {
                let text = std::str::from_utf8(frame.payload());
                let message = Message::parse(text.map_err(|_| Trouble("the relay sent no UTF-8".to_owned()))?)?;
                if let Message::Auth(challenge) = &message {
                    self.challenge = Some(challenge.clone());
                }
                Ok(message)
            }
            OpCode::Close => {
                let reason = frame.close_reason().ok().flatten().unwrap_or("no reason");
                Err(Trouble(format!("the relay closed the connection: {}", said(reason))))
            }
            _ => {
                self.controls.take(&frame, &mut self.socket, ANSWER_SECS).await?;
                Ok(Message::Other)
            }
        }
    }
}

impl Stored {
    fn push(&mut self, event: Event) -> Result<(), Trouble> {
        self.bytes += event.record().len();
        if self.events.len() == STORED_MAX || self.bytes > STORED_BYTES_MAX {
            return Err(Trouble("the relay sent more events than this takes".to_owned()));
        }
        self.events.push(event);
        Ok(())
    }
}

fn is_event_of(message: &Message, id: &str) -> bool {
    matches!(message, Message::Event { subscription, .. } if subscription == id)
}

fn wrong_event(error: nostr_protocol::EventError) -> Trouble {
    Trouble(format!("the relay sent an event that is none: {}", said(&error.to_string())))
}
