//! A client: one WebSocket connection that sends what it is told to, in that order, and notes all that it gets.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt as _, StreamExt as _};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_protocol::{
    hex::{parse_any, to_hex},
    testing::EventBuilder,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{
    event::{Event, Keys},
    record::{Call, Happened, ListName, Record},
    seam,
};

/// The URL by which clients know the relay.
pub const RELAY_URL: &str = "ws://relay.test";

/// An order to a client.
#[derive(Clone, Debug)]
pub enum Order {
    Prove(Box<ProofOf>),
    Publish(Event),
    Ask {
        verb: &'static str,
        id: String,
        filter: Value,
    },
    Close(String),
    /// A text that is no proper message.
    Raw(String),
    Leave,
}

/// A key to be proved.
#[derive(Clone, Debug)]
pub struct ProofOf(pub String);

/// Seconds since 1970 by a client's clock, which is the store's.
pub fn now_secs() -> u64 {
    seam::BEGIN_SECS + seam::elapsed_ms() / 1_000
}

/// The NIP-77 session of a connection, and those that wait for its end: a relay lets a connection have few at one time.
/// A client has nothing of its own, so it learns of all that fits.
#[derive(Default)]
struct Syncs {
    open: Option<Sync>,
    waiting: VecDeque<(String, Value)>,
}

struct Sync {
    id: String,
    session: Negentropy<'static, NegentropyStorageVector>,
    needed: Vec<Id>,
}

impl Syncs {
    /// Begins the session that has waited the longest, if none is open, and gives the message that opens it.
    fn begin(&mut self, note: &impl Fn(Happened)) -> Option<Value> {
        if self.open.is_some() {
            return None;
        }
        let (id, filter) = self.waiting.pop_front()?;
        let mut storage = NegentropyStorageVector::new();
        storage.seal().expect("an empty set");
        let mut session = Negentropy::owned(storage, 0).expect("a session");
        let first = to_hex(&session.initiate().expect("a first message"));
        let message = json!(["NEG-OPEN", id, filter, first]);
        note(Happened::Asked { verb: "NEG-OPEN", id: id.clone(), filter });
        self.open = Some(Sync { id, session, needed: Vec::new() });
        Some(message)
    }

    /// Takes a frame of the open session, and gives the messages that answer it.
    fn take(&mut self, frame: &Value, note: &impl Fn(Happened)) -> Vec<Value> {
        let Some(sync) = self.open.as_mut().filter(|sync| frame[1] == sync.id.as_str()) else { return Vec::new() };
        if frame[0] == "NEG-ERR" {
            self.open = None;
            note(Happened::Got(frame.clone()));
            return self.begin(note).into_iter().collect();
        }
        let message = parse_any(frame[2].as_str().unwrap_or_default().as_bytes()).expect("a message in hex");
        let next = sync.session.reconcile_with_ids(&message, &mut Vec::new(), &mut sync.needed);
        if let Some(next) = next.expect("a message of negentropy") {
            return vec![json!(["NEG-MSG", sync.id, to_hex(&next)])];
        }
        let close = json!(["NEG-CLOSE", sync.id]);
        let ids = sync.needed.iter().map(|id| to_hex(id.as_bytes())).collect();
        note(Happened::Synced { id: sync.id.clone(), ids });
        self.open = None;
        std::iter::once(close).chain(self.begin(note)).collect()
    }
}

/// Runs a connection to its end.
pub async fn run(
    stream: DuplexStream,
    connection: usize,
    record: Arc<Mutex<Record>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let note = |what| record.lock().expect("no panic while it is held").note(connection, what);
    let Ok((mut socket, _)) = client_async(RELAY_URL, stream).await else {
        note(Happened::Ended);
        return;
    };
    let mut challenge: Option<String> = None;
    let mut syncs = Syncs::default();
    loop {
        tokio::select! {
            biased;
            got = socket.next() => {
                let text = match got {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                let frame: Value = serde_json::from_str(&text).expect("the relay sends JSON");
                if frame[0] == "AUTH" {
                    let mut record = record.lock().expect("no panic while it is held");
                    record.connections[connection].greeted_ms.get_or_insert(seam::elapsed_ms());
                    challenge = frame[1].as_str().map(str::to_owned);
                } else if frame[0] == "NEG-MSG" || frame[0] == "NEG-ERR" {
                    for message in syncs.take(&frame, &note) {
                        if socket.send(Message::text(message.to_string())).await.is_err() {
                            break;
                        }
                    }
                } else {
                    note(Happened::Got(frame));
                }
            }
            order = orders.recv(), if challenge.is_some() => {
                let message = match order {
                    None | Some(Order::Leave) => {
                        let _ = socket.close(None).await;
                        break;
                    }
                    Some(Order::Ask { verb: "NEG-OPEN", id, filter }) => {
                        syncs.waiting.push_back((id, filter));
                        match syncs.begin(&note) {
                            Some(message) => message.to_string(),
                            None => continue,
                        }
                    }
                    Some(order) => message_of(order, challenge.as_deref().unwrap_or_default(), &note),
                };
                if socket.send(Message::text(message)).await.is_err() {
                    break;
                }
            }
        }
    }
    note(Happened::Ended);
}

fn message_of(order: Order, challenge: &str, note: &impl Fn(Happened)) -> String {
    match order {
        Order::Prove(proof) => {
            let keys = Keys::of(&proof.0);
            let draft = EventBuilder::new(22242).at(now_secs());
            let event = keys.sign(&draft.tag(&["relay", RELAY_URL]).tag(&["challenge", challenge]));
            note(Happened::Proof { key: keys.hex, id: event.id().to_owned() });
            json!(["AUTH", event.json()]).to_string()
        }
        Order::Publish(event) => {
            let message = json!(["EVENT", event.json()]).to_string();
            note(Happened::Published(event));
            message
        }
        Order::Ask { verb, id, filter } => {
            let message = json!([verb, id, filter]).to_string();
            note(Happened::Asked { verb, id, filter });
            message
        }
        Order::Close(id) => {
            let message = json!(["CLOSE", id]).to_string();
            note(Happened::Closed(id));
            message
        }
        Order::Raw(text) => text,
        Order::Leave => unreachable!("the caller leaves"),
    }
}

/// A request to the REST doors, with the proof of a key.
pub struct Request {
    pub keys: Keys,
    pub method: &'static str,
    pub path: String,
    pub body: Option<Value>,
}

/// Sends a request, and notes its answer. The cursor of a list is kept for the next request.
pub async fn answer(
    stream: DuplexStream,
    request: Request,
    record: Arc<Mutex<Record>>,
    (who, instance): (usize, usize),
    list: Option<ListName>,
) {
    let call = {
        let mut record = record.lock().expect("no panic while it is held");
        let (at_ms, acknowledged) = (seam::elapsed_ms(), record.acknowledged());
        let (path, list) = (request.path.clone(), list.clone());
        record.calls.push(Call { who, instance, path, list, at_ms, acknowledged, answer: None });
        record.calls.len() - 1
    };
    let answered = exchange(stream, &request, call).await;
    let mut record = record.lock().expect("no panic while it is held");
    if let Some(list) = &list {
        record.end_list(list);
    }
    if let Some((status, body)) = answered {
        record.answered(call, status, body);
    }
}

/// Sends a request on a connection of its own. Gives the status and the body, or nothing where the connection broke.
async fn exchange(mut stream: DuplexStream, request: &Request, call: usize) -> Option<(u16, Value)> {
    use base64::Engine as _;
    use sha2::Digest as _;
    let Request { keys, method, path, body } = request;
    let target = format!("/api/v1/mls{path}");
    let body = body.as_ref().map(Value::to_string);
    let mut draft = EventBuilder::new(27235).at(now_secs());
    draft = draft.tag(&["u", &format!("http://relay.test{target}")]).tag(&["method", method]);
    // A relay takes a proof once, and two of one second would be the same.
    draft = draft.tag(&["call", &call.to_string()]);
    if let Some(body) = &body {
        let hash = to_hex(&sha2::Sha256::digest(body));
        draft = draft.tag(&["payload", &hash]);
    }
    let proof = base64::prelude::BASE64_STANDARD.encode(keys.sign(&draft).json().to_string());
    let body = body.unwrap_or_default();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: relay.test\r\nauthorization: Nostr {proof}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        let (_, rest) = body.split_once("\r\n")?;
        rest.split("\r\n").next()?.to_owned()
    } else {
        body.to_owned()
    };
    Some((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
}
