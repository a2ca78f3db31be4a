//! The frames that wait to be sent to one client: a bounded queue that many tasks fill and the connection's own task
//! empties.
//!
//! An event waits as bytes that all its readers share; its frame is made when it is sent. This file is the only one
//! that puts an event into a frame, and it takes the event from a [`Released`] alone.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use nostr_extensions::Released;
use nostr_protocol::message::{Answer, json_str};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::memory::{Holding, Memory};

/// Most bytes of live events that wait for one client, unless the operator chose another bound.
const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Most live events that wait for one client.
const OUTBOX_EVENTS_MAX: usize = 16_384;
/// Most frames that an empty queue keeps room for.
const IDLE_FRAMES_MAX: usize = 16;

/// A subscription's id as a JSON string, shared by all events that are sent under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionName(Arc<str>);

impl SubscriptionName {
    /// The name for the id that the client gave.
    pub(crate) fn new(id: &str) -> Self {
        Self(json_str(id).into())
    }
}

/// One frame to send: an answer, or an event that the gate released.
pub struct Outgoing(Frame);

enum Frame {
    /// An answer, which carries no event.
    Answer(Answer),
    /// `["EVENT", subscription, event]`
    Event(SubscriptionName, Bytes),
}

impl From<Answer> for Outgoing {
    fn from(answer: Answer) -> Self {
        Self(Frame::Answer(answer))
    }
}

impl Outgoing {
    /// The frame `["EVENT", subscription, event]`: the only way to a frame that carries an event.
    pub(crate) fn event(name: &SubscriptionName, released: &Released) -> Self {
        Self(Frame::Event(name.clone(), released.json()))
    }

    /// The frame's bytes.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Frame::Answer(answer) => Bytes::from(String::from(answer)),
            Frame::Event(name, json) => {
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

    /// Length of the answer or of the event's JSON, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        match &self.0 {
            Frame::Answer(answer) => answer.len(),
            Frame::Event(_, json) => json.len(),
        }
    }

    /// Bytes that the frame takes while it waits, with its place in the queue.
    fn held_bytes(&self) -> usize {
        self.byte_len() + size_of::<Self>()
    }

    const fn is_event(&self) -> bool {
        matches!(self.0, Frame::Event(..))
    }
}

/// See the module.
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    event_bytes_max: usize,
    holding: Holding,
}

impl Default for Outbox {
    /// An empty outbox of a client whose memory nothing bounds.
    fn default() -> Self {
        Self::new(OUTBOX_BYTES_MAX, Memory::new(usize::MAX).open())
    }
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    events: usize,
    event_bytes: usize,
    is_closed: bool,
}

/// The client reads more slowly than events come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl Outbox {
    /// An empty outbox for at most `event_bytes_max` bytes of live events; its frames are counted into `holding`.
    pub(crate) fn new(event_bytes_max: usize, holding: Holding) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), event_bytes_max, holding }
    }

    /// The memory that the client's connection holds.
    pub(crate) const fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Queues an answer. The requests that a client may have under way bound the answers, so an answer always finds
    /// room.
    pub(crate) fn push(&self, answer: Answer) {
        let mut queue = self.queue.lock();
        if !queue.is_closed {
            let frame = Outgoing::from(answer);
            self.holding.grow(frame.held_bytes());
            queue.frames.push_back(frame);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Queues a live event.
    ///
    /// # Errors
    /// [`TooSlow`] when the bound is reached; the event is not queued.
    pub(crate) fn push_event(&self, event: Outgoing) -> Result<(), TooSlow> {
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return Ok(());
        }
        if queue.events >= OUTBOX_EVENTS_MAX || queue.event_bytes + event.byte_len() > self.event_bytes_max {
            return Err(TooSlow);
        }
        queue.events += 1;
        queue.event_bytes += event.byte_len();
        self.holding.grow(event.held_bytes());
        queue.frames.push_back(event);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes the next frame, if one waits. The call that finds none gives the queue's memory back.
    pub fn pop(&self) -> Option<Outgoing> {
        let mut queue = self.queue.lock();
        let Some(frame) = queue.frames.pop_front() else {
            if queue.frames.capacity() > IDLE_FRAMES_MAX {
                queue.frames = VecDeque::new();
            }
            return None;
        };
        if frame.is_event() {
            queue.events -= 1;
            queue.event_bytes -= frame.byte_len();
        }
        drop(queue);
        self.holding.shrink(frame.held_bytes());
        Some(frame)
    }

    /// Waits until a frame has been queued since the last wait.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Ends the next [`Self::filled`] at once, for frames that are left.
    pub(crate) fn fill_again(&self) {
        self.filled.notify_one();
    }

    /// Drops the frames that wait, and takes no more.
    pub(crate) fn close(&self) {
        let closed = std::mem::replace(&mut *self.queue.lock(), Queue { is_closed: true, ..Queue::default() });
        self.holding.shrink(closed.frames.iter().map(Outgoing::held_bytes).sum());
    }
}
