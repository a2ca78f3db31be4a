//! WebSocket frames written by hand (RFC 6455), for messages that no library would send.

use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{
    event::{Event, Keys},
    relay::WAIT,
};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
/// Bit of a frame's first byte: last frame of its message.
pub const FIN: u8 = 0x80;
/// Bit of a frame's first byte: compressed message.
pub const RSV1: u8 = 0x40;

/// The head of a client's frame; its mask is zero, so the payload stays as it is.
pub fn head(first: u8, payload_bytes: u64) -> Vec<u8> {
    let mut head = vec![first];
    match payload_bytes {
        0..=125 => head.push(0x80 | payload_bytes as u8),
        126..=0xffff => {
            head.push(0x80 | 126);
            head.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend_from_slice(&payload_bytes.to_be_bytes());
        }
    }
    head.extend_from_slice(&[0; 4]);
    head
}

/// A client's frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// A frame that the relay sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// The sending half of a connection.
pub struct WireWriter(pub OwnedWriteHalf);

/// The receiving half of a connection.
pub struct WireReader(BufReader<OwnedReadHalf>);

/// A connection to the relay.
pub struct Wire {
    pub reader: WireReader,
    pub writer: WireWriter,
    /// The head of the relay's answer to the handshake.
    pub answer: String,
    pub challenge: String,
    address: SocketAddr,
}

impl Wire {
    /// Connects, and takes the challenge.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::open(address, "").await.expect("the relay upgrades the connection")
    }

    /// Connects and offers permessage-deflate.
    pub async fn compressed(address: SocketAddr) -> Self {
        let wire = Self::open(address, "sec-websocket-extensions: permessage-deflate\r\n").await;
        let wire = wire.expect("the relay upgrades the connection");
        assert!(wire.answer.contains("permessage-deflate"), "compression is offered: {}", wire.answer);
        wire
    }

    /// Connects with additional header lines.
    pub async fn open(address: SocketAddr, headers: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let mut wire = Self {
            reader: WireReader(BufReader::new(reader)),
            writer: WireWriter(writer),
            answer: String::new(),
            challenge: String::new(),
            address,
        };
        let request = format!(
            "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        wire.writer.raw(request.as_bytes()).await?;
        while !wire.answer.ends_with("\r\n\r\n") {
            let byte = within(wire.reader.0.read_u8()).await?;
            wire.answer.push(char::from(byte.to_ascii_lowercase()));
        }
        if !wire.answer.starts_with("http/1.1 101 ") {
            return Err(Error::new(ErrorKind::ConnectionRefused, wire.answer));
        }
        wire.challenge = wire.reader.message().await?[1].as_str().unwrap_or_default().to_owned();
        Ok(wire)
    }

    /// Authenticates.
    pub async fn auth(&mut self, keys: &Keys) {
        let relay = format!("ws://{}", self.address);
        let event = keys.event(22242).tag(["relay", &relay]).tag(["challenge", &self.challenge]).sign();
        self.writer.message(&json!(["AUTH", event.0])).await.expect("a message is sent");
        let answer = self.reader.message().await.expect("an answer");
        assert_eq!(answer[2], true, "{answer}");
    }

    /// Publishes an event and returns the frame that the relay answers.
    pub async fn publish(&mut self, event: &Event) -> Value {
        self.ask(&json!(["EVENT", event.0]).to_string()).await
    }

    /// Sends a text and returns the frame that the relay answers.
    pub async fn ask(&mut self, text: &str) -> Value {
        self.writer.text(text).await.expect("a message is sent");
        self.reader.message().await.expect("an answer")
    }
}

impl WireWriter {
    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        within(self.0.write_all(bytes)).await
    }

    /// Sends a text frame.
    pub async fn text(&mut self, text: &str) -> Result<()> {
        self.raw(&frame(FIN | TEXT, text.as_bytes())).await
    }

    /// Sends JSON.
    pub async fn message(&mut self, message: &Value) -> Result<()> {
        self.text(&message.to_string()).await
    }
}

impl WireReader {
    /// The next frame.
    pub async fn frame(&mut self) -> Result<Frame> {
        within(async {
            let opcode = self.0.read_u8().await? & 0x0f;
            let bytes = match self.0.read_u8().await? {
                126 => u64::from(self.0.read_u16().await?),
                127 => self.0.read_u64().await?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(bytes).expect("a frame fits")];
            self.0.read_exact(&mut payload).await?;
            Ok(Frame { opcode, payload })
        })
        .await
    }

    /// The next text frame as JSON; pings and pongs are skipped.
    pub async fn message(&mut self) -> Result<Value> {
        loop {
            let frame = self.frame().await?;
            match frame.opcode {
                TEXT => return Ok(serde_json::from_slice(&frame.payload)?),
                PING | PONG => {}
                _ => return Err(Error::new(ErrorKind::ConnectionAborted, format!("{frame:?}"))),
            }
        }
    }

    /// Reads to the end. Returns the code of the close frame, or `None` if the connection ended without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame().await.ok()?;
            if frame.opcode == CLOSE {
                return Some(frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
            }
        }
    }

    /// Whether the connection has ended.
    pub async fn is_at_end(&mut self) -> bool {
        within(self.0.read_u8()).await.is_err()
    }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(WAIT, work).await.expect("the relay does its part in time")
}
