//! Traces by OTLP, which a collector of this test takes: gRPC over HTTP/2, whose messages are searched for their words.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Client, Keys,
    gateway::{key_package, message},
    process::Process,
};

/// Everything that came, of all calls.
type Taken = Arc<Mutex<Vec<u8>>>;

/// Takes calls and answers each with success.
async fn collect(stream: TcpStream, taken: Taken) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let taken = Arc::clone(&taken);
        assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(bytes)) = body.data().await {
                let _ = body.flow_control().release_capacity(bytes.len());
                taken.lock().expect("no panic while it is held").extend_from_slice(&bytes);
            }
            let head = axum::http::Response::builder().header("content-type", "application/grpc");
            let mut answer = respond.send_response(head.body(()).expect("a head"), false).expect("it is sent");
            // An empty message, not compressed.
            answer.send_data(bytes::Bytes::from_static(&[0; 5]), false).expect("it is sent");
            let trailers = [("grpc-status", "0")].map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
            });
            answer.send_trailers(trailers.into_iter().collect()).expect("they are sent");
        });
    }
}

fn holds(taken: &[u8], word: &[u8]) -> bool {
    taken.windows(word.len()).any(|window| window == word)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_and_a_request_are_one_trace_each_with_their_stages() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("otlp_endpoint = \"http://{}\"", listener.local_addr().expect("an address"));
    let taken = Taken::default();
    let collecting = Arc::clone(&taken);
    let collector = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(collect(stream, Arc::clone(&collecting)));
        }
    });
    let (directory, alice, group) =
        (tempfile::tempdir().expect("a directory"), Keys::random(), crate::support::gateway::capability());
    let mut relay = Process::start(directory.path(), &[("server", &endpoint)]);
    let mut client = Client::open(&relay.url, &[]).await.expect("a connection");
    let event = message(&group).sign();
    client.publish(&event).await.ok();
    client.publish(&key_package(&alice).sign()).await.ok();
    client.req_now("s", &[json!({"kinds": [445], "#h": [group]})]).await.expect("stored events");
    relay.signal("TERM");
    assert!(relay.exit(Duration::from_secs(20)).await.success());
    collector.abort();
    let taken = taken.lock().expect("no panic while it is held");
    for word in ["rnostr", "EVENT", "admission", "writer", "store", "REQ", "fresh", "archive", "eose", "nostr.kind"] {
        assert!(holds(&taken, word.as_bytes()), "no {word} in {} bytes", taken.len());
    }
    for secret in [alice.hex(), event.id().to_owned(), group] {
        let bytes = nostr_protocol::hex::parse_any(secret.as_bytes()).expect("hex");
        assert!(!holds(&taken, secret.as_bytes()) && !holds(&taken, &bytes), "{secret}");
    }
}
