//! The bytes that a client has sent of a message that is not complete, and the time that it takes.
//!
//! Source: docs/rules.md, "Memory" 5. The library inflates each fragment when it comes, so a few hundred bytes may hold
//! a message of the greatest length. Such bytes count for the connection and for its payer, and a message that does
//! not come to its end in time ends the connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take},
    time::Instant,
};
use yawc::{Frame, OpCode, close::CloseCode};

use super::wire::ConnectionEnd;
use crate::memory::{Holding, UNFINISHED_STEP_BYTES};

/// Most bytes that one read takes from the socket. So many may lie behind a complete frame without being counted.
const READ_BYTES_MAX: usize = 16 << 10;
/// Time for a message to arrive, in seconds, beside the time for its bytes.
pub(crate) const MESSAGE_SECS_MAX: u64 = 20;
/// Bytes of a message for which a client has one second more.
pub(crate) const BYTES_PER_SEC_MIN: u64 = 4 << 10;
/// Bytes of the state that inflates a message, while the message is not complete.
const INFLATE_BYTES: usize = 48 << 10;

/// The reason of the close frame for a client whose message does not come to its end.
const LATE: &str = "a message arrives whole within 20 s, and 1 s more for each 4 KiB; send it again without pauses";
/// The reason of the close frame where the unfinished messages of one payer hold too much.
const TOO_MUCH: &str = "unfinished messages of your address hold too much memory; finish them before you begin others";

/// A client's socket as the relay reads it.
pub(crate) type ClientSocket<S> = yawc::streaming::Streaming<Intake<S>>;

/// The number of bytes that were read from a socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Arc<AtomicU64>);

impl Received {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that counts the bytes that are read from it, and gives them in pieces of [`READ_BYTES_MAX`].
pub(crate) struct Intake<S> {
    stream: Take<S>,
    received: Received,
}

impl<S: AsyncRead> Intake<S> {
    /// Counts into `received` what is read from `stream`.
    pub(crate) fn new(stream: S, received: Received) -> Self {
        Self { stream: stream.take(0), received }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        self.stream.set_limit(READ_BYTES_MAX as u64);
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        self.received.0.fetch_add((into.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(cx)
    }
}

/// The message that a client is sending.
pub(super) struct Unfinished {
    received: Received,
    /// Bytes that had been received when the last frame was complete.
    taken: u64,
    message_bytes_max: usize,
    fragments: Option<Fragments>,
    /// The time at which the message began, moved on by the time for which the relay did not read.
    since: Option<Instant>,
    /// The time from which on the relay does not read.
    rests: Option<Instant>,
    /// Bytes that the connection's holding counts.
    held: usize,
    /// Whole steps of them that its payer's memory counts.
    noted: usize,
}

/// The complete fragments of a message.
struct Fragments {
    opcode: OpCode,
    payload: Vec<u8>,
    /// Bytes of them on the wire, heads included.
    received: u64,
}

impl Unfinished {
    /// Nothing was read yet. A message has less than `message_bytes_max` bytes.
    pub(super) const fn new(received: Received, message_bytes_max: usize) -> Self {
        let (taken, fragments, since, rests, held, noted) = (0, None, None, None, 0, 0);
        Self { received, taken, message_bytes_max, fragments, since, rests, held, noted }
    }

    /// Returns whether a message is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.fragments.is_some() || self.of_frame() > 0
    }

    /// Bytes of the frame that is not complete.
    fn of_frame(&self) -> u64 {
        self.received.get() - self.taken
    }

    /// Notes that the relay stops reading.
    pub(super) fn rest(&mut self, now: Instant) {
        self.rests.get_or_insert(now);
    }

    /// Notes that the relay reads. The time since [`Self::rest`] is not the client's.
    pub(super) fn go_on(&mut self, now: Instant) {
        if let Some(rests) = self.rests.take()
            && let Some(since) = &mut self.since
        {
            *since += now.saturating_duration_since(rests);
        }
    }

    /// Takes a frame that is complete. Returns the message, or the control frame, that is complete with it.
    ///
    /// # Errors
    /// When the frames do not make a message (RFC 6455, 5.4), or the message is too long.
    pub(super) fn take(&mut self, frame: Frame, now: Instant) -> Result<Option<Frame>, ConnectionEnd> {
        let received = self.of_frame();
        self.taken += received;
        let message = self.assemble(frame, received)?;
        if self.fragments.is_none() {
            self.since = None;
        } else {
            self.since.get_or_insert(now);
        }
        Ok(message)
    }

    fn assemble(&mut self, frame: Frame, received: u64) -> Result<Option<Frame>, ConnectionEnd> {
        const NO_MESSAGE: ConnectionEnd = ConnectionEnd::Close(CloseCode::Protocol, "not WebSocket (RFC 6455)");
        let (opcode, is_last) = (frame.opcode(), frame.is_fin());
        match (opcode, &mut self.fragments) {
            (OpCode::Text | OpCode::Binary, None) if is_last => return Ok(Some(frame)),
            (OpCode::Text | OpCode::Binary, None) => {
                self.fragments = Some(Fragments { opcode, payload: frame.into_payload().to_vec(), received });
            }
            (OpCode::Text | OpCode::Binary, Some(_)) | (OpCode::Continuation, None) => return Err(NO_MESSAGE),
            (OpCode::Continuation, Some(fragments)) => {
                if fragments.payload.len() + frame.payload().len() >= self.message_bytes_max {
                    return Err(ConnectionEnd::Close(CloseCode::Size, "message too large"));
                }
                fragments.payload.extend_from_slice(frame.payload());
                fragments.received += received;
            }
            _ => return Ok(Some(frame)),
        }
        let whole = self.fragments.take_if(|_| is_last);
        Ok(whole.map(|Fragments { opcode, payload, .. }| match opcode {
            OpCode::Text => Frame::text(payload),
            _ => Frame::binary(payload),
        }))
    }

    /// Counts the bytes that wait for the rest of their message, now that the client has sent nothing more. Returns the
    /// time by which the message is to be complete.
    ///
    /// # Errors
    /// When the unfinished messages of the connection's payer hold too much.
    pub(super) fn count(&mut self, holding: &Holding, now: Instant) -> Result<Option<Instant>, ConnectionEnd> {
        let of_frame = self.of_frame();
        // A buffer that grows has up to twice the bytes.
        let mut bytes = 2 * of_frame as usize;
        let mut received = of_frame;
        if let Some(fragments) = &self.fragments {
            bytes += fragments.payload.capacity() + INFLATE_BYTES;
            received += fragments.received;
        }
        if !self.hold(holding, bytes) {
            return Err(ConnectionEnd::Close(CloseCode::Again, TOO_MUCH));
        }
        if !self.is_under_way() {
            return Ok(None);
        }
        let secs = MESSAGE_SECS_MAX + received / BYTES_PER_SEC_MIN;
        Ok(Some(*self.since.get_or_insert(now) + Duration::from_secs(secs)))
    }

    /// Gives back what was held of a message that is complete.
    pub(super) fn give_back(&mut self, holding: &Holding) {
        if self.fragments.is_none() {
            self.hold(holding, 0);
        }
    }

    /// Holds so many bytes from now on. Returns whether the payer's unfinished messages fit.
    fn hold(&mut self, holding: &Holding, bytes: usize) -> bool {
        match bytes.checked_sub(self.held) {
            Some(more) => holding.grow(more),
            None => holding.shrink(self.held - bytes),
        }
        self.held = bytes;
        let noted = bytes - bytes % UNFINISHED_STEP_BYTES;
        let before = std::mem::replace(&mut self.noted, noted);
        before == noted || holding.note_unfinished(noted)
    }

    /// The end of a connection whose message is late.
    pub(super) const fn late() -> ConnectionEnd {
        ConnectionEnd::Close(CloseCode::Policy, LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn fragment(opcode: OpCode, bytes: usize) -> Frame {
        let frame = if opcode == OpCode::Text {
            Frame::text(vec![b'a'; bytes])
        } else {
            Frame::continuation(vec![b'a'; bytes])
        };
        frame.with_fin(false)
    }

    /// A message has 20 s, and a second more for each 4 KiB of it that has come. Pongs in between, and time for which
    /// the relay did not read, change nothing.
    #[test]
    fn an_unfinished_message_is_late_by_its_bytes() {
        let memory = Memory::new(usize::MAX);
        let holding = memory.open(1);
        let received = Received::default();
        let mut unfinished = Unfinished::new(received.clone(), 1 << 20);
        let began = Instant::now();
        let after = |secs| began + Duration::from_secs(secs);
        let count = |unfinished: &mut Unfinished, now| unfinished.count(&holding, now).expect("it fits");
        assert_eq!(count(&mut unfinished, began), None, "nothing is under way");
        received.0.store(535, Ordering::Relaxed);
        assert!(unfinished.take(fragment(OpCode::Text, 500_000), began).expect("a fragment").is_none());
        assert_eq!(count(&mut unfinished, began), Some(after(20)), "bytes that were inflated give no time");
        received.0.fetch_add(1 << 20, Ordering::Relaxed);
        let pong = unfinished.take(Frame::pong(vec![0; 125]), after(5)).expect("a frame");
        assert_eq!(pong.map(|frame| frame.opcode()), Some(OpCode::Pong));
        assert_eq!(count(&mut unfinished, after(5)), Some(after(20)), "pongs give no time");
        received.0.fetch_add(40 << 10, Ordering::Relaxed);
        assert_eq!(count(&mut unfinished, after(10)), Some(after(30)), "bytes of the message give time");
        assert!(unfinished.take(fragment(OpCode::Continuation, 40_000), after(10)).expect("a fragment").is_none());
        assert_eq!(count(&mut unfinished, after(12)), Some(after(30)));
        unfinished.rest(after(12));
        unfinished.rest(after(13));
        unfinished.go_on(after(17));
        assert_eq!(count(&mut unfinished, after(17)), Some(after(35)), "the relay did not read for 5 s");
        let last = unfinished.take(Frame::continuation(Vec::new()), after(18)).expect("a message");
        assert_eq!(last.map(|message| message.payload().len()), Some(540_000));
        assert_eq!(count(&mut unfinished, after(90)), None);
    }
}
