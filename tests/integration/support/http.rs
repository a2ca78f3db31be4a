//! HTTP written by hand, so that the request on the wire is exactly the one in the test.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::relay::WAIT;

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header lines in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

/// Sends `METHOD path` with these headers and reads the response.
pub async fn http(address: SocketAddr, line: &str, headers: &[(&str, &str)]) -> Response {
    parse(&exchange(address, line, headers, &[]).await)
}

/// Sends `METHOD path` and reads the response, head and body, whose body may be no text.
pub async fn http_bytes(address: SocketAddr, line: &str) -> Vec<u8> {
    exchange(address, line, &[], &[]).await
}

/// Sends a request with this body, and reads the bytes of the response.
pub async fn exchange(address: SocketAddr, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the relay listens");
        // A relay that refuses a long body by its head may close before all of it is sent.
        let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the answer is read");
        answer
    };
    timeout(WAIT, exchange).await.expect("the relay answers in time")
}

/// Parses a response.
pub fn parse(answer: &[u8]) -> Response {
    let answer = String::from_utf8(answer.to_vec()).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Sends `GET path` by HTTP/1.0, to which no server answers in chunks, and reads the bytes of the response.
pub async fn exchange_plainly(address: SocketAddr, path: &str) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let head = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the request is sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the answer is read");
        answer
    };
    timeout(WAIT, exchange).await.expect("the server answers in time")
}
