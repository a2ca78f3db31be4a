//! Fair shares of the processor: a connection's task goes on with its next piece of work only while its payer has time
//! left.
//!
//! Each payer has a budget of time, from which each poll of a connection's task is paid, at each pause and at the
//! poll's end. It fills again at [`REFILL`] of a core. A payer that stays below that never waits here. Between two
//! pieces of work, such as messages or pages, a task pauses ([`Share::pause`]). If its payer has used its budget up,
//! the task is parked, and the payer joins a line. The payer at the head of the line is given a [`QUANTUM`], and its
//! parked tasks run one after the other until it is used up. As many payers run on such a quantum at one time as
//! there are workers; where one payer alone waits, as many of its tasks do.
//!
//! So the runtime's queue holds few tasks of busy payers at one time, however many connections they have: a task of
//! another payer waits for one piece of work on each worker. A task is parked only where it holds nothing that another
//! task may wait for. A busy payer that is alone gets the whole processor.
//!
//! A poll is paid by the payer that the task has at its end: a request by the client that its head names.
//!
//! A task that got a quantum first lets the runtime look at its sockets, so that frames of other clients are seen in
//! between. While other payers are served, it also lets the system run the threads that wait for its core, such as the
//! one that writes to the embedded store.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{beside::Beside, turns::PayerHash};

/// The time that a payer in the line is given at once while others are served as well. An event of another payer waits
/// about so long at each of its steps: for the runtime to see its frame, for the writer's answer, for its own task.
const QUANTUM: Duration = Duration::from_micros(250);
/// The time that a payer is given at once while it is alone: its events go into few batches, and the answers to what a
/// connection sent at once into one write.
const QUANTUM_ALONE: Duration = Duration::from_millis(4);
/// Time, in microseconds, after which a payer that no other followed is alone.
const ALONE_US: u64 = 100_000;
/// The most time that a payer saves up.
const SAVED_MAX: Duration = Duration::from_millis(1);
/// The share of a core at which a payer's budget fills, as its reciprocal: an eighth.
const REFILL: u64 = 8;
/// Longest time that a payer owes, so that one slow poll does not stop a payer for long.
const DEBT_MAX: Duration = Duration::from_millis(50);
/// Least number of payers at which the map forgets those without connections.
const PAYERS_MAX: usize = 4_096;

/// The shares of all payers.
pub(crate) struct Shares {
    line: Mutex<Line>,
    at_once: usize,
    began: Instant,
    /// The payer that paid last, and the microseconds from `began` to the last time that one followed another.
    last: AtomicU64,
    switched_us: AtomicU64,
    beside: Beside,
}

#[derive(Default)]
struct Line {
    /// Payers that run on a quantum.
    granted: usize,
    /// Payers that wait for one.
    waiting: VecDeque<PayerHash>,
    /// Payers that wait or run on a quantum, or whose tasks are parked.
    queues: HashMap<PayerHash, Queue>,
    payers: HashMap<PayerHash, Weak<Budget>>,
    /// Number of payers at which those without connections are forgotten next.
    payers_max: usize,
    places: u64,
}

/// The tasks of one payer that are parked.
struct Queue {
    budget: Arc<Budget>,
    is_granted: bool,
    is_waiting: bool,
    parked: BTreeMap<u64, Parked>,
    /// The tasks that were woken to run and have not been polled yet.
    woken: BTreeSet<u64>,
}

struct Parked {
    waker: Waker,
    /// Set where the runtime looks at its sockets before the task runs.
    yields: bool,
}

/// The time that one payer has left.
pub(crate) struct Budget {
    payer: PayerHash,
    left_ns: AtomicI64,
    /// Microseconds from [`Shares::began`] to the last time that the budget was filled.
    filled_us: AtomicU64,
    /// Set while the payer has a queue.
    is_queued: AtomicBool,
    /// Polls that were paid for.
    #[cfg(test)]
    polls: AtomicU64,
}

/// The payer of a task, which changes when the client proves a key.
#[derive(Clone)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    task: Arc<Task>,
}

/// A task that runs on a share.
struct Task {
    budget: Mutex<Arc<Budget>>,
    /// Nanoseconds from [`Shares::began`] up to which the task's time is paid for, while the task is polled.
    paid_ns: AtomicU64,
}

/// The answer to a task that wants to run.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Run,
    /// The runtime looks at its sockets first.
    Yield,
    Park,
}

impl Shares {
    /// Shares of a runtime with this many workers.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let beside = Beside::new(workers);
        Arc::new(Self {
            line: Mutex::default(),
            at_once: workers.max(1),
            began: Instant::now(),
            last: AtomicU64::new(0),
            switched_us: AtomicU64::new(0),
            beside,
        })
    }

    /// The share of a task whose payer is `payer`.
    pub(crate) fn share(self: &Arc<Self>, payer: PayerHash) -> Share {
        let task = Task { budget: Mutex::new(self.budget(payer)), paid_ns: AtomicU64::new(self.now_ns()) };
        Share { shares: Arc::clone(self), task: Arc::new(task) }
    }

    /// Lets other payers run on all quanta, or on none any more.
    #[cfg(test)]
    pub(crate) fn set_busy(&self, is_busy: bool) {
        let mut line = self.line.lock();
        line.granted = if is_busy { self.at_once } else { 0 };
        self.serve(&mut line);
    }

    fn budget(&self, payer: PayerHash) -> Arc<Budget> {
        let mut line = self.line.lock();
        if let Some(budget) = line.payers.get(&payer).and_then(Weak::upgrade) {
            return budget;
        }
        // The bound follows the payers that are left, so that a look at all of them is paid for by as many new ones.
        if line.payers.len() >= line.payers_max.max(PAYERS_MAX) {
            line.payers.retain(|_, budget| budget.strong_count() > 0);
            line.payers_max = 2 * line.payers.len();
        }
        let budget = Arc::new(Budget {
            payer,
            left_ns: AtomicI64::new(nanos(SAVED_MAX)),
            filled_us: AtomicU64::new(self.now_us()),
            is_queued: AtomicBool::new(false),
            #[cfg(test)]
            polls: AtomicU64::new(0),
        });
        line.payers.insert(payer, Arc::downgrade(&budget));
        budget
    }

    fn now_us(&self) -> u64 {
        self.now_ns() / 1_000
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Decides whether a task runs now. `place` is the task's place among the parked ones, once it has one.
    fn ask(&self, budget: &Arc<Budget>, place: &mut Option<u64>, waker: &Waker) -> Turn {
        budget.fill(self.now_us());
        if place.is_none() && budget.left_ns.load(Ordering::Relaxed) > 0 {
            return Turn::Run;
        }
        let mut line = self.line.lock();
        let number = *place.get_or_insert_with(|| {
            line.places += 1;
            line.places
        });
        let queue = line.queue(budget);
        let yields = queue.parked.get(&number).is_some_and(|parked| parked.yields);
        if budget.left_ns.load(Ordering::Relaxed) > 0 {
            if yields {
                queue.parked.insert(number, Parked { waker: waker.clone(), yields: false });
                return Turn::Yield;
            }
            queue.parked.remove(&number);
            queue.woken.remove(&number);
            *place = None;
            return Turn::Run;
        }
        queue.woken.remove(&number);
        queue.parked.insert(number, Parked { waker: waker.clone(), yields: false });
        self.go_on(&mut line, budget.payer);
        Turn::Park
    }

    /// Charges a part of a poll that took `used`.
    fn used(&self, budget: &Budget, used: Duration) {
        #[cfg(test)]
        budget.polls.fetch_add(u64::from(!used.is_zero()), Ordering::Relaxed);
        budget.left_ns.fetch_sub(nanos(used), Ordering::Relaxed);
        if !used.is_zero() && self.last.swap(budget.payer, Ordering::Relaxed) != budget.payer {
            self.switched_us.store(self.now_us(), Ordering::Relaxed);
        }
        if budget.is_queued.load(Ordering::Acquire) {
            let mut line = self.line.lock();
            self.go_on(&mut line, budget.payer);
        }
    }

    /// Gives up a parked task's place; a turn that was meant for it goes to the next.
    fn leave(&self, budget: &Budget, place: u64) {
        let mut line = self.line.lock();
        if let Some(queue) = line.queues.get_mut(&budget.payer) {
            queue.parked.remove(&place);
            queue.woken.remove(&place);
            self.go_on(&mut line, budget.payer);
        }
    }

    /// Wakes tasks of a payer that has time left, or puts the payer into the line. While no other payer waits, as many
    /// tasks of one payer run as there are workers.
    fn go_on(&self, line: &mut Line, payer: PayerHash) {
        let woken_max = if line.waiting.is_empty() { self.at_once } else { 1 };
        let Some(queue) = line.queues.get_mut(&payer) else { return };
        let is_parked = queue.parked.len() > queue.woken.len();
        if is_parked && queue.budget.left_ns.load(Ordering::Relaxed) > 0 {
            while queue.woken.len() < woken_max && queue.wake(false) {}
            return;
        }
        if !queue.woken.is_empty() {
            return;
        }
        if std::mem::take(&mut queue.is_granted) {
            line.granted -= 1;
        }
        if !queue.is_waiting {
            if is_parked {
                queue.is_waiting = true;
                line.waiting.push_back(payer);
            } else {
                line.forget(payer);
            }
        }
        self.serve(line);
    }

    /// Whether one payer alone was served lately.
    fn is_alone(&self) -> bool {
        self.now_us().saturating_sub(self.switched_us.load(Ordering::Relaxed)) > ALONE_US
    }

    /// The time that the payer at the head of the line is given.
    fn quantum(&self) -> i64 {
        nanos(if self.is_alone() { QUANTUM_ALONE } else { QUANTUM })
    }

    /// Gives quanta to the payers at the head of the line.
    fn serve(&self, line: &mut Line) {
        while line.granted < self.at_once {
            let Some(payer) = line.waiting.pop_front() else { return };
            let Some(queue) = line.queues.get_mut(&payer) else { continue };
            queue.is_waiting = false;
            if queue.parked.is_empty() {
                line.forget(payer);
                continue;
            }
            let quantum = self.quantum();
            let left = queue.budget.left_ns.fetch_add(quantum, Ordering::Relaxed) + quantum;
            if left <= 0 {
                // It still owes time: the others go first.
                queue.is_waiting = true;
                line.waiting.push_back(payer);
                continue;
            }
            queue.is_granted = true;
            queue.wake(true);
            line.granted += 1;
        }
    }
}

impl Line {
    fn queue(&mut self, budget: &Arc<Budget>) -> &mut Queue {
        self.queues.entry(budget.payer).or_insert_with(|| {
            budget.is_queued.store(true, Ordering::Release);
            let (parked, woken) = (BTreeMap::new(), BTreeSet::new());
            Queue { budget: Arc::clone(budget), is_granted: false, is_waiting: false, parked, woken }
        })
    }

    fn forget(&mut self, payer: PayerHash) {
        if let Some(queue) = self.queues.remove(&payer) {
            queue.budget.is_queued.store(false, Ordering::Release);
        }
    }
}

impl Queue {
    /// Wakes the task that has been parked the longest, of those that were not woken; `false` where none is left.
    fn wake(&mut self, yields: bool) -> bool {
        let Some((number, parked)) = self.parked.iter_mut().find(|(number, _)| !self.woken.contains(number)) else {
            return false;
        };
        parked.yields = yields;
        self.woken.insert(*number);
        parked.waker.wake_by_ref();
        true
    }
}

impl Budget {
    /// Fills the budget for the time that has passed.
    fn fill(&self, now_us: u64) {
        let filled_us = self.filled_us.load(Ordering::Relaxed);
        let passed_us = now_us.saturating_sub(filled_us);
        if passed_us < REFILL {
            return;
        }
        if self.filled_us.compare_exchange(filled_us, now_us, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let gained = i64::try_from(passed_us.saturating_mul(1_000 / REFILL)).unwrap_or(i64::MAX);
            let filled = |left: i64| Some(left.max(-nanos(DEBT_MAX)).saturating_add(gained).min(nanos(SAVED_MAX)));
            let _ = self.left_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
        }
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Share {
    /// Lets another payer pay, for the poll that goes on too.
    pub(crate) fn change_payer(&self, payer: PayerHash) {
        if self.task.budget.lock().payer != payer {
            let budget = self.shares.budget(payer);
            *self.task.budget.lock() = budget;
        }
    }

    /// Runs a task on this share: each poll of `task` is paid for.
    pub(crate) async fn run<F: Future>(self, task: F) -> F::Output {
        let mut task = pin!(task);
        poll_fn(move |cx| {
            self.task.paid_ns.store(self.shares.now_ns(), Ordering::Relaxed);
            let _charge = Charge { share: &self, budget: self.current() };
            task.as_mut().poll(cx)
        })
        .await
    }

    /// Waits until the payer has time left. A task calls it between two pieces of work, where it holds nothing that
    /// another task may wait for: no connection to a database, no lock, no turn.
    pub(crate) fn pause(&self) -> Pause<'_> {
        // A poll that handles several messages pays for each before the next.
        self.shares.used(&self.current(), self.unpaid());
        self.turn()
    }

    /// Has long work that no pause divides done beside the workers. The payer pays for its time.
    pub(crate) async fn beside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let payer = self.current().payer;
        let (done, took) = self.shares.beside.run(payer, work).await;
        self.shares.used(&self.current(), took);
        done
    }

    /// Waits like [`Self::pause`], in a task that runs on another share of the payer's and pays by that one.
    pub(crate) const fn turn(&self) -> Pause<'_> {
        Pause { share: self, budget: None, place: None }
    }

    /// Time of the poll that is not paid for yet; the caller charges it.
    fn unpaid(&self) -> Duration {
        let now_ns = self.shares.now_ns();
        Duration::from_nanos(now_ns.saturating_sub(self.task.paid_ns.swap(now_ns, Ordering::Relaxed)))
    }

    fn current(&self) -> Arc<Budget> {
        Arc::clone(&self.task.budget.lock())
    }

    /// Lets the payer owe so much time.
    #[cfg(test)]
    pub(crate) fn owe(&self, time: Duration) {
        self.shares.used(&self.current(), SAVED_MAX + time);
    }

    /// Polls that the payer has paid for since it has a share.
    #[cfg(test)]
    pub(crate) fn polls(&self) -> u64 {
        self.current().polls.load(Ordering::Relaxed)
    }
}

/// The charge for the end of one poll, which is made also where the poll panics.
struct Charge<'a> {
    share: &'a Share,
    /// The budget at the beginning of the poll.
    budget: Arc<Budget>,
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        let (used, shares, payer) = (self.share.unpaid(), &self.share.shares, self.share.current());
        if !Arc::ptr_eq(&payer, &self.budget) {
            // A turn that the task was given under its payer before is over.
            shares.used(&self.budget, Duration::ZERO);
        }
        shares.used(&payer, used);
    }
}

/// See [`Share::pause`].
#[must_use = "a pause waits where it is awaited"]
pub(crate) struct Pause<'a> {
    share: &'a Share,
    /// The budget under which the task is parked.
    budget: Option<Arc<Budget>>,
    place: Option<u64>,
}

impl Future for Pause<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let budget = this.budget.take().unwrap_or_else(|| this.share.current());
        let turn = this.share.shares.ask(&budget, &mut this.place, cx.waker());
        if turn == Turn::Run {
            return Poll::Ready(());
        }
        this.budget = Some(budget);
        if turn == Turn::Yield {
            // The system would let this thread run on for several of its own time slices, and the writer wait. A payer
            // that is alone waits for itself only, and the writer finds more events for one batch.
            if !this.share.shares.is_alone() {
                std::thread::yield_now();
            }
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if let (Some(place), Some(budget)) = (self.place, self.budget.take()) {
            self.share.shares.leave(&budget, place);
        }
    }
}
