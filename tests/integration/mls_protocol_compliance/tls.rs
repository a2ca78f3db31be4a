//! TLS on the listener: `[server] tls_cert` and `tls_key`, 1.2 and up.

use std::{path::Path, sync::Arc};

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

/// Writes a new certificate and its key into a directory.
fn renew(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(directory.join("cert.pem"), cert.pem()).expect("written");
    std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).expect("written");
    cert.der().clone()
}

/// Starts a relay with a new certificate, which clients verify.
async fn relay() -> (TestRelay, CertificateDer<'static>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let (cert_file, key_file) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let cert = renew(directory.path());
    let relay = TestRelay::start(|config| {
        config.server.tls_cert = Some(cert_file);
        config.server.tls_key = Some(key_file);
    })
    .await;
    (relay, cert, directory)
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

/// The certificate is read again at SIGHUP and when its files have changed; one that cannot be used changes nothing.
#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let (relay, first, directory) = relay().await;
    let serves = async |cert: &CertificateDer<'static>| connect(&relay, cert, &TLS13).await.is_ok();
    assert!(serves(&first).await);

    let second = renew(directory.path());
    assert!(serves(&first).await && !serves(&second).await, "nobody has looked yet");
    relay.look_at_certificates();
    assert!(serves(&second).await && !serves(&first).await, "the files have changed");

    std::fs::write(directory.path().join("key.pem"), "no key").expect("written");
    relay.look_at_certificates();
    relay.reload();
    assert!(serves(&second).await, "the earlier certificate stays");

    let third = renew(directory.path());
    relay.reload();
    assert!(serves(&third).await && !serves(&second).await, "SIGHUP");
}
