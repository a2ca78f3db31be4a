//! A client over `tokio-tungstenite`, which shares no code with the server's side.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use futures_util::{SinkExt as _, StreamExt as _};
use negentropy::{Negentropy, NegentropyStorageVector};
use nostr_protocol::hex::{parse_any, to_hex};
use nostr_relay::app::App;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest as _, handshake::client::Request, http::HeaderValue},
};

use super::{
    event::{Event, Keys},
    relay::{TestRelay, WAIT, caught_up},
};

/// The relay's answer to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Third element of `OK`.
    pub accepted: bool,
    /// Fourth element of `OK`.
    pub reason: String,
}

impl Answer {
    /// Panics unless the event was accepted.
    #[track_caller]
    pub fn ok(&self) {
        assert!(self.accepted, "refused: {}", self.reason);
    }

    /// Panics unless the event was refused with this word. Returns the reason.
    #[track_caller]
    pub fn refused(&self, word: &str) -> &str {
        assert!(!self.accepted, "accepted, and not refused as {word}");
        assert!(self.reason.starts_with(&format!("{word}: ")), "{word} expected: {}", self.reason);
        &self.reason
    }
}

/// One connection.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The challenge that the relay sent at the start.
    pub challenge: String,
    url: String,
    /// The parts of all instances.
    apps: Vec<Weak<App>>,
    /// Frames that arrived while the client waited for another one.
    waiting: VecDeque<Value>,
    sentinels: u64,
}

impl Client {
    /// Connects, and takes the challenge.
    pub async fn connect(relay: &TestRelay) -> Self {
        Self::connect_with(relay, &[]).await
    }

    /// Connects with additional headers.
    pub async fn connect_with(relay: &TestRelay, headers: &[(&'static str, &str)]) -> Self {
        let mut client = Self::open(&relay.next_url(), headers).await.expect("the relay upgrades the connection");
        client.apps = relay.apps().map(Arc::downgrade).collect();
        client
    }

    /// Connects to a relay that need not be in this process.
    ///
    /// # Errors
    /// The relay does not upgrade the connection.
    pub async fn open(url: &str, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        // Nagle's algorithm is off: the second of two small messages would wait until the first is acknowledged.
        let (socket, _) = connect_async_with_config(request(url, headers), None, true).await?;
        let mut client = Self {
            socket,
            challenge: String::new(),
            url: url.to_owned(),
            apps: Vec::new(),
            waiting: VecDeque::new(),
            sentinels: 0,
        };
        let first = timeout(WAIT, client.try_recv()).await.expect("the relay answers in time");
        let first = first.ok_or(Error::ConnectionClosed)?;
        assert_eq!(first[0], "AUTH", "a challenge comes first: {first}");
        client.challenge = first[1].as_str().expect("a challenge is a string").to_owned();
        Ok(client)
    }

    /// Connects and authenticates with these keys.
    pub async fn of(relay: &TestRelay, keys: &[&Keys]) -> Self {
        let mut client = Self::connect(relay).await;
        for keys in keys {
            client.auth(keys).await.ok();
        }
        client
    }

    /// Names the relay by this URL from now on, as clients behind a proxy do.
    pub fn name_relay(&mut self, url: &str) {
        url.clone_into(&mut self.url);
    }

    /// Builds the event that proves `keys` to this connection.
    pub fn auth_event(&self, keys: &Keys) -> Event {
        let draft = keys.event(22242).tag(["relay", &self.url]).tag(["challenge", &self.challenge]);
        match self.apps.first().and_then(Weak::upgrade) {
            Some(app) => draft.created_at(app.clock.now()).sign(),
            None => draft.sign(),
        }
    }

    /// Authenticates.
    pub async fn auth(&mut self, keys: &Keys) -> Answer {
        let event = self.auth_event(keys);
        self.send_auth(&event).await
    }

    /// Sends an event as `AUTH`.
    pub async fn send_auth(&mut self, event: &Event) -> Answer {
        self.send(&json!(["AUTH", event.0])).await;
        self.answer(event.id()).await
    }

    /// Publishes an event.
    pub async fn publish(&mut self, event: &Event) -> Answer {
        self.send(&json!(["EVENT", event.0])).await;
        self.answer(event.id()).await
    }

    /// Publishes events without waiting in between; the answers come back in the order of the events.
    pub async fn publish_all(&mut self, events: &[Event]) -> Vec<Answer> {
        for event in events {
            self.socket.feed(Message::text(json!(["EVENT", event.0]).to_string())).await.expect("a message is sent");
        }
        self.socket.flush().await.expect("messages are sent");
        let mut answers = Vec::with_capacity(events.len());
        for event in events {
            answers.push(self.answer(event.id()).await);
        }
        answers
    }

    /// Waits for the `OK` of an event that was sent.
    pub async fn answer(&mut self, id: &str) -> Answer {
        let frame = self.find(|frame| frame[0] == "OK" && frame[1] == id).await;
        Answer {
            accepted: frame[2].as_bool().expect("OK says true or false"),
            reason: frame[3].as_str().expect("OK has a reason").to_owned(),
        }
    }

    /// Waits until all that is committed is delivered, then subscribes. Returns the stored events in the order of their
    /// arrival, or the reason of `CLOSED`.
    pub async fn req(&mut self, sub: &str, filters: &[Value]) -> Result<Vec<Event>, String> {
        self.caught_up().await;
        self.req_now(sub, filters).await
    }

    /// Subscribes without waiting for live delivery, as an ordinary client does.
    pub async fn req_now(&mut self, sub: &str, filters: &[Value]) -> Result<Vec<Event>, String> {
        let mut message = vec![json!("REQ"), json!(sub)];
        message.extend_from_slice(filters);
        self.send(&Value::Array(message)).await;
        let mut events = Vec::new();
        loop {
            let frame = self
                .find(|frame| frame[1] == sub && ["EVENT", "EOSE", "CLOSED"].iter().any(|verb| frame[0] == *verb))
                .await;
            match frame[0].as_str() {
                Some("EVENT") => events.push(Event(frame[2].clone())),
                Some("EOSE") => return Ok(events),
                _ => return Err(frame[2].as_str().unwrap_or_default().to_owned()),
            }
        }
    }

    /// Subscribes, returns the ids of the stored events, and ends the subscription.
    pub async fn ids(&mut self, filter: Value) -> Result<Vec<String>, String> {
        let found = self.req("ids", &[filter]).await;
        if found.is_ok() {
            self.close("ids").await;
        }
        found.map(|events| events.iter().map(|event| event.id().to_owned()).collect())
    }

    /// Waits until all that is committed is delivered, then asks `COUNT`. Returns the count or the reason of `CLOSED`.
    pub async fn count(&mut self, filters: &[Value]) -> Result<u64, String> {
        self.caught_up().await;
        self.count_now("count", filters).await
    }

    /// Asks `COUNT` without waiting for live delivery, as an ordinary client does.
    pub async fn count_now(&mut self, id: &str, filters: &[Value]) -> Result<u64, String> {
        let mut message = vec![json!("COUNT"), json!(id)];
        message.extend_from_slice(filters);
        self.send(&Value::Array(message)).await;
        let frame = self.find(|frame| frame[1] == id && (frame[0] == "COUNT" || frame[0] == "CLOSED")).await;
        match frame[2]["count"].as_u64() {
            Some(count) => Ok(count),
            None => Err(frame[2].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// Waits until all that is committed is delivered, then reconciles an empty set by NIP-77. Returns the relay's ids,
    /// sorted, or the reason of `NEG-ERR`.
    pub async fn neg_ids(&mut self, filter: Value) -> Result<Vec<String>, String> {
        self.caught_up().await;
        self.neg_ids_now(filter).await
    }

    /// Reconciles an empty set without waiting for live delivery, as an ordinary client does.
    pub async fn neg_ids_now(&mut self, filter: Value) -> Result<Vec<String>, String> {
        let (mut ours, first) = empty_set();
        self.send(&json!(["NEG-OPEN", "neg", filter, first])).await;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        loop {
            let frame = self.find(|frame| frame[1] == "neg" && (frame[0] == "NEG-MSG" || frame[0] == "NEG-ERR")).await;
            let text = frame[2].as_str().unwrap_or_default();
            if frame[0] == "NEG-ERR" {
                return Err(text.to_owned());
            }
            let message = parse_any(text.as_bytes()).expect("a message in hex");
            match ours.reconcile_with_ids(&message, &mut have, &mut need).expect("a negentropy message") {
                Some(next) => self.send(&json!(["NEG-MSG", "neg", to_hex(&next)])).await,
                None => break,
            }
        }
        self.send(&json!(["NEG-CLOSE", "neg"])).await;
        let mut ids: Vec<String> = need.iter().map(|id| to_hex(id.as_bytes())).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Waits for the next event of a subscription.
    pub async fn next_event(&mut self, sub: &str) -> Event {
        let frame = self.find(|frame| frame[0] == "EVENT" && frame[1] == sub).await;
        Event(frame[2].clone())
    }

    /// Waits for the next `n` events of a subscription.
    pub async fn live(&mut self, sub: &str, n: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(n);
        for _ in 0..n {
            events.push(self.next_event(sub).await);
        }
        events
    }

    /// Waits until all that is committed is delivered, and returns the events of a subscription.
    pub async fn received(&mut self, sub: &str) -> Vec<Event> {
        self.settle().await;
        self.here(sub)
    }

    /// Returns the events of a subscription that are here already, without waiting.
    pub fn here(&mut self, sub: &str) -> Vec<Event> {
        let is_event = |frame: &Value| frame[0] == "EVENT" && frame[1] == sub;
        let events = self.waiting.iter().filter(|frame| is_event(frame)).map(|frame| Event(frame[2].clone())).collect();
        self.waiting.retain(|frame| !is_event(frame));
        events
    }

    /// Panics if a frame arrived that no call has taken, apart from the challenge that comes before each
    /// `auth-required:`.
    #[track_caller]
    pub fn expect_nothing(&mut self) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            self.settle().await;
            let challenge = json!(["AUTH", self.challenge]);
            self.waiting.retain(|frame| *frame != challenge);
            assert!(self.waiting.is_empty(), "{at}: expected no frame, got {:?}", self.waiting);
        }
    }

    /// Waits until everything committed so far is delivered and has reached this client. The relay answers in order, so
    /// the answer to a request sent now comes after all of it.
    pub async fn settle(&mut self) {
        self.caught_up().await;
        self.sentinels += 1;
        let id = format!("sentinel-{}", self.sentinels);
        let _ = self.count_now(&id, &[json!({"ids": ["00".repeat(32)]})]).await;
    }

    /// Ends a subscription and drops its frames.
    pub async fn close(&mut self, sub: &str) {
        self.send(&json!(["CLOSE", sub])).await;
        self.settle().await;
        self.waiting.retain(|frame| frame[1] != sub);
    }

    async fn caught_up(&self) {
        let apps: Vec<Arc<App>> = self.apps.iter().filter_map(Weak::upgrade).collect();
        caught_up(&apps.iter().map(Arc::as_ref).collect::<Vec<_>>()).await;
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends a message; `None` if the connection is broken.
    pub async fn try_send(&mut self, message: &Value) -> Option<()> {
        self.socket.send(Message::text(message.to_string())).await.ok()
    }

    /// Waits for the next message without a limit; `None` at the end of the connection, however it ended.
    pub async fn try_recv(&mut self) -> Option<Value> {
        if let Some(frame) = self.waiting.pop_front() {
            return Some(frame);
        }
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Sends a WebSocket message as it is.
    pub async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("a message is sent");
    }

    /// The next WebSocket message other than a ping or pong; `None` at the end of the connection.
    pub async fn recv_raw(&mut self) -> Option<Message> {
        loop {
            let message = timeout(WAIT, self.socket.next()).await.expect("the relay answers in time")?;
            match message {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return Some(message),
                Err(_) => return None,
            }
        }
    }

    /// The next frame from the network.
    pub async fn recv(&mut self) -> Value {
        match self.recv_raw().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).expect("a frame is JSON"),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// Takes the first frame that `fits`, from the waiting ones and then from the network; the others keep their order.
    pub async fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.waiting.iter().position(&fits) {
            return self.waiting.remove(at).expect("it was found there");
        }
        loop {
            let frame = self.recv().await;
            if fits(&frame) {
                return frame;
            }
            self.waiting.push_back(frame);
        }
    }
}

fn request(url: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_str(value).expect("a header"));
    }
    request
}

/// A NIP-77 session over an empty set, and its first message in hex.
pub fn empty_set() -> (Negentropy<'static, NegentropyStorageVector>, String) {
    let mut storage = NegentropyStorageVector::new();
    storage.seal().expect("an empty set");
    let mut session = Negentropy::owned(storage, 0).expect("a session");
    let first = to_hex(&session.initiate().expect("a first message"));
    (session, first)
}
