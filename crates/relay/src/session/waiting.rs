//! Messages that wait for the client's AUTH, for a moment after it connected.
//!
//! Source: docs/rules.md, "Identity" 12. A client may send its first requests before it has signed the challenge, and
//! many never repeat a request that was refused. A message that lacks nothing but a key therefore waits, in the order
//! of its arrival: as text, with its payment where it has a price, and unverified. The wait ends with the first AUTH,
//! taken or refused, and after the time that the operator chose; then each message is handled as if it came now. Bytes
//! that came within that time and were not read by its end are read before the wait ends, because an AUTH may be among
//! them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::handlers::event::Payment;
use crate::delivery::Outbox;

/// Most messages of one connection that wait.
const WAITING_MESSAGES_MAX: usize = 32;
/// Most bytes of these messages.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Most times that the relay looks for an unread message of a connection whose time is over, before the wait ends.
const LATE_LOOKS_MAX: usize = 32;

/// See the module.
pub(super) struct Waiting {
    /// The end of the time for the wait; `None` once the wait has ended.
    until: Option<Instant>,
    /// Number of looks for an unread message since then.
    late_looks: usize,
    messages: VecDeque<Waited>,
    bytes: usize,
    /// The outbox of the connection, in whose memory the messages count.
    outbox: Arc<Outbox>,
}

/// The form of a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// REQ
    Subscription,
    /// COUNT
    Count,
    /// NEG-OPEN
    Session,
}

/// One message.
pub(super) struct Waited {
    text: Box<str>,
    request: Option<(Request, Box<str>)>,
    payment: Option<Payment>,
}

impl Waited {
    /// The message, and the payment that was made for it.
    pub(super) fn into_parts(self) -> (Box<str>, Option<Payment>) {
        (self.text, self.payment)
    }

    fn held_bytes(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

impl Waiting {
    /// Nothing waits yet; messages may wait for `grace_ms` from now on.
    pub(super) fn new(grace_ms: u64, outbox: Arc<Outbox>) -> Self {
        let until = (grace_ms > 0).then(|| Instant::now() + Duration::from_millis(grace_ms));
        Self { until, late_looks: 0, messages: VecDeque::new(), bytes: 0, outbox }
    }

    /// Whether a further message of so many bytes may wait.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        // While messages wait, those that are read behind the end of the time may have come before it.
        let is_open = self.until.is_some_and(|until| !self.messages.is_empty() || Instant::now() < until);
        is_open && self.messages.len() < WAITING_MESSAGES_MAX && self.bytes + bytes <= WAITING_BYTES_MAX
    }

    /// Keeps a message; [`Self::has_room`] has said that it may wait.
    pub(super) fn push(&mut self, text: &str, request: Option<(Request, &str)>, payment: Option<Payment>) {
        let request = request.map(|(request, id)| (request, id.into()));
        let waited = Waited { text: text.into(), request, payment };
        self.bytes += waited.text.len();
        self.outbox.holding().grow(waited.held_bytes());
        self.messages.push_back(waited);
    }

    /// Drops the request of this form and id, which its client has ended or replaced.
    pub(super) fn drop_request(&mut self, request: Request, id: &str) {
        let is_it =
            |waited: &Waited| waited.request.as_ref().is_some_and(|(form, its_id)| *form == request && **its_id == *id);
        while let Some(at) = self.messages.iter().position(is_it) {
            let dropped = self.messages.remove(at);
            self.took(dropped.as_ref());
        }
    }

    /// Ends the wait.
    pub(super) const fn end(&mut self) {
        self.until = None;
    }

    /// Whether the relay looks for an unread message once more, although the time is over.
    pub(super) const fn looks_again(&mut self) -> bool {
        self.late_looks += 1;
        self.late_looks <= LATE_LOOKS_MAX
    }

    /// Waits until the time for the wait is over; for ever if no message waits.
    pub(super) async fn over(&self) {
        match self.until {
            _ if self.messages.is_empty() => std::future::pending().await,
            Some(until) => sleep_until(until).await,
            None => {}
        }
    }

    /// The next message to handle, once the wait has ended.
    pub(super) fn next(&mut self) -> Option<Waited> {
        if self.until.is_some() {
            return None;
        }
        let next = self.messages.pop_front();
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
        self.took(next.as_ref());
        next
    }

    fn took(&mut self, waited: Option<&Waited>) {
        self.bytes -= waited.map_or(0, |waited| waited.text.len());
        self.outbox.holding().shrink(waited.map_or(0, Waited::held_bytes));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.outbox.holding().shrink(self.messages.iter().map(Waited::held_bytes).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_MS: u64 = 3_600_000;

    #[test]
    fn waiting_messages_count_in_the_memory_of_their_connection() {
        let outbox = Arc::<Outbox>::default();
        let before = outbox.holding().bytes();
        let mut waiting = Waiting::new(LONG_MS, Arc::clone(&outbox));
        let text = "x".repeat(1_000);
        let mut taken = 0;
        while waiting.has_room(text.len()) {
            waiting.push(&text, Some((Request::Subscription, &taken.to_string())), None);
            taken += 1;
        }
        assert_eq!(taken, WAITING_MESSAGES_MAX);
        assert!(outbox.holding().bytes() - before >= 1_000 * WAITING_MESSAGES_MAX);
        waiting.drop_request(Request::Count, "1");
        waiting.drop_request(Request::Subscription, "1");
        assert!(waiting.has_room(1) && !waiting.has_room(WAITING_BYTES_MAX - 1_000 * 31 + 1));
        assert!(waiting.next().is_none(), "the wait goes on");
        waiting.end();
        assert_eq!(std::iter::from_fn(|| waiting.next()).count(), 31);
        assert_eq!((outbox.holding().bytes(), waiting.bytes), (before, 0));
        assert!(!waiting.has_room(1), "the wait has ended");
        let mut dropped = Waiting::new(LONG_MS, Arc::clone(&outbox));
        dropped.push(&text, None, None);
        drop(dropped);
        assert_eq!(outbox.holding().bytes(), before);
        assert!(!Waiting::new(0, outbox).has_room(1), "nothing waits where the operator chose no time");
    }
}
