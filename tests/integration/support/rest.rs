//! A client of the REST doors, which signs each request (NIP-98).

use std::net::SocketAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Event, Keys, TestRelay,
    http::{Response, exchange, parse},
};

/// The prefix of the doors.
pub const PREFIX: &str = "/api/v1/mls";

/// A reader of the REST doors: one key, or none.
#[derive(Clone)]
pub struct Rest {
    address: SocketAddr,
    now: u64,
    keys: Option<Keys>,
}

/// A request under construction.
pub struct Ask {
    rest: Rest,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Rest {
    /// A reader that has no key, on the relay's next instance.
    pub fn anonymous(relay: &TestRelay) -> Self {
        Self { address: relay.next_address(), now: relay.now(), keys: None }
    }

    /// A reader with a key.
    pub fn of(relay: &TestRelay, keys: &Keys) -> Self {
        Self { keys: Some(keys.clone()), ..Self::anonymous(relay) }
    }

    /// A reader with a key, at a relay that is a process.
    pub fn of_process(address: SocketAddr, keys: &Keys) -> Self {
        Self { address, now: super::now(), keys: Some(keys.clone()) }
    }

    /// The same reader at another instance.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same reader, whose clock shows `now`.
    pub fn when(&self, now: u64) -> Self {
        Self { now, ..self.clone() }
    }

    /// A GET of a path and query under the prefix.
    pub fn get(&self, path: &str) -> Ask {
        self.ask("GET", path)
    }

    /// A POST of JSON to a path under the prefix.
    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Ask {
        let ask = self.ask("POST", path).header("content-type", "application/json");
        Ask { body: Some(body.into()), ..ask }
    }

    /// A call of NIP-86.
    pub fn order(&self, method: &str, parameters: &Value) -> Ask {
        let body = serde_json::json!({ "method": method, "params": parameters }).to_string().into_bytes();
        let headers = vec![("content-type".to_owned(), "application/nostr+json+rpc".to_owned())];
        Ask { rest: self.clone(), method: "POST".to_owned(), target: "/".to_owned(), headers, body: Some(body) }
    }

    /// Calls a method of NIP-86, and expects a result.
    pub async fn ordered(&self, method: &str, parameters: Value) -> Value {
        let answer = self.order(method, &parameters).ok().await;
        assert!(answer.get("error").is_none(), "{method} {parameters}: {answer}");
        answer["result"].clone()
    }

    /// Publishes an event.
    pub async fn publish(&self, event: &Event) -> Response {
        self.post("/events", event.0.to_string()).send().await
    }

    /// A request of another method.
    pub fn ask(&self, method: &str, path: &str) -> Ask {
        self.at_target(method, &format!("{PREFIX}{path}"))
    }

    /// A request of a target that is not under the prefix.
    pub fn at_target(&self, method: &str, target: &str) -> Ask {
        let (method, target) = (method.to_owned(), target.to_owned());
        Ask { rest: self.clone(), method, target, headers: Vec::new(), body: None }
    }

    /// The URL of a target, as a proof names it.
    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }
}

/// Ids of the events that a door shows this reader, in its order, over all pages; `Err` with the status of a refusal.
/// A door that is absent for the reader shows nothing. `cursor` is the name of the parameter.
pub async fn shown(rest: &Rest, path: &str, cursor: &str) -> Result<Vec<String>, u16> {
    let mut all = Vec::new();
    let mut target = path.to_owned();
    loop {
        let answer = rest.get(&target).send().await;
        let page = match answer.status {
            200 => answer.json(),
            404 => return Ok(all),
            status => return Err(status),
        };
        let id = |event: &Value| event["id"].as_str().expect("an id").to_owned();
        let (events, packages) = (page["events"].as_array(), page["keypackages"].as_array());
        match (events, packages) {
            (Some(events), _) => all.extend(events.iter().map(id)),
            (_, Some(packages)) => all.extend(packages.iter().map(|package| id(&package["event"]))),
            _ => all.push(id(&page)),
        }
        let has_more = page["has_more"].as_bool().unwrap_or_else(|| page["next_cursor"].is_string());
        let Some(next) = page["next_cursor"].as_str().filter(|_| has_more) else { return Ok(all) };
        target = format!("{path}{}{cursor}={next}", if path.contains('?') { '&' } else { '?' });
    }
}

/// A proof as a header's value.
pub fn header_of(event: &Event) -> String {
    format!("Nostr {}", BASE64_STANDARD.encode(event.0.to_string()))
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Ask {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a body of JSON.
    pub fn json(self, body: &Value) -> Self {
        let ask = self.header("content-type", "application/json");
        Self { body: Some(body.to_string().into_bytes()), ..ask }
    }

    /// Sends one chunk of a body whose length the head does not tell, and no end.
    pub fn chunk(mut self, bytes: &str) -> Self {
        self.body = Some(format!("{:x}\r\n{bytes}\r\n", bytes.len()).into_bytes());
        self
    }

    /// The proof that the request needs; a tag of its own makes it another one than of the same second.
    pub fn proof(&self, keys: &Keys) -> Event {
        let salt = Keys::random().hex();
        let draft = keys.event(27235).created_at(self.rest.now);
        let draft = draft.tag(["u", &self.rest.url(&self.target)]).tag(["method", &self.method]).tag(["salt", &salt]);
        match &self.body {
            Some(body) => draft.tag(["payload", &sha256(body)]).sign(),
            None => draft.sign(),
        }
    }

    /// Sends the request with the proof of its reader.
    pub async fn send(self) -> Response {
        match self.rest.keys.clone() {
            Some(keys) => {
                let proof = header_of(&self.proof(&keys));
                self.header("authorization", &proof).send_bare().await
            }
            None => self.send_bare().await,
        }
    }

    /// Sends the request as it is.
    pub async fn send_bare(self) -> Response {
        parse(&self.send_bytes().await)
    }

    /// Sends the request as it is, and gives the bytes of the answer.
    pub async fn send_bytes(self) -> Vec<u8> {
        let length = self.body.as_ref().map(|body| body.len().to_string());
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let is_told = |(name, _): &(&str, &str)| matches!(*name, "content-length" | "transfer-encoding");
        if let Some(length) = length.as_deref().filter(|_| !headers.iter().any(is_told)) {
            headers.push(("content-length", length));
        }
        let line = format!("{} {}", self.method, self.target);
        exchange(self.rest.address, &line, &headers, self.body.as_deref().unwrap_or_default()).await
    }

    /// Sends the request, and expects 200.
    pub async fn ok(self) -> Value {
        let target = self.target.clone();
        let response = self.send().await;
        assert_eq!(response.status, 200, "{target}: {}", response.body);
        response.json()
    }

    /// Sends the request, and expects a problem document of this status. Gives its detail.
    pub async fn refused(self, status: u16) -> String {
        let target = self.target.clone();
        problem(&self.send().await, status, &target)
    }
}

/// The detail of a problem document of this status.
pub fn problem(response: &Response, status: u16, about: &str) -> String {
    assert_eq!(response.status, status, "{about}: {}", response.body);
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{about}");
    let document = response.json();
    assert_eq!((&document["type"], &document["status"]), (&"about:blank".into(), &status.into()), "{about}");
    assert!(document["title"].is_string(), "{about}");
    document["detail"].as_str().expect("a detail").to_owned()
}
