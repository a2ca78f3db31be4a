//! One connection to another relay, as a client: it publishes one event, authenticates if it is asked to (NIP-42), and
//! ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_protocol::{
    Event, Kind,
    sign::{SecretKey, Unsigned},
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use super::address::Target;

/// Longest time for a connection: dialling each address, TLS and the upgrade, in seconds.
const CONNECT_SECS_MAX: u64 = 10;
/// Longest wait for the answer to the event, in seconds.
const ANSWER_SECS_MAX: u64 = 10;
/// Most messages that are read before the answer.
const MESSAGES_MAX: usize = 32;
/// Most bytes of one message of the other relay.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The reason why an event was not sent.
pub(super) enum Failed {
    /// The relay answered, and does not take it.
    Refused(String),
    /// A server is there, which spoke HTTP or WebSocket, but did not answer the event. The path may be none of a relay.
    Unanswered(String),
    /// The relay cannot be reached.
    Unreachable(String),
}

/// A stream to a relay, over TLS or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Publishes `event` at the first of these addresses that answers, by `key` where the relay asks for AUTH.
///
/// # Errors
/// [`Failed`].
pub(super) async fn send(
    target: &Target,
    addresses: &[SocketAddr],
    event: &Event,
    key: &SecretKey,
) -> Result<(), Failed> {
    let connecting = timeout(Duration::from_secs(CONNECT_SECS_MAX), connect(target, addresses)).await;
    let mut socket = connecting.map_err(|_| Failed::Unreachable("it was not connected in time".to_owned()))??;
    let answered = timeout(Duration::from_secs(ANSWER_SECS_MAX), publish(&mut socket, target, event, key)).await;
    let answered = answered.unwrap_or_else(|_| Err(Failed::Unanswered("it did not answer in time".to_owned())));
    // The answer is there, or will not come.
    let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
    answered
}

async fn connect(target: &Target, addresses: &[SocketAddr]) -> Result<WebSocketStream<Box<dyn Stream>>, Failed> {
    let mut failed = "it has no address".to_owned();
    for address in addresses {
        // The address that was checked is dialled, and no other.
        match TcpStream::connect(address).await {
            Ok(stream) => return upgrade(target, stream).await,
            Err(error) => failed = error.to_string(),
        }
    }
    Err(Failed::Unreachable(failed))
}

async fn upgrade(target: &Target, stream: TcpStream) -> Result<WebSocketStream<Box<dyn Stream>>, Failed> {
    let stream: Box<dyn Stream> = if target.is_secure {
        Box::new(secure(target, stream).await.map_err(Failed::Unreachable)?)
    } else {
        Box::new(stream)
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let upgraded = client_async_with_config(target.url.as_str(), stream, Some(config)).await;
    upgraded.map(|(socket, _)| socket).map_err(|error| match error {
        Error::Http(answer) => {
            let reason = format!("the upgrade was answered with {}", answer.status());
            // A redirect is a refusal too.
            if answer.status().is_server_error() { Failed::Unanswered(reason) } else { Failed::Refused(reason) }
        }
        error => Failed::Unreachable(error.to_string()),
    })
}

async fn secure(target: &Target, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
    TlsConnector::from(tls()?).connect(name, stream).await.map_err(|error| error.to_string())
}

/// TLS 1.2 and up, with the roots of Mozilla.
fn tls() -> Result<Arc<ClientConfig>, String> {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

async fn publish(
    socket: &mut WebSocketStream<Box<dyn Stream>>,
    target: &Target,
    event: &Event,
    key: &SecretKey,
) -> Result<(), Failed> {
    let lost = |reason: String| Failed::Unanswered(reason);
    let json = String::from_utf8_lossy(&event.json()).into_owned();
    let frame = format!("[\"EVENT\",{json}]");
    socket.send(Message::text(frame.clone())).await.map_err(|error| lost(error.to_string()))?;
    let (mut challenge, mut proof) = (None, None);
    for _ in 0..MESSAGES_MAX {
        let message = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(_))) | None => return Err(lost("it ended the connection".to_owned())),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(lost(error.to_string())),
        };
        let Ok(message) = serde_json::from_str::<Value>(&message) else { continue };
        match message[0].as_str() {
            Some("AUTH") => challenge = message[1].as_str().map(str::to_owned),
            Some("OK") if message[1] == event.id().to_hex().as_str() => {
                let reason = message[3].as_str().unwrap_or_default();
                if message[2] == true {
                    return Ok(());
                }
                let Some(challenge) = challenge.as_deref().filter(|_| {
                    proof.is_none() && (reason.starts_with("auth-required:") || reason.starts_with("restricted:"))
                }) else {
                    return Err(Failed::Refused(reason.chars().take(200).collect()));
                };
                let (id, signed) = prove(target, event, key, challenge).map_err(lost)?;
                proof = Some(id);
                let frame = json!(["AUTH", signed]).to_string();
                socket.send(Message::text(frame)).await.map_err(|error| lost(error.to_string()))?;
            }
            Some("OK") if proof.as_deref().is_some_and(|id| message[1] == id) => {
                if message[2] != true {
                    return Err(Failed::Refused("it does not take this relay's key".to_owned()));
                }
                socket.send(Message::text(frame.clone())).await.map_err(|error| lost(error.to_string()))?;
            }
            _ => {}
        }
    }
    Err(lost("it sent too much before its answer".to_owned()))
}

/// The event that answers a challenge (NIP-42), and its id.
fn prove(target: &Target, event: &Event, key: &SecretKey, challenge: &str) -> Result<(String, Value), String> {
    let tag = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    let tags = [tag("relay", &target.url), tag("challenge", challenge)];
    let unsigned = Unsigned { created_at: event.created_at(), kind: Kind::AUTH.0, tags: &tags, content: "" };
    let signed = key.sign(&unsigned).map_err(|error| error.to_string())?.into_event();
    let json = serde_json::from_slice(&signed.json()).map_err(|error| error.to_string())?;
    Ok((signed.id().to_hex(), json))
}
