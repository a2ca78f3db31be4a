//! The connection that calls go over. It is replaced when it has fallen silent.
//!
//! HTTP/2's keep-alive (`wire::connect`) notices a connection that brings nothing. It does not notice one that loses
//! what is sent and still brings notifications, because each of them puts the check off. So the calls tell as well: if
//! one gets no answer in time, and none of the calls since its beginning does, the next calls get a new connection.

use std::time::{Duration, Instant};

use gcloud_sdk::{GoogleAuthMiddleware, google::firestore::v1::firestore_client::FirestoreClient};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Shortest wait without an answer, in seconds, that says something about the connection. Callers may give a call up
/// before its own deadline.
const SILENT_SECS_MIN: u64 = 4;

pub(crate) type Api = FirestoreClient<GoogleAuthMiddleware>;

/// See the module.
pub(crate) struct Line {
    connect: Box<dyn Fn() -> Api + Send + Sync>,
    state: Mutex<State>,
    replaced: watch::Sender<u64>,
}

struct State {
    api: Api,
    connected_at: Instant,
    /// The time of the last answer over this connection.
    answered_at: Instant,
}

impl State {
    fn new(api: Api) -> Self {
        let now = Instant::now();
        Self { api, connected_at: now, answered_at: now }
    }
}

impl Line {
    /// A line whose connections `connect` makes, each at its first call.
    pub(crate) fn new(connect: impl Fn() -> Api + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State::new(connect()));
        Self { connect: Box::new(connect), state, replaced: watch::Sender::new(0) }
    }

    /// The present connection.
    pub(crate) fn api(&self) -> Api {
        self.state.lock().api.clone()
    }

    /// Begins a call.
    pub(crate) fn call(&self) -> Call<'_> {
        Call { line: self, began: Instant::now(), is_over: false }
    }

    fn answered(&self, began: Instant) {
        let mut state = self.state.lock();
        if began >= state.connected_at {
            state.answered_at = Instant::now();
        }
    }

    fn unanswered(&self, began: Instant) {
        let mut state = self.state.lock();
        // Calls of an older connection say nothing about this one.
        if began < state.connected_at || state.answered_at >= began {
            return;
        }
        *state = State::new((self.connect)());
        drop(state);
        tracing::warn!("Firestore answers nothing on this connection: the next calls go over a new one");
        self.replaced.send_modify(|count| *count += 1);
    }

    /// Changes when the connection is replaced. Streams over the old one may never end by themselves.
    pub(crate) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }
}

/// A call under way. Dropped without an outcome, it got no answer in the time until then.
pub(crate) struct Call<'a> {
    line: &'a Line,
    began: Instant,
    is_over: bool,
}

impl Call<'_> {
    /// Notes that an answer came.
    pub(crate) fn answered(mut self) {
        self.is_over = true;
        self.line.answered(self.began);
    }

    /// Notes that the call failed in a way that says nothing about the connection, or that ends it by itself.
    pub(crate) fn failed(mut self) {
        self.is_over = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.began.elapsed() >= Duration::from_secs(SILENT_SECS_MIN) {
            self.line.unanswered(self.began);
        }
    }
}
