//! Minimal clients: they write frames by hand, so that the core of the load keeps up with the core of the relay.

use nostr_protocol::{
    Unverified,
    testing::{EventBuilder, random_keypair},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Keeps the threads of this process, and threads started later, on one core.
pub fn pin_to_core(core: usize) {
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("taskset")
        .args(["-a", "-p", "-c", &core.to_string(), &pid])
        .stdout(std::process::Stdio::null())
        .status();
}

/// A WebSocket client that reads and writes frames on a TCP socket itself.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and waits for the challenge.
    pub async fn connect(port: u16) -> Self {
        let mut client = Self::open(port).await;
        assert!(client.next().await.starts_with(b"[\"AUTH\""));
        client
    }

    /// Connects and authenticates.
    pub async fn connect_as(port: u16, keypair: &secp256k1::Keypair) -> Self {
        let mut client = Self::open(port).await;
        let challenge: (String, String) = serde_json::from_slice(&client.next().await).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let relay = format!("ws://127.0.0.1:{port}");
        let proof = EventBuilder::new(22242).tag(&["challenge", &challenge.1]).tag(&["relay", &relay]).at(now);
        client.send(&frame(&format!("[\"AUTH\",{}]", proof.json(keypair)))).await;
        assert!(client.next().await.windows(6).any(|w| w == b",true,"));
        client
    }

    async fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = Vec::new();
        while !buffer.windows(4).any(|w| w == b"\r\n\r\n") {
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "the relay refused the handshake");
        }
        let end = buffer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(buffer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&buffer));
        buffer.drain(..end);
        Self { stream, buffer }
    }

    /// Sends frames that [`frame`] made.
    pub async fn send(&mut self, frames: &[u8]) {
        self.stream.write_all(frames).await.unwrap();
    }

    /// The next text message.
    pub async fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some((message, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return message;
            }
            self.fill().await;
        }
    }

    /// Waits for at least one message and calls `each` with all that have arrived.
    pub async fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let mut at = 0;
        loop {
            while let Some((start, end)) = bounds(&self.buffer[at..]) {
                each(&self.buffer[at + start..at + end]);
                at += end;
            }
            if at > 0 {
                self.buffer.drain(..at);
                return;
            }
            self.fill().await;
        }
    }

    async fn fill(&mut self) {
        self.buffer.reserve(64 << 10);
        assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the relay closed the connection");
    }
}

fn parse(buffer: &[u8]) -> Option<(Vec<u8>, usize)> {
    bounds(buffer).map(|(start, end)| (buffer[start..end].to_vec(), end))
}

/// Start and end of the first frame's payload.
fn bounds(buffer: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*buffer.get(1)?);
    let (start, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?) as usize),
        _ => (2, short),
    };
    (buffer.len() >= start + length).then_some((start, start + length))
}

/// A masked text frame (RFC 6455). The mask is zero, so the payload stays as it is.
pub fn frame(text: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    match text.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text.as_bytes());
    out
}

/// The id of group number `n`: 64 hex digits, an unlisted group.
pub fn group(n: usize) -> String {
    format!("{n:064x}")
}

/// A signed group message of about 480 bytes, as JSON.
pub fn group_message(group: &str, created_at: u64) -> String {
    let keypair = random_keypair();
    let content = "A".repeat(120);
    EventBuilder::new(445).tag(&["h", group]).content(content).at(created_at).json(&keypair)
}

/// An event without a valid signature, for filling a store; only its id is checked.
pub fn unsigned(json: &str) -> nostr_protocol::Verified {
    let event = Unverified::parse(json.as_bytes()).unwrap();
    let id = event.event().id();
    event.same_as(&id).unwrap()
}
