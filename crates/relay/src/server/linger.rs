//! A stream that goes on reading for a moment after its side is closed.
//!
//! The system resets a socket that is closed while bytes of the peer wait unread. A reset takes back the bytes that the
//! peer has not read yet: the answer to its last event, or the close frame that says why (RFC 9112, 9.6, "lingering
//! close"). A peer that floods gets the reset all the same: the stream drops a bounded number of bytes, some at a time,
//! on the share of the processor of its payer.
//!
//! A session may end its connection without a WebSocket close frame: from then on the stream drops the bytes that are
//! written to it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{session::Silence, shares::Share};

/// Longest wait for the peer to close its side.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a further byte: a peer that sends nothing has nothing under way that would cause a reset.
const QUIET_MAX: Duration = Duration::from_millis(200);
/// Most bytes that are dropped. A client that sends one message behind another has about so many under way.
const DROPPED_BYTES_MAX: usize = 4 << 20;
/// Most bytes that are dropped before the payer's next turn.
const DROPPED_AT_ONCE_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Linger<S> {
    stream: S,
    silence: Silence,
    share: Share,
    /// Set when our side is closed.
    closing: Option<Closing>,
}

struct Closing {
    until: Instant,
    /// Ends the wait for a further byte.
    timer: Pin<Box<Sleep>>,
    /// The wait for the payer's turn, while there is one.
    turn: Option<BoxFuture<'static, ()>>,
    bytes_left: usize,
}

impl<S> Linger<S> {
    /// A stream that drops the bytes that are written to it once `silence` has begun. `share` is that of its payer.
    pub(super) const fn new(stream: S, silence: Silence, share: Share) -> Self {
        Self { stream, silence, share, closing: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.silence.has_begun() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.silence.has_begun() {
            return Poll::Ready(Ok(bytes.iter().map(|bytes| bytes.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes our side, then reads and drops bytes until the peer has closed its own side or is quiet.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, share, closing, .. } = &mut *self;
        let closing = match closing {
            Some(closing) => closing,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                let now = Instant::now();
                closing.insert(Closing {
                    until: now + LINGER_MAX,
                    timer: Box::pin(sleep_until(now + QUIET_MAX)),
                    turn: None,
                    bytes_left: DROPPED_BYTES_MAX,
                })
            }
        };
        let Closing { until, timer, turn, bytes_left } = closing;
        if let Some(waiting) = turn {
            ready!(waiting.as_mut().poll(cx));
            *turn = None;
            timer.as_mut().reset((Instant::now() + QUIET_MAX).min(*until));
        }
        let mut dropped = [0; 16 << 10];
        let mut at_once = 0;
        while at_once < DROPPED_AT_ONCE_MAX {
            let mut into = ReadBuf::new(&mut dropped);
            match Pin::new(&mut *stream).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() && Instant::now() < *until => {
                    at_once += into.filled().len();
                    timer.as_mut().reset((Instant::now() + QUIET_MAX).min(*until));
                }
                // The peer has closed its side, is gone, or goes on for too long.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return timer.as_mut().poll(cx).map(Ok),
            }
        }
        *bytes_left = bytes_left.saturating_sub(at_once);
        if *bytes_left == 0 {
            return Poll::Ready(Ok(()));
        }
        let share = share.clone();
        *turn = Some(async move { share.turn().await }.boxed());
        // The new wait is polled at once, by way of the runtime, so that its task does not stay on for another portion.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
