//! The socket of a connection. Text frames are made of [`Outgoing`] alone, so an event is sent only after the gate has
//! released it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, SinkExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nostr_protocol::message::Answer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use yawc::{Frame, WebSocketError, close::CloseCode};

use super::intake::{ClientSocket, Received, Unfinished};
use crate::{
    delivery::{Outbox, Outgoing},
    observe::metrics::Metrics,
    server::WRITE_BYTES,
    shares::{Pause, Share},
};

/// Longest time for a client to take all bytes of one write, in seconds; a client that took only a part ends as well.
const WRITE_SECS_MAX: u64 = 30;
/// The same, once the relay is stopping or the connection is to end for want of memory.
const STOPPING_WRITE_SECS_MAX: u64 = 2;
/// Longest wait for the client to close its side, in seconds.
const CLOSE_SECS_MAX: u64 = 2;

/// The reason why a connection ends.
#[derive(Debug)]
pub(crate) enum ConnectionEnd {
    /// The client left, or the network failed.
    Gone,
    /// Close frames were exchanged, or the answer to one waits to be sent: no other frame may follow.
    Left,
    /// The relay closes it, with this code and reason.
    Close(CloseCode, &'static str),
    /// The relay stops, or the connection has lasted for as long as it may: the relay ends it without a close frame
    /// ([`Wire::end_without_close`]).
    Stop,
}

/// The switch by which a connection sends nothing more to its client, whatever is written to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silence(Arc<AtomicBool>);

impl Silence {
    /// Drops all that is written from now on.
    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether what is written is dropped.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A client's socket, which is written with back-pressure.
pub(crate) struct Wire<S = TokioIo<Upgraded>> {
    socket: ClientSocket<S>,
    unfinished: Unfinished,
    /// Elapses when the client's message is late.
    late: Option<Pin<Box<Sleep>>>,
    stopping: CancellationToken,
    outbox: Arc<Outbox>,
    /// Bytes of the frame that is being written.
    frame_bytes: AtomicUsize,
    silence: Silence,
    metrics: Arc<Metrics>,
}

/// The socket of a client, before its session begins.
pub(crate) struct Accepted<S = TokioIo<Upgraded>> {
    /// The socket.
    pub(crate) socket: ClientSocket<S>,
    /// The number of bytes that were read from it.
    pub(crate) received: Received,
    /// The switch of its stream.
    pub(crate) silence: Silence,
    /// A message has less bytes.
    pub(crate) message_bytes_max: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The wire of the client of `outbox`. After `stopping` is cancelled, or the connection is to end for want of
    /// memory, its waits are shorter.
    pub(crate) fn new(
        accepted: Accepted<S>,
        stopping: CancellationToken,
        outbox: Arc<Outbox>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Accepted { socket, received, silence, message_bytes_max } = accepted;
        let unfinished = Unfinished::new(received, message_bytes_max);
        Self { socket, unfinished, late: None, stopping, outbox, frame_bytes: AtomicUsize::new(0), silence, metrics }
    }

    /// The next message, or control frame, of the client. Each frame is read, and inflated, once `share` gives the
    /// connection time; a connection that `has_turn` has it for one frame. Nothing is lost when this future is dropped
    /// before it is done.
    ///
    /// # Errors
    /// The end that the connection has come to.
    pub(crate) async fn next_frame(&mut self, share: &Share, has_turn: &mut bool) -> Result<Frame, ConnectionEnd> {
        let mut reading = Reading { wire: self, share, pause: None };
        poll_fn(|cx| reading.poll(cx, has_turn)).await
    }

    /// Returns whether a message of the client is under way.
    pub(crate) fn is_receiving(&self) -> bool {
        self.unfinished.is_under_way()
    }

    /// Queues frames into the socket's buffer.
    pub(crate) async fn feed(&mut self, frames: impl Iterator<Item = Outgoing>) -> Result<(), ConnectionEnd> {
        let (mut count, mut bytes) = (0, 0);
        let fed = self
            .within(async |socket, frame_bytes| {
                for frame in frames {
                    let frame = frame.into_bytes();
                    frame_bytes.store(frame.len(), Ordering::Relaxed);
                    (count, bytes) = (count + 1, bytes + frame.len() as u64);
                    socket.feed(Frame::text(frame)).await?;
                }
                Ok(())
            })
            .await;
        self.metrics.frames_sent(count, bytes);
        fed
    }

    /// Writes the frames that were fed.
    pub(crate) async fn flush(&mut self) -> Result<(), ConnectionEnd> {
        self.within(async |socket, _| socket.flush().await).await
    }

    /// Sends one answer at once. One that asks for AUTH follows the challenge.
    pub(crate) async fn send(&mut self, answer: Answer) -> Result<(), ConnectionEnd> {
        let challenge = self.outbox.challenge().before(&answer);
        self.feed(challenge.into_iter().chain([answer]).map(Outgoing::from)).await?;
        self.flush().await
    }

    /// Sends a ping.
    pub(crate) async fn ping(&mut self) -> Result<(), ConnectionEnd> {
        self.within(async |socket, _| socket.send(Frame::ping("")).await).await
    }

    /// Sends a close frame.
    pub(crate) async fn send_close(&mut self, code: CloseCode, reason: &str) -> Result<(), ConnectionEnd> {
        let close = Frame::close(code, reason);
        self.within(async |socket, _| socket.send(close).await).await
    }

    /// Sends the library's own answers: a pong, or the close frame that ends the connection. The library would do so
    /// when there is nothing to read; a client that never lets it come to that would have it queue answers without end.
    pub(crate) async fn send_own(&mut self) -> Result<(), ConnectionEnd> {
        self.within(async |socket, _| poll_fn(|cx| socket.poll_ready_unpin(cx)).await).await
    }

    /// Ends the connection without a close frame. After one, some clients end their subscriptions for good, and others
    /// take it for an end that they asked for; all of them come back to a relay that went without.
    pub(crate) async fn end_without_close(&mut self) {
        if self.flush().await.is_ok() {
            self.silence.begin();
            self.close().await;
        }
    }

    /// Closes the connection after the last frame.
    pub(crate) async fn close(&mut self) {
        let _ = self.send_own().await;
        let _ = timeout(Duration::from_secs(CLOSE_SECS_MAX), self.socket.close()).await;
    }

    async fn within(
        &mut self,
        write: impl AsyncFnOnce(&mut ClientSocket<S>, &AtomicUsize) -> Result<(), WebSocketError>,
    ) -> Result<(), ConnectionEnd> {
        let holding = self.outbox.holding();
        let patience = async {
            tokio::select! {
                () = self.stopping.cancelled() => {}
                () = holding.shed().cancelled() => {}
            }
            sleep(Duration::from_secs(STOPPING_WRITE_SECS_MAX)).await;
        };
        let mut write = pin!(write(&mut self.socket, &self.frame_bytes));
        let mut held = None;
        // While the client takes nothing, the socket's buffer and the frame behind it wait.
        let counted = poll_fn(|cx| {
            let polled = write.as_mut().poll(cx);
            if polled.is_pending() {
                let waiting = WRITE_BYTES + self.frame_bytes.load(Ordering::Relaxed);
                held.get_or_insert_with(|| holding.hold(0)).set(waiting);
            }
            polled
        });
        tokio::select! {
            biased;
            written = timeout(Duration::from_secs(WRITE_SECS_MAX), counted) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(ConnectionEnd::Gone),
            },
            () = patience => Err(ConnectionEnd::Gone),
        }
    }

    /// Counts what has come of the client's message. Ready when its end is late.
    fn poll_late(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<ConnectionEnd> {
        match self.unfinished.count(self.outbox.holding(), now) {
            Ok(None) => self.late = None,
            Ok(Some(end)) => {
                let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(end)));
                if late.deadline() != end {
                    late.as_mut().reset(end);
                }
                return late.as_mut().poll(cx).map(|()| Unfinished::late());
            }
            Err(end) => return Poll::Ready(end),
        }
        Poll::Pending
    }

    /// The end that a failed read means. The library answers bytes that are no frame with a close frame of its own, and
    /// reads no further.
    fn end_of(&mut self, error: &WebSocketError) -> ConnectionEnd {
        let next = if error.is_closed() { None } else { self.socket.next_frame().now_or_never() };
        match next {
            Some(Err(next)) if next.is_closed() => ConnectionEnd::Left,
            _ => close_for(error),
        }
    }
}

/// A wait for the next frame of a client.
struct Reading<'a, S> {
    wire: &'a mut Wire<S>,
    share: &'a Share,
    pause: Option<Pause<'a>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reading<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>, has_turn: &mut bool) -> Poll<Result<Frame, ConnectionEnd>> {
        loop {
            if !std::mem::take(has_turn) {
                let pause = self.pause.get_or_insert_with(|| self.share.pause());
                if Pin::new(pause).poll(cx).is_pending() {
                    self.wire.unfinished.rest(Instant::now());
                    return Poll::Pending;
                }
                self.pause = None;
            }
            let wire = &mut *self.wire;
            let now = Instant::now();
            wire.unfinished.go_on(now);
            match wire.socket.poll_next_frame(cx) {
                Poll::Ready(Ok(frame)) => {
                    if let Some(message) = wire.unfinished.take(frame, now).transpose() {
                        wire.unfinished.give_back(wire.outbox.holding());
                        return Poll::Ready(message);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(wire.end_of(&error))),
                Poll::Pending => return wire.poll_late(cx, now).map(Err),
            }
        }
    }
}

impl<S> Drop for Reading<'_, S> {
    fn drop(&mut self) {
        self.wire.unfinished.rest(Instant::now());
    }
}

/// The close code that fits the error in a frame.
fn close_for(error: &WebSocketError) -> ConnectionEnd {
    match error {
        WebSocketError::FrameTooLarge => ConnectionEnd::Close(CloseCode::Size, "message too large"),
        WebSocketError::InvalidUTF8 => ConnectionEnd::Close(CloseCode::Invalid, "text is not UTF-8"),
        error if error.is_protocol_error() => ConnectionEnd::Close(CloseCode::Protocol, "not WebSocket (RFC 6455)"),
        _ => ConnectionEnd::Gone,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use yawc::{Options, Role, WebSocket};

    use super::*;
    use crate::{
        delivery::outbox::Challenge, memory::Memory, session::intake::Intake, shares::Shares, turns::PayerHash,
    };

    const PAYER: PayerHash = 7;
    const MESSAGE_BYTES_MAX: usize = 1 << 20;

    /// A client's end, and the relay's.
    fn wire(memory: &Arc<Memory>) -> (DuplexStream, Wire<DuplexStream>) {
        let (client, stream) = duplex(4 << 20);
        let received = Received::default();
        let options = Options::default().with_limits(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        let socket = WebSocket::from_stream(Intake::new(stream, received.clone()), Role::Server, options);
        let socket = socket.expect("a socket").into_streaming();
        let outbox = Outbox::new(1 << 20, memory.open(PAYER), Challenge::new("challenge".to_owned()));
        let accepted = Accepted { socket, received, silence: Silence::default(), message_bytes_max: MESSAGE_BYTES_MAX };
        (client, Wire::new(accepted, CancellationToken::new(), Arc::new(outbox), Arc::default()))
    }

    /// A client's frame, whose mask is zero.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0xff];
        frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        frame
    }

    /// Polls for the next frame once.
    fn poll(wire: &mut Wire<DuplexStream>, share: &Share, has_turn: &mut bool) -> Option<Result<Frame, ConnectionEnd>> {
        let waker = noop_waker();
        match pin!(wire.next_frame(share, has_turn)).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        }
    }

    /// The bytes of a frame that is not complete, and of fragments of a message, count until the message is complete.
    #[tokio::test]
    async fn bytes_of_an_unfinished_message_count() {
        let memory = Memory::new(usize::MAX);
        let (mut client, mut wire) = wire(&memory);
        let share = Shares::new(1).share(PAYER);
        let before = memory.used();
        let (first, last) = (frame(0x01, &[b'a'; 200_000]), frame(0x80, &[b'b'; 200_000]));
        client.write_all(&first[..100_000]).await.expect("bytes are sent");
        assert!(poll(&mut wire, &share, &mut true).is_none() && wire.is_receiving());
        assert_eq!(memory.used(), before + 2 * 100_000, "a frame that is not complete");
        client.write_all(&first[100_000..]).await.expect("bytes are sent");
        client.write_all(&frame(0x8a, b"")).await.expect("bytes are sent");
        let pong = poll(&mut wire, &share, &mut true).or_else(|| poll(&mut wire, &share, &mut true));
        assert_eq!(pong.expect("a frame").expect("a pong").opcode(), yawc::OpCode::Pong);
        assert!(poll(&mut wire, &share, &mut true).is_none() && wire.is_receiving());
        assert!((before + 200_000..before + 300_000).contains(&memory.used()), "a fragment");
        client.write_all(&last).await.expect("bytes are sent");
        let message = poll(&mut wire, &share, &mut true).or_else(|| poll(&mut wire, &share, &mut true));
        let message = message.expect("a frame").expect("a message");
        assert_eq!((message.opcode(), message.payload().len()), (yawc::OpCode::Text, 400_000));
        assert!(!wire.is_receiving());
        assert_eq!(memory.used(), before, "the one who handles it counts it from now on");
    }

    /// A connection whose payer has no time left does not read: what it is sent stays with the system.
    #[tokio::test]
    async fn a_frame_is_read_when_its_payer_has_time() {
        let memory = Memory::new(usize::MAX);
        let (mut client, mut wire) = wire(&memory);
        let shares = Shares::new(1);
        let share = shares.share(PAYER);
        client.write_all(&frame(0x81, b"a message")).await.expect("bytes are sent");
        shares.set_busy(true);
        share.owe(Duration::from_millis(20));
        assert!(poll(&mut wire, &share, &mut false).is_none() && !wire.is_receiving(), "nothing is read");
        shares.set_busy(false);
        let mut taken = None;
        for _ in 0..100 {
            taken = poll(&mut wire, &share, &mut false);
            if taken.is_some() {
                break;
            }
        }
        assert_eq!(taken.expect("its turn comes").expect("a message").payload().as_ref(), b"a message");
    }

    /// A connection that is given time to write, over and over, reads as well.
    #[tokio::test]
    async fn a_connection_that_writes_without_end_reads() {
        let memory = Memory::new(usize::MAX);
        let (mut client, mut wire) = wire(&memory);
        let shares = Shares::new(1);
        let share = shares.share(PAYER);
        client.write_all(&frame(0x89, b"ping")).await.expect("bytes are sent");
        shares.set_busy(true);
        share.owe(Duration::from_millis(20));
        let mut has_turn = true;
        let ping = poll(&mut wire, &share, &mut has_turn).expect("its turn serves").expect("a ping");
        assert_eq!(ping.opcode(), yawc::OpCode::Ping);
        assert!(!has_turn, "for one frame");
    }
}
