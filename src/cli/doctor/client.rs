//! One connection of the doctor to the relay.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_protocol::{
    Event, Kind,
    sign::{SecretKey, Unsigned},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use yawc::{Frame, OpCode, Options, TcpWebSocket, WebSocket};

use super::super::{address::Address, moving::now};

/// Longest wait for one answer of the relay, in seconds.
const ANSWER_SECS: u64 = 10;
/// Most bytes of a message that the doctor takes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most messages that wait until a step asks for them; the oldest go first.
const WAITING_MAX: usize = 256;

/// The reason why a connection is of no further use.
#[derive(Debug)]
pub(super) struct Trouble(pub(super) String);

/// The relay's answer to an event.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) accepted: bool,
    pub(super) reason: String,
}

/// An open connection.
pub(super) struct Client {
    socket: TcpWebSocket,
    /// The relay's name, for AUTH.
    name: String,
    challenge: String,
    waiting: VecDeque<Value>,
}

impl Client {
    /// Connects, and takes the challenge.
    ///
    /// # Errors
    /// Nothing answers at the URL, or what answers is no relay with NIP-42.
    pub(super) async fn connect(relay: &Address) -> Result<Self, Trouble> {
        let url = &relay.url;
        let parsed = url.parse().map_err(|error| Trouble(format!("{url} is no URL: {error}")))?;
        let options = Options::default().with_limits(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        let connecting = async { WebSocket::connect(parsed).with_options(options).await };
        let socket = match timeout(Duration::from_secs(ANSWER_SECS), connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(Trouble(format!("no WebSocket opens at {url}: {error}"))),
            Err(_) => return Err(Trouble(format!("{url} does not answer within {ANSWER_SECS} s"))),
        };
        let mut client = Self { socket, name: relay.name.clone(), challenge: String::new(), waiting: VecDeque::new() };
        let hello = client.find(|message| message[0] == "AUTH").await?;
        client.challenge = hello[1].as_str().unwrap_or_default().to_owned();
        Ok(client)
    }

    /// Proves a key (NIP-42).
    pub(super) async fn auth(&mut self, keys: &SecretKey) -> Result<Answer, Trouble> {
        let draft = Draft::new(Kind::AUTH).tag(&["relay", &self.name]).tag(&["challenge", &self.challenge]);
        let event = sign(&draft, keys)?;
        self.send("AUTH", &event).await
    }

    /// Publishes an event.
    pub(super) async fn publish(&mut self, event: &Event) -> Result<Answer, Trouble> {
        self.send("EVENT", event).await
    }

    async fn send(&mut self, verb: &str, event: &Event) -> Result<Answer, Trouble> {
        let id = event.id().to_hex();
        self.write(format!("[\"{verb}\",{}]", String::from_utf8_lossy(&event.json()))).await?;
        let ok = self.find(|message| message[0] == "OK" && message[1] == id.as_str()).await?;
        let reason = ok[3].as_str().unwrap_or_default().to_owned();
        Ok(Answer { accepted: ok[2] == true, reason })
    }

    /// Asks for events and keeps the subscription open. Gives the ids of the stored ones, or the reason of `CLOSED`.
    pub(super) async fn request(&mut self, id: &str, filter: Value) -> Result<Result<Vec<String>, String>, Trouble> {
        self.write(json!(["REQ", id, filter]).to_string()).await?;
        let mut found = Vec::new();
        loop {
            let message = self
                .find(|message| message[1] == id && ["EVENT", "EOSE", "CLOSED"].iter().any(|verb| message[0] == *verb))
                .await?;
            match message[0].as_str() {
                Some("EVENT") => found.push(message[2]["id"].as_str().unwrap_or_default().to_owned()),
                Some("EOSE") => return Ok(Ok(found)),
                _ => return Ok(Err(message[2].as_str().unwrap_or_default().to_owned())),
            }
        }
    }

    /// Waits for the next live event of a subscription, and gives its id and content.
    pub(super) async fn next_event(&mut self, id: &str) -> Result<(String, String), Trouble> {
        let message = self.find(|message| message[0] == "EVENT" && message[1] == id).await?;
        let text = |name: &str| message[2][name].as_str().unwrap_or_default().to_owned();
        Ok((text("id"), text("content")))
    }

    /// Whether an event of the subscription has arrived.
    pub(super) fn has_event(&self, id: &str) -> bool {
        self.waiting.iter().any(|message| message[0] == "EVENT" && message[1] == id)
    }

    async fn write(&mut self, text: String) -> Result<(), Trouble> {
        self.socket.send(Frame::text(text)).await.map_err(|error| Trouble(format!("the connection broke: {error}")))
    }

    /// Takes the first message that fits; the others wait for their turn.
    async fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Result<Value, Trouble> {
        if let Some(at) = self.waiting.iter().position(&fits)
            && let Some(message) = self.waiting.remove(at)
        {
            return Ok(message);
        }
        let arriving = async {
            loop {
                let message = self.read().await?;
                if fits(&message) {
                    return Ok(message);
                }
                if self.waiting.len() == WAITING_MAX {
                    self.waiting.pop_front();
                }
                self.waiting.push_back(message);
            }
        };
        match timeout(Duration::from_secs(ANSWER_SECS), arriving).await {
            Ok(found) => found,
            Err(_) => Err(Trouble(format!("the relay does not answer within {ANSWER_SECS} s"))),
        }
    }

    async fn read(&mut self) -> Result<Value, Trouble> {
        loop {
            let Some(frame) = self.socket.next().await else {
                return Err(Trouble("the relay closed the connection".to_owned()));
            };
            if frame.opcode() == OpCode::Text {
                let text = frame.as_str();
                return serde_json::from_str(text).map_err(|_| Trouble(format!("the relay sent no JSON: {text}")));
            }
            if frame.opcode() == OpCode::Close {
                let reason = frame.close_reason().ok().flatten().unwrap_or("no reason");
                return Err(Trouble(format!("the relay closed the connection: {reason}")));
            }
        }
    }
}

/// An event of now, before it is signed.
pub(super) struct Draft {
    kind: Kind,
    tags: Vec<Vec<String>>,
    content: String,
}

impl Draft {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, tags: Vec::new(), content: String::new() }
    }

    /// Adds a tag.
    pub(super) fn tag(mut self, strings: &[&str]) -> Self {
        self.tags.push(strings.iter().map(|&text| text.to_owned()).collect());
        self
    }

    /// Sets the content.
    pub(super) fn content(mut self, content: impl Into<String>) -> Self {
        self.content = content.into();
        self
    }
}

/// Signs a draft.
pub(super) fn sign(draft: &Draft, keys: &SecretKey) -> Result<Event, Trouble> {
    let Draft { kind, tags, content } = draft;
    let signed = keys.sign(&Unsigned { created_at: now(), kind: kind.0, tags, content });
    let signed = signed.map_err(|error| Trouble(format!("the doctor made an event that is none: {error}")))?;
    Ok(signed.into_event())
}
