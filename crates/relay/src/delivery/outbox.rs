//! The frames that wait to be sent to one client: a bounded queue that many tasks fill and the connection's own task
//! empties.
//!
//! An event waits as bytes that all its readers share; its frame is made when it is sent. This file is the only one
//! that puts an event into a frame, and it takes the event from a [`Released`] alone.
//!
//! Nothing is queued under a subscription after its `CLOSED`, and nothing that still waits is sent once the client has
//! closed or replaced the subscription. Its name knows so ([`SubscriptionName`]), and changes only while the queue of
//! its client is locked.

mod shared;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use nostr_extensions::Released;
use nostr_protocol::message::{Answer, auth_frame, json_str};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::shared::Kept;
pub(super) use self::shared::{KeptByPayer, Sharing};
use crate::{
    memory::{Holding, Memory, PayerMemory},
    turns::PayerHash,
};

/// Most bytes of live events that wait for one client, unless the operator chose another bound.
const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Most live events that wait for one client.
const OUTBOX_EVENTS_MAX: usize = 16_384;
/// Most frames that an empty queue keeps room for.
const IDLE_FRAMES_MAX: usize = 16;

/// A subscription's id as a JSON string, and whether events are still sent under it, shared by all of them.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionName(Arc<Name>);

#[derive(Debug)]
struct Name {
    json: Box<str>,
    /// [`OPEN`], [`ENDED`] or [`DROPPED`].
    state: AtomicU8,
}

/// The subscription's events are queued and sent.
const OPEN: u8 = 0;
/// The relay ended the subscription: the events before its `CLOSED` are sent.
const ENDED: u8 = 1;
/// The client closed or replaced the subscription: nothing that waits is sent.
const DROPPED: u8 = 2;

impl SubscriptionName {
    /// The name for the id that the client gave.
    pub(crate) fn new(id: &str) -> Self {
        Self(Arc::new(Name { json: json_str(id).into(), state: AtomicU8::new(OPEN) }))
    }

    fn is(&self, state: u8) -> bool {
        self.0.state.load(Ordering::Relaxed) == state
    }

    fn set(&self, state: u8) {
        self.0.state.store(state, Ordering::Relaxed);
    }
}

/// One frame to send: an answer, or an event that the gate released.
pub struct Outgoing(Frame);

enum Frame {
    /// An answer, which carries no event.
    Answer(Answer),
    /// The end of a subscription.
    Closed(SubscriptionName, Answer),
    /// `["EVENT", subscription, event]` of the archive.
    Event(SubscriptionName, Bytes),
    /// `["EVENT", subscription, event]` of live delivery.
    Live(SubscriptionName, Arc<Kept>),
}

impl From<Answer> for Outgoing {
    fn from(answer: Answer) -> Self {
        Self(Frame::Answer(answer))
    }
}

impl Outgoing {
    /// The frame `["EVENT", subscription, event]` of the archive. With [`Outbox::push_event`] the only way to a frame
    /// that carries an event.
    pub(crate) fn event(name: &SubscriptionName, released: &Released) -> Self {
        Self(Frame::Event(name.clone(), released.json()))
    }

    /// The frame's bytes.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Frame::Answer(answer) | Frame::Closed(_, answer) => Bytes::from(String::from(answer)),
            Frame::Event(name, json) => event_frame(&name, &json),
            Frame::Live(name, kept) => event_frame(&name, kept.json()),
        }
    }

    /// Length of the answer or of the event's JSON, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        match &self.0 {
            Frame::Answer(answer) | Frame::Closed(_, answer) => answer.len(),
            Frame::Event(_, json) => json.len(),
            Frame::Live(_, kept) => kept.json().len(),
        }
    }

    /// Time of the commit of an event of live delivery.
    pub(crate) fn committed(&self) -> Option<Instant> {
        match &self.0 {
            Frame::Live(_, kept) => Some(kept.committed()),
            _ => None,
        }
    }

    /// Bytes that the connection alone holds while the frame waits, beside its place in the queue.
    fn own_bytes(&self) -> usize {
        match &self.0 {
            Frame::Answer(answer) | Frame::Closed(_, answer) => answer.len(),
            Frame::Event(..) | Frame::Live(..) => 0,
        }
    }

    /// Returns whether the client has closed or replaced the frame's subscription.
    fn is_dropped(&self) -> bool {
        match &self.0 {
            Frame::Answer(_) => false,
            Frame::Closed(name, _) | Frame::Event(name, _) | Frame::Live(name, _) => name.is(DROPPED),
        }
    }
}

fn event_frame(name: &SubscriptionName, json: &[u8]) -> Bytes {
    let name = &name.0.json;
    let mut frame = Vec::with_capacity(name.len() + json.len() + 11);
    frame.extend_from_slice(b"[\"EVENT\",");
    frame.extend_from_slice(name.as_bytes());
    frame.push(b',');
    frame.extend_from_slice(json);
    frame.push(b']');
    Bytes::from(frame)
}

/// The challenge of a connection (NIP-42). It goes out again before each answer that asks for AUTH, until the client
/// has proven a key: some clients are not ready for the first one, and others take only the last before they need it.
#[derive(Debug, Default)]
pub(crate) struct Challenge {
    text: String,
    is_met: AtomicBool,
}

impl Challenge {
    /// A challenge that no key has met.
    pub(crate) fn new(text: String) -> Arc<Self> {
        Arc::new(Self { text, is_met: AtomicBool::new(false) })
    }

    /// The text to sign.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Notes that the client has proven a key.
    pub(crate) fn meet(&self) {
        self.is_met.store(true, Ordering::Relaxed);
    }

    /// The frame that goes out before `answer`, if there is one.
    pub(crate) fn before(&self, answer: &Answer) -> Option<Answer> {
        (answer.asks_for_auth() && !self.is_met.load(Ordering::Relaxed)).then(|| auth_frame(&self.text))
    }
}

/// See the module.
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    event_bytes_max: usize,
    holding: Holding,
    challenge: Arc<Challenge>,
}

impl Default for Outbox {
    /// An empty outbox of a client whose memory nothing bounds.
    fn default() -> Self {
        Self::new(OUTBOX_BYTES_MAX, Memory::new(usize::MAX).open(0), Arc::default())
    }
}

struct Queue {
    frames: VecDeque<Outgoing>,
    /// Frames that the queue has room for, as counted into the connection's memory.
    capacity: usize,
    events: usize,
    event_bytes: usize,
    /// The subscriptions whose `CLOSED` waits.
    closing: Vec<SubscriptionName>,
    payer: Option<Arc<PayerMemory>>,
    is_closed: bool,
}

/// The client reads more slowly than events come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl Outbox {
    /// An empty outbox for at most `event_bytes_max` bytes of live events; its frames are counted into `holding`. An
    /// answer that asks for AUTH follows the challenge.
    pub(crate) fn new(event_bytes_max: usize, holding: Holding, challenge: Arc<Challenge>) -> Self {
        let queue = Queue {
            frames: VecDeque::new(),
            capacity: 0,
            events: 0,
            event_bytes: 0,
            closing: Vec::new(),
            payer: holding.payer(),
            is_closed: false,
        };
        Self { queue: Mutex::new(queue), filled: Notify::new(), event_bytes_max, holding, challenge }
    }

    /// The memory that the client's connection holds.
    pub(crate) const fn holding(&self) -> &Holding {
        &self.holding
    }

    /// The challenge of the client's connection.
    pub(crate) fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Lets another payer answer for the memory of the client's connection.
    pub(crate) fn change_payer(&self, payer: PayerHash) {
        let mut queue = self.queue.lock();
        self.holding.change_payer(payer);
        queue.payer = self.holding.payer();
    }

    /// Queues an answer. The requests that a client may have under way bound the answers, so an answer always finds
    /// room.
    pub(crate) fn push(&self, answer: Answer) {
        let mut queue = self.queue.lock();
        let challenge = self.challenge.before(&answer);
        for frame in challenge.into_iter().chain([answer]) {
            self.queue_frame(&mut queue, frame.into());
        }
    }

    /// Queues a live event. Returns whether it is queued: nothing is once its subscription has ended.
    ///
    /// # Errors
    /// [`TooSlow`] when the bound is reached; the event is not queued.
    pub(super) fn push_event(
        &self,
        name: &SubscriptionName,
        released: &Released,
        kept: &mut KeptByPayer<'_>,
    ) -> Result<bool, TooSlow> {
        let mut queue = self.queue.lock();
        if queue.is_closed || !name.is(OPEN) {
            return Ok(false);
        }
        let bytes = kept.byte_len(released, self.holding.memory());
        if queue.events >= OUTBOX_EVENTS_MAX || queue.event_bytes + bytes > self.event_bytes_max {
            return Err(TooSlow);
        }
        queue.events += 1;
        queue.event_bytes += bytes;
        let kept = kept.of(queue.payer.as_ref(), released, self.holding.memory());
        self.holding.note_kept(queue.event_bytes);
        self.queue_frame(&mut queue, Outgoing(Frame::Live(name.clone(), kept)));
        Ok(true)
    }

    /// Ends a subscription, and tells the client so. Nothing is queued under it afterwards.
    pub(super) fn end(&self, name: &SubscriptionName, closed: Answer) {
        let mut queue = self.queue.lock();
        name.set(ENDED);
        if !queue.is_closed {
            queue.closing.push(name.clone());
            self.queue_frame(&mut queue, Outgoing(Frame::Closed(name.clone(), closed)));
        }
    }

    /// Notes that the client closed or replaced the subscription of this id. Nothing is queued under it, nor sent,
    /// afterwards; `open` is its name if it has not ended yet.
    pub(super) fn drop_subscription(&self, id: &str, open: Option<&SubscriptionName>) {
        let queue = self.queue.lock();
        if let Some(name) = open {
            name.set(DROPPED);
        }
        if !queue.closing.is_empty() {
            let json = json_str(id);
            queue.closing.iter().filter(|name| *name.0.json == *json).for_each(|name| name.set(DROPPED));
        }
    }

    fn queue_frame(&self, queue: &mut Queue, frame: Outgoing) {
        if queue.is_closed {
            return;
        }
        self.holding.grow(frame.own_bytes());
        queue.frames.push_back(frame);
        if queue.frames.capacity() > queue.capacity {
            let added = queue.frames.capacity() - queue.capacity;
            queue.capacity += added;
            self.holding.grow(added * size_of::<Outgoing>());
        }
        self.filled.notify_one();
    }

    /// Takes the next frame that is to be sent, if one waits. The call that finds none gives the queue's memory back.
    pub fn pop(&self) -> Option<Outgoing> {
        loop {
            let frame = self.take()?;
            self.holding.shrink(frame.own_bytes());
            if !frame.is_dropped() {
                return Some(frame);
            }
        }
    }

    fn take(&self) -> Option<Outgoing> {
        let mut queue = self.queue.lock();
        let Some(frame) = queue.frames.pop_front() else {
            if queue.frames.capacity() > IDLE_FRAMES_MAX {
                queue.frames = VecDeque::new();
                self.holding.shrink(std::mem::take(&mut queue.capacity) * size_of::<Outgoing>());
            }
            return None;
        };
        match &frame.0 {
            Frame::Live(_, kept) => {
                queue.events -= 1;
                queue.event_bytes -= kept.json().len();
                self.holding.note_kept(queue.event_bytes);
            }
            // They end in the order of their frames.
            Frame::Closed(name, _) => {
                let place = queue.closing.iter().position(|closing| Arc::ptr_eq(&closing.0, &name.0));
                place.map(|place| queue.closing.remove(place));
            }
            Frame::Answer(_) | Frame::Event(..) => {}
        }
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
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        queue.closing = Vec::new();
        (queue.events, queue.event_bytes) = (0, 0);
        let (frames, capacity) = (std::mem::take(&mut queue.frames), std::mem::take(&mut queue.capacity));
        self.holding.note_kept(0);
        drop(queue);
        let own: usize = frames.iter().map(Outgoing::own_bytes).sum();
        self.holding.shrink(own + capacity * size_of::<Outgoing>());
    }
}
