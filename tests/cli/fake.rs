//! A server that speaks WebSocket and is no honest relay.

use std::net::TcpListener;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::{accept_async, tungstenite::Message};

/// Starts a server for one client. After the n-th message of the client it sends the n-th list of messages, where `ID`
/// stands for the id of the event in the client's message. Gives the server's URL.
pub(crate) fn server(hello: &'static [&'static str], answers: Vec<Vec<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    listener.set_nonblocking(true).expect("a socket of the runtime");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let (stream, _) = listener.accept().await.expect("a client");
            let mut socket = accept_async(stream).await.expect("a WebSocket");
            for text in hello {
                socket.send(Message::text(*text)).await.expect("it is sent");
            }
            let mut answers = answers.into_iter();
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                let sent: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                for text in answers.next().unwrap_or_default() {
                    let text = text.replace("ID", sent[1]["id"].as_str().unwrap_or_default());
                    // A client that has seen enough goes.
                    let _ = socket.send(Message::text(text)).await;
                }
            }
        });
    });
    url
}
