//! Claims of KeyPackages over REST, authenticated by nostr's own NIP-98.

use nostr::event::Event;
use nostr::hashes::{Hash as _, sha256};
use nostr::nips::nip98::{HttpData, HttpMethod};
use nostr::serde_json::{Value, json};
use nostr::{JsonUtil as _, Keys, PublicKey, RelayUrl, Url};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::WAIT;

/// Claims one KeyPackage of `owner`, and tells whether others are given it too.
///
/// # Panics
/// Unless the relay gives one.
pub async fn claim(relay: &RelayUrl, by: &Keys, owner: PublicKey) -> (Event, bool) {
    let relay = relay.to_string();
    let host = relay.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    let url = format!("http://{host}/api/v1/mls/keypackages/claim");
    let body = json!({"owner": owner.to_hex()}).to_string();
    let data = HttpData::new(Url::parse(&url).expect("a URL"), HttpMethod::POST)
        .payload(sha256::Hash::hash(body.as_bytes()));
    let authorization = data.to_authorization(by).await.expect("a proof is signed");
    let request = format!(
        "POST /api/v1/mls/keypackages/claim HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Authorization: {authorization}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let ask = async {
        let mut stream = TcpStream::connect(&host).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(WAIT, ask).await.expect("the relay answers in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The body may come in chunks: the JSON begins at its first brace and ends at its last one.
    let json = &answer[answer.find('{').expect("JSON")..=answer.rfind('}').expect("JSON")];
    let answer: Value = nostr::serde_json::from_str(json).expect("JSON");
    let package = &answer["keypackages"][0];
    let event = Event::from_json(package["event"].to_string()).expect("an event");
    event.verify().expect("as its owner signed it");
    (event, package["last_resort"].as_bool().expect("a flag"))
}
