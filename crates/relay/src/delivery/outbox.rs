//! What waits to be sent to one client: bounded, filled by many, emptied by the connection's own task.
//!
//! An event stands here as its shared bytes; its frame is made when it is sent.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use nostr_extensions::Released;
use nostr_protocol::message::json_str;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most bytes of live events that wait for one client, where the operator says nothing else.
pub const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Most live events that wait for one client.
pub const OUTBOX_EVENTS_MAX: usize = 16_384;

/// A subscription's name as a JSON string, shared by all that is sent under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubName(Arc<str>);

impl SubName {
    /// Of the id that the client gave.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(json_str(id).into())
    }
}

/// One frame to be.
pub enum Outgoing {
    /// A frame as it is.
    Text(String),
    /// A live event.
    Event(SubName, Bytes),
}

impl Outgoing {
    /// The frame `["EVENT", subscription, event]`.
    #[must_use]
    pub fn event(name: &SubName, released: &Released) -> Self {
        Self::Event(name.clone(), released.json())
    }

    /// The frame's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => Bytes::from(text),
            Self::Event(name, json) => {
                let mut frame = Vec::with_capacity(name.0.len() + json.len() + 11);
                frame.extend_from_slice(b"[\"EVENT\",");
                frame.extend_from_slice(name.0.as_bytes());
                frame.push(b',');
                frame.extend_from_slice(&json);
                frame.push(b']');
                Bytes::from(frame)
            }
        }
    }

    /// How long it is, by what is in it.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Event(_, json) => json.len(),
        }
    }
}

/// See the module.
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    event_bytes_max: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new(OUTBOX_BYTES_MAX)
    }
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    events: usize,
    event_bytes: usize,
    closed: bool,
}

/// The client reads more slowly than events come.
#[derive(Debug, PartialEq, Eq)]
pub struct TooSlow;

impl Outbox {
    /// An empty one, for at most `event_bytes_max` bytes of live events.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), event_bytes_max }
    }

    /// Queues an answer. Answers are bounded by what the client may have under way, so they always find room.
    pub fn push(&self, text: String) {
        let mut queue = self.queue.lock();
        if !queue.closed {
            queue.frames.push_back(Outgoing::Text(text));
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Queues a live event.
    ///
    /// # Errors
    /// [`TooSlow`] when the bound is reached; the event is not queued.
    pub fn push_event(&self, event: Outgoing) -> Result<(), TooSlow> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Ok(());
        }
        if queue.events >= OUTBOX_EVENTS_MAX || queue.event_bytes + event.byte_len() > self.event_bytes_max {
            return Err(TooSlow);
        }
        queue.events += 1;
        queue.event_bytes += event.byte_len();
        queue.frames.push_back(event);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// The next frame, if one waits. The last one gives the memory back.
    pub fn pop(&self) -> Option<Outgoing> {
        let mut queue = self.queue.lock();
        let frame = queue.frames.pop_front();
        match &frame {
            Some(Outgoing::Event(_, json)) => {
                queue.events -= 1;
                queue.event_bytes -= json.len();
            }
            Some(Outgoing::Text(_)) => {}
            None if queue.frames.capacity() > 16 => queue.frames = VecDeque::new(),
            None => {}
        }
        frame
    }

    /// Waits until something has been queued since the last wait.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Wakes the next [`Self::filled`] for what was left.
    pub fn fill_again(&self) {
        self.filled.notify_one();
    }

    /// Takes nothing more, and drops what waits.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        *queue = Queue { closed: true, ..Queue::default() };
    }
}
