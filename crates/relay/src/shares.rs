//! Fair shares of the processor: the task of a connection runs only while its payer has time left.
//!
//! Each payer has a budget of time, which a connection's task draws from at each poll. It fills again at [`REFILL`]
//! of a core. A payer that stays below that never waits here. The tasks of a payer that has used its budget up are
//! parked, and the payer joins a line. The payer at the head of the line is given a [`QUANTUM`], and its parked tasks
//! run one after the other until it is used up. As many payers run on such a quantum at one time as there are
//! workers.
//!
//! So the runtime's queue holds few tasks of busy payers at one time, however many connections they have: a task of
//! another payer waits for one poll of each worker, and polls are short. A busy payer that is alone gets the whole
//! processor, a quantum at a time.
//!
//! A task that got a quantum first lets the runtime look at its sockets, so that frames of other clients are seen in
//! between.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::turns::PayerHash;

/// The time that a payer is given at once, and the most that it saves up.
const QUANTUM: Duration = Duration::from_millis(1);
/// The share of a core at which a payer's budget fills, as its reciprocal: an eighth.
const REFILL: u64 = 8;
/// Longest time that a payer owes, so that one slow poll does not stop a payer for long.
const DEBT_MAX: Duration = Duration::from_millis(50);
/// Payers above which the map forgets those without connections.
const PAYERS_MAX: usize = 4_096;

/// The shares of all payers.
pub(crate) struct Shares {
    line: Mutex<Line>,
    at_once: usize,
    began: Instant,
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
    places: u64,
}

/// The tasks of one payer that are parked.
struct Queue {
    budget: Arc<Budget>,
    is_granted: bool,
    is_waiting: bool,
    parked: BTreeMap<u64, Parked>,
    /// The task that was woken to run and has not been polled yet.
    woken: Option<u64>,
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
}

/// The payer of a task, which changes when the client proves a key.
#[derive(Clone)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    budget: Arc<Mutex<Arc<Budget>>>,
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
        Arc::new(Self { line: Mutex::default(), at_once: workers.max(1), began: Instant::now() })
    }

    /// The share of a task whose payer is `payer`.
    pub(crate) fn share(self: &Arc<Self>, payer: PayerHash) -> Share {
        let budget = Arc::new(Mutex::new(self.budget(payer)));
        Share { shares: Arc::clone(self), budget }
    }

    fn budget(&self, payer: PayerHash) -> Arc<Budget> {
        let mut line = self.line.lock();
        if let Some(budget) = line.payers.get(&payer).and_then(Weak::upgrade) {
            return budget;
        }
        if line.payers.len() >= PAYERS_MAX.max(2 * line.queues.len()) {
            line.payers.retain(|_, budget| budget.strong_count() > 0);
        }
        let budget = Arc::new(Budget {
            payer,
            left_ns: AtomicI64::new(nanos(QUANTUM)),
            filled_us: AtomicU64::new(self.now_us()),
            is_queued: AtomicBool::new(false),
        });
        line.payers.insert(payer, Arc::downgrade(&budget));
        budget
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
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
            queue.woken.take_if(|woken| *woken == number);
            *place = None;
            return Turn::Run;
        }
        queue.woken.take_if(|woken| *woken == number);
        queue.parked.insert(number, Parked { waker: waker.clone(), yields: false });
        self.go_on(&mut line, budget.payer);
        Turn::Park
    }

    /// Charges a poll that took `used`.
    fn used(&self, budget: &Budget, used: Duration) {
        budget.left_ns.fetch_sub(nanos(used), Ordering::Relaxed);
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
            queue.woken.take_if(|woken| *woken == place);
            self.go_on(&mut line, budget.payer);
        }
    }

    /// Wakes the next task of a payer that has time left, or puts the payer into the line.
    fn go_on(&self, line: &mut Line, payer: PayerHash) {
        let Some(queue) = line.queues.get_mut(&payer) else { return };
        if queue.woken.is_some() {
            return;
        }
        let is_parked = !queue.parked.is_empty();
        if is_parked && queue.budget.left_ns.load(Ordering::Relaxed) > 0 {
            return queue.wake(false);
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
            let left = queue.budget.left_ns.fetch_add(nanos(QUANTUM), Ordering::Relaxed) + nanos(QUANTUM);
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
            let (parked, woken) = (BTreeMap::new(), None);
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
    /// Wakes the task that has been parked the longest.
    fn wake(&mut self, yields: bool) {
        if let Some((number, parked)) = self.parked.iter_mut().next() {
            parked.yields = yields;
            self.woken = Some(*number);
            parked.waker.wake_by_ref();
        }
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
            let filled = |left: i64| Some(left.max(-nanos(DEBT_MAX)).saturating_add(gained).min(nanos(QUANTUM)));
            let _ = self.left_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
        }
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Share {
    /// Lets another payer pay from the next poll on.
    pub(crate) fn change_payer(&self, payer: PayerHash) {
        if self.budget.lock().payer != payer {
            let budget = self.shares.budget(payer);
            *self.budget.lock() = budget;
        }
    }

    /// Runs a task on this share: each poll of `task` is paid for.
    pub(crate) async fn run<F: Future>(self, task: F) -> F::Output {
        let task = pin!(task);
        OnShare { share: self, budget: None, place: None, task }.await
    }
}

/// A task that is polled while its payer has time left.
struct OnShare<'a, F> {
    share: Share,
    /// The budget under which the task is parked.
    budget: Option<Arc<Budget>>,
    place: Option<u64>,
    task: Pin<&'a mut F>,
}

impl<F: Future> Future for OnShare<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let budget = this.budget.take().unwrap_or_else(|| Arc::clone(&this.share.budget.lock()));
        match this.share.shares.ask(&budget, &mut this.place, cx.waker()) {
            Turn::Run => {}
            Turn::Yield => {
                this.budget = Some(budget);
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            Turn::Park => {
                this.budget = Some(budget);
                return Poll::Pending;
            }
        }
        let began = Instant::now();
        let polled = this.task.as_mut().poll(cx);
        this.share.shares.used(&budget, began.elapsed());
        polled
    }
}

impl<F> Drop for OnShare<'_, F> {
    fn drop(&mut self) {
        if let (Some(place), Some(budget)) = (self.place, self.budget.take()) {
            self.share.shares.leave(&budget, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{hint::spin_loop, sync::atomic::AtomicUsize};

    use tokio::{sync::Notify, task::yield_now};

    use super::*;

    const CROWD: PayerHash = 1;
    const GUEST: PayerHash = 2;
    const TASKS: usize = 30;
    /// Polls of the crowd after which the test ends.
    const POLLS: usize = 600;

    fn spin(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            spin_loop();
        }
    }

    /// The most polls of a crowd that a guest waited for, over many times that the guest was woken.
    async fn polls_waited_for(run: impl Fn(PayerHash, Pin<Box<dyn Future<Output = ()> + Send>>)) -> usize {
        let polls = Arc::new(AtomicUsize::new(0));
        let (called, call) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let longest = Arc::new(AtomicUsize::new(0));
        for _ in 0..TASKS {
            let (polls, called, call) = (Arc::clone(&polls), Arc::clone(&called), Arc::clone(&call));
            run(
                CROWD,
                Box::pin(async move {
                    while polls.load(Ordering::SeqCst) < POLLS {
                        spin(Duration::from_micros(400));
                        let count = polls.fetch_add(1, Ordering::SeqCst) + 1;
                        if count % 40 == 0 {
                            called.store(count, Ordering::SeqCst);
                            call.notify_one();
                        }
                        yield_now().await;
                    }
                }),
            );
        }
        let done = Arc::new(Notify::new());
        let (seen, wait, over) = (Arc::clone(&polls), Arc::clone(&longest), Arc::clone(&done));
        run(
            GUEST,
            Box::pin(async move {
                while seen.load(Ordering::SeqCst) < POLLS - 40 {
                    call.notified().await;
                    let waited = seen.load(Ordering::SeqCst) - called.load(Ordering::SeqCst);
                    wait.fetch_max(waited, Ordering::SeqCst);
                }
                over.notify_one();
            }),
        );
        done.notified().await;
        longest.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_guest_waits_for_one_poll_of_a_crowd() {
        let shares = Shares::new(1);
        let waited = polls_waited_for(|payer, task| {
            tokio::spawn(shares.share(payer).run(task));
        });
        let waited = waited.await;
        assert!(waited <= 8, "a guest waited for {waited} polls, of which a quantum holds three");
        let unfair = polls_waited_for(|_, task| {
            tokio::spawn(task);
        });
        let unfair = unfair.await;
        assert!(unfair > 8, "without shares it waits for the crowd: {unfair}");
    }

    #[tokio::test]
    async fn every_task_of_a_busy_payer_ends() {
        let shares = Shares::new(1);
        let tasks = (0..200).map(|n: u64| {
            tokio::spawn(shares.share(n % 3).run(async move {
                for _ in 0..5 {
                    spin(Duration::from_micros(20 * (n % 7)));
                    yield_now().await;
                }
            }))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("a task ends");
        }
        let line = shares.line.lock();
        assert_eq!((line.granted, line.waiting.len(), line.queues.len()), (0, 0, 0), "nothing is left behind");
    }

    #[tokio::test]
    async fn a_task_that_is_dropped_while_parked_holds_up_nobody() {
        let shares = Shares::new(1);
        let busy = |payer| {
            let share = shares.share(payer);
            tokio::spawn(share.run(async {
                loop {
                    spin(Duration::from_micros(300));
                    yield_now().await;
                }
            }))
        };
        let tasks: Vec<_> = (0..20).map(|_| busy(CROWD)).collect();
        for _ in 0..50 {
            yield_now().await;
        }
        for task in tasks {
            task.abort();
            yield_now().await;
        }
        let last = shares.share(CROWD).run(async {
            for _ in 0..20 {
                spin(Duration::from_micros(300));
                yield_now().await;
            }
        });
        tokio::spawn(last).await.expect("it ends");
        let line = shares.line.lock();
        assert_eq!((line.granted, line.waiting.len(), line.queues.len()), (0, 0, 0));
    }
}
