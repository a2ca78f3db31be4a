//! A stranger who reaches the way on which instances send each other messages.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Time in which a beat over Redis surely comes.
const BEAT: Duration = Duration::from_secs(3);
/// Places of a message's parts; see `peers::message`.
const HEAD_BYTES: usize = 34;
const CODE_BYTES: usize = 16;

/// Whether a message that was captured charges a bucket.
pub fn is_charging(message: &[u8]) -> bool {
    message.len() > HEAD_BYTES + CODE_BYTES
}

/// Messages as a stranger makes them of one that was captured.
pub fn invented(message: &[u8]) -> Vec<Vec<u8>> {
    let charges = &message[HEAD_BYTES..message.len() - CODE_BYTES];
    let mut dearer = message.to_vec();
    if let Some(times) = dearer.get_mut(HEAD_BYTES + 9..HEAD_BYTES + 13) {
        times.copy_from_slice(&150_u32.to_be_bytes());
    }
    let mut later = message.to_vec();
    later[17..25].copy_from_slice(&u64::MAX.to_be_bytes());
    let mut by_another = message.to_vec();
    by_another[1..17].copy_from_slice(&[0xee; 16]);
    // The layout of the first release, which anyone could make.
    let first = [&[1][..], &[0xee; 16], &[1], charges].concat();
    vec![dearer, later, by_another, first]
}

/// A connection to Redis that speaks its protocol (RESP2) as far as this test needs it.
pub struct RawRedis {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl RawRedis {
    pub async fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("redis://").split('/').next().expect("an address");
        Self { socket: TcpStream::connect(address).await.expect("Redis listens"), unread: Vec::new() }
    }

    /// Sends a command.
    pub async fn send(&mut self, words: &[&[u8]]) {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            text.extend_from_slice(word);
            text.extend_from_slice(b"\r\n");
        }
        self.socket.write_all(&text).await.expect("Redis reads");
    }

    async fn fill(&mut self) -> bool {
        matches!(timeout(BEAT, self.socket.read_buf(&mut self.unread)).await, Ok(Ok(read)) if read > 0)
    }

    /// The next line, without its end; `None` if none comes.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|it| it == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Some(line);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next message of any channel, with the channel.
    pub async fn message(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        loop {
            let count: usize = self.line().await?.strip_prefix('*')?.parse().ok()?;
            let mut words = Vec::new();
            for _ in 0..count {
                let line = self.line().await?;
                // The number of subscriptions in the answer to PSUBSCRIBE is no string.
                let Some(length) = line.strip_prefix('$') else { continue };
                let length: usize = length.parse().ok()?;
                while self.unread.len() < length + 2 {
                    if !self.fill().await {
                        return None;
                    }
                }
                words.push(self.unread[..length].to_vec());
                self.unread.drain(..length + 2);
            }
            if words.first().is_some_and(|it| it == b"pmessage") {
                let payload = words.pop()?;
                return Some((words.pop()?, payload));
            }
        }
    }
}
