//! Frames of a relay that carry no message: their number in a minute is bounded, and each ping is answered before the
//! next frame is read.
//!
//! The WebSocket keeps the answers to pings in memory until it can send them, and reads on meanwhile. A relay that
//! sends pings and reads nothing would fill the memory.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::time::{Instant, timeout};
use yawc::{Frame, OpCode, TcpWebSocket};

use super::Trouble;

/// Most frames without a message in a minute.
const FRAMES_PER_MINUTE_MAX: usize = 1_000;
/// The time in which they are counted, in seconds.
const COUNTED_SECS: u64 = 60;

/// See the module.
pub(in crate::cli) struct Controls {
    since: Instant,
    frames: usize,
}

impl Controls {
    pub(in crate::cli) fn new() -> Self {
        Self { since: Instant::now(), frames: 0 }
    }

    /// Takes a frame that carries no message, and sends the answer to a ping within `secs`.
    ///
    /// # Errors
    /// The relay sends too many such frames, or does not take the answer.
    pub(in crate::cli) async fn take(
        &mut self,
        frame: &Frame,
        socket: &mut TcpWebSocket,
        secs: u64,
    ) -> Result<(), Trouble> {
        self.count(Instant::now())?;
        if frame.opcode() != OpCode::Ping {
            return Ok(());
        }
        match timeout(Duration::from_secs(secs), socket.flush()).await {
            Ok(sent) => sent.map_err(|error| Trouble(format!("the connection broke: {error}"))),
            Err(_) => Err(Trouble(format!("the relay takes no answer to its ping within {secs} s"))),
        }
    }

    fn count(&mut self, now: Instant) -> Result<(), Trouble> {
        if now.duration_since(self.since) >= Duration::from_secs(COUNTED_SECS) {
            *self = Self { since: now, frames: 0 };
        }
        self.frames += 1;
        if self.frames > FRAMES_PER_MINUTE_MAX {
            let fault = format!("the relay sends over {FRAMES_PER_MINUTE_MAX} frames without a message in a minute");
            return Err(Trouble(fault));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_a_message_are_counted_by_the_minute() {
        let mut controls = Controls::new();
        for minute in 0..3 {
            let now = controls.since + Duration::from_secs(if minute == 0 { 0 } else { COUNTED_SECS });
            for _ in 0..FRAMES_PER_MINUTE_MAX {
                controls.count(now).expect("it is taken");
            }
            assert!(controls.count(now + Duration::from_secs(COUNTED_SECS - 1)).is_err());
        }
    }
}
