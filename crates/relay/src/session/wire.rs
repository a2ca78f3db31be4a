//! The socket of a connection. Text frames are made of [`Outgoing`] alone, so an event is sent only after the gate has
//! released it.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, SinkExt as _};
use nostr_protocol::message::Answer;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use yawc::{Frame, HttpWebSocket, WebSocketError, close::CloseCode};

use crate::{
    delivery::{Outbox, Outgoing},
    server::WRITE_BYTES,
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
    /// The relay stops: it ends the connection without a close frame ([`Wire::end_without_close`]).
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
pub(crate) struct Wire {
    socket: HttpWebSocket,
    stopping: CancellationToken,
    outbox: Arc<Outbox>,
    /// Bytes of the frame that is being written.
    frame_bytes: AtomicUsize,
    silence: Silence,
}

impl Wire {
    /// The wire of the client of `outbox`. After `stopping` is cancelled, or the connection is to end for want of
    /// memory, its waits are shorter.
    pub(crate) const fn new(
        socket: HttpWebSocket,
        stopping: CancellationToken,
        outbox: Arc<Outbox>,
        silence: Silence,
    ) -> Self {
        Self { socket, stopping, outbox, frame_bytes: AtomicUsize::new(0), silence }
    }

    /// The next frame of the client. No frame is lost when this future is dropped before it is done.
    ///
    /// # Errors
    /// The end that the connection has come to.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, ConnectionEnd> {
        let frame = self.socket.next_frame().await;
        frame.map_err(|error| self.end_of(&error))
    }

    /// Queues frames into the socket's buffer.
    pub(crate) async fn feed(&mut self, frames: impl Iterator<Item = Outgoing>) -> Result<(), ConnectionEnd> {
        self.within(async |socket, frame_bytes| {
            for frame in frames {
                let frame = frame.into_bytes();
                frame_bytes.store(frame.len(), Ordering::Relaxed);
                socket.feed(Frame::text(frame)).await?;
            }
            Ok(())
        })
        .await
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
        write: impl AsyncFnOnce(&mut HttpWebSocket, &AtomicUsize) -> Result<(), WebSocketError>,
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

/// The close code that fits the error in a frame.
fn close_for(error: &WebSocketError) -> ConnectionEnd {
    match error {
        WebSocketError::FrameTooLarge => ConnectionEnd::Close(CloseCode::Size, "message too large"),
        WebSocketError::InvalidUTF8 => ConnectionEnd::Close(CloseCode::Invalid, "text is not UTF-8"),
        error if error.is_protocol_error() => ConnectionEnd::Close(CloseCode::Protocol, "not WebSocket (RFC 6455)"),
        _ => ConnectionEnd::Gone,
    }
}
