//! Minimal clients: they write frames by hand, so that the core of the load keeps up with the core of the relay.

use std::net::{Ipv4Addr, SocketAddr};

use nostr_protocol::{
    Unverified,
    testing::{EventBuilder, random_keypair},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Keeps the threads of this process, and threads started later, on one core.
pub fn pin_to_core(core: usize) {
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("taskset")
        .args(["-a", "-p", "-c", &core.to_string(), &pid])
        .stdout(std::process::Stdio::null())
        .status();
}

/// First byte of a text frame.
const TEXT_FRAME: u8 = 0x81;
/// First byte of a close frame.
const CLOSE_FRAME: u8 = 0x88;

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

    /// Connects from one of this machine's addresses and waits for the challenge; `None` where the relay closes the
    /// connection.
    pub async fn connect_from(address: Ipv4Addr, port: u16) -> Option<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.ok()?;
        let mut client = Self::upgrade(stream, port).await?;
        client.try_next().await?.starts_with(b"[\"AUTH\"").then_some(client)
    }

    async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::upgrade(stream, port).await.expect("the relay refused the handshake")
    }

    async fn upgrade(mut stream: TcpStream, port: u16) -> Option<Self> {
        stream.set_nodelay(true).ok()?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut buffer = Vec::new();
        while !buffer.windows(4).any(|w| w == b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let end = buffer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        if !buffer.starts_with(b"HTTP/1.1 101") {
            return None;
        }
        buffer.drain(..end);
        Some(Self { stream, buffer })
    }

    /// Sends frames; `None` where the relay has closed the connection.
    pub async fn try_send(&mut self, frames: &[u8]) -> Option<()> {
        self.stream.write_all(frames).await.ok()
    }

    /// The next text message; `None` where the relay has closed the connection. No message is lost when this future is
    /// dropped before it is done.
    pub async fn try_next(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.buffer.first() == Some(&CLOSE_FRAME) {
                return None;
            }
            if let Some((message, used)) = parse(&self.buffer) {
                let is_text = self.buffer[0] == TEXT_FRAME;
                self.buffer.drain(..used);
                if is_text {
                    return Some(message);
                }
                continue;
            }
            self.buffer.reserve(64 << 10);
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The two directions, for a client that reads nothing of what it gets.
    pub fn split(self) -> (Deaf, Talker) {
        let (reader, writer) = self.stream.into_split();
        (Deaf(reader), Talker(writer))
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

/// The side of a connection that takes bytes and looks at none.
pub struct Deaf(OwnedReadHalf);

impl Deaf {
    /// Takes some bytes; `None` at the end.
    pub async fn discard(&mut self) -> Option<()> {
        let mut bytes = [0; 16 << 10];
        (self.0.read(&mut bytes).await.ok()? > 0).then_some(())
    }
}

/// The side of a connection that sends.
pub struct Talker(OwnedWriteHalf);

impl Talker {
    /// Sends frames; `None` where the relay has closed the connection.
    pub async fn try_send(&mut self, frames: &[u8]) -> Option<()> {
        self.0.write_all(frames).await.ok()
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
