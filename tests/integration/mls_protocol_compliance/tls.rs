//! TLS on the listener: `[server] tls_cert` and `tls_key`, 1.2 and up.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{Keys, TestRelay, parse};

/// Starts a relay with a new certificate, which clients verify.
async fn relay() -> (TestRelay, CertificateDer<'static>, tempfile::TempDir) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let (cert_file, key_file) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert_file, cert.pem()).expect("written");
    std::fs::write(&key_file, signing_key.serialize_pem()).expect("written");
    let relay = TestRelay::start(|config| {
        config.server.tls_cert = Some(cert_file);
        config.server.tls_key = Some(key_file);
    })
    .await;
    (relay, cert.der().clone(), directory)
}

async fn connect(
    relay: &TestRelay,
    cert: &CertificateDer<'static>,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).expect("a version");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(relay.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

/// WebSocket and HTTP over TLS 1.2 and 1.3, with AUTH by the `wss` name.
#[tokio::test]
async fn the_relay_speaks_tls() {
    let (relay, cert, _directory) = relay().await;
    for version in [&TLS12, &TLS13] {
        let stream = connect(&relay, &cert, version).await.expect("a handshake");
        let url = format!("wss://localhost:{}", relay.address.port());
        let (mut socket, _) = client_async(url.as_str(), stream).await.expect("an upgrade");
        let mut next = async |message: Option<Value>| -> Value {
            if let Some(message) = message {
                socket.send(Message::text(message.to_string())).await.expect("sent");
            }
            let frame = socket.next().await.expect("a frame").expect("a frame");
            serde_json::from_str(frame.to_text().expect("text")).expect("JSON")
        };
        let challenge = next(None).await;
        let alice = Keys::random();
        let proof =
            alice.event(22242).tag(["relay", &url]).tag(["challenge", challenge[1].as_str().expect("text")]).sign();
        assert_eq!(next(Some(json!(["AUTH", proof.0]))).await, json!(["OK", proof.id(), true, ""]));
        let note = alice.event(1).sign();
        assert_eq!(next(Some(json!(["EVENT", note.0]))).await, json!(["OK", note.id(), true, ""]));

        let mut stream = connect(&relay, &cert, version).await.expect("a handshake");
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(parse(&answer).status, 200);
    }
}

/// A client that speaks no TLS is not served, and delays no other client.
#[tokio::test]
async fn plain_text_is_not_served() {
    let (relay, cert, _directory) = relay().await;
    let mut plain = TcpStream::connect(relay.address).await.expect("a connection");
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{answer:?}");
    connect(&relay, &cert, &TLS13).await.expect("a handshake");
}
