//! Work of about a millisecond or more that no pause divides, such as reading a request of 20,000 values. A thread of
//! its own does it, one for each worker, while the tasks of the workers go on. The system gives such a thread a tenth
//! of a worker's weight, so it gets on beside workers that never rest, and takes little from them.
//!
//! Payers have such work done in fair turns, one piece at a time. The caller charges the payer for the time that its
//! piece took.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{
    process::setpriority_process,
    time::{ClockId, clock_gettime},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
};

use crate::turns::{PayerHash, Turns};

/// The nice value of the threads.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;
type Done<T> = (Result<T, Box<dyn Any + Send>>, Duration);

/// See the module.
pub(crate) struct Beside {
    threads: usize,
    turns: Arc<Turns>,
    /// The way to the threads, once there is work; `None` where the system gives no thread.
    jobs: OnceLock<Option<SyncSender<Job>>>,
}

impl Beside {
    /// As many threads as there are workers; they start with the first piece of work.
    pub(crate) fn new(workers: usize) -> Self {
        let threads = workers.max(1);
        Self { threads, turns: Turns::new(threads, 1), jobs: OnceLock::new() }
    }

    /// Does a payer's work, and tells how long it took. A future that is dropped gives up work that has not begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        payer: PayerHash,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (T, Duration) {
        // A runtime of one thread is a test's, which wants each piece done in its order.
        let has_threads = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        let jobs = if has_threads { self.jobs.get_or_init(|| self.start()).as_ref() } else { None };
        let Some(jobs) = jobs else { return end_of(timed(work)) };
        let turn = self.turns.take(payer).await;
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            let done = timed(work);
            drop(turn);
            let _ = tell.send(done);
        });
        // There are as many turns as places in the channel, and the threads last as long as this.
        let sent = jobs.try_send(job);
        match (sent, told.await) {
            (Ok(()), Ok(done)) => end_of(done),
            (Ok(()) | Err(_), _) => unreachable!("the threads take every piece of work and tell its end"),
        }
    }

    fn start(&self) -> Option<SyncSender<Job>> {
        let (jobs, waiting) = sync_channel(self.threads);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..self.threads {
            let waiting = Arc::clone(&waiting);
            let started = thread::Builder::new().name("beside".to_owned()).spawn(move || work_off(&waiting));
            started.inspect_err(|error| tracing::warn!(%error, "no thread for long requests")).ok()?;
        }
        Some(jobs)
    }
}

fn work_off(waiting: &Mutex<Receiver<Job>>) {
    // A system without priorities divides the cores evenly.
    let _ = setpriority_process(None, NICE);
    loop {
        let job = waiting.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// Does the work, and takes the time of the processor that it took.
fn timed<T>(work: impl FnOnce() -> T) -> Done<T> {
    let began = thread_time();
    let done = catch_unwind(AssertUnwindSafe(work));
    (done, thread_time().saturating_sub(began))
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn end_of<T>((done, took): Done<T>) -> (T, Duration) {
    match done {
        Ok(done) => (done, took),
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn on_threads<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(test)
    }

    /// Work that takes its time holds up no other task of the only worker.
    #[test]
    fn other_tasks_go_on_beside_the_work() {
        on_threads(async {
            let beside = Arc::new(Beside::new(1));
            let (begun, began) = oneshot::channel();
            let (done, is_done) = std::sync::mpsc::channel();
            let worker = tokio::spawn(async move {
                let work = move || {
                    let _ = begun.send(());
                    // It ends only after another task has run.
                    is_done.recv_timeout(Duration::from_secs(10)).is_ok()
                };
                beside.run(1, work).await.0
            });
            let other = tokio::spawn(async move {
                began.await.expect("the work begins");
                done.send(()).expect("the work waits");
            });
            other.await.expect("it ends");
            assert!(worker.await.expect("it ends"));
        });
    }

    /// A payer whose many pieces wait is served in turns with one that comes later.
    #[test]
    fn a_payer_with_much_work_waits_for_its_turn() {
        on_threads(async {
            let beside = Arc::new(Beside::new(1));
            let order = Arc::<Mutex<Vec<u64>>>::default();
            let mut tasks = Vec::new();
            for payer in [1, 1, 1, 1, 2] {
                let (ran, beside) = (Arc::clone(&order), Arc::clone(&beside));
                let work = move || {
                    thread::sleep(Duration::from_millis(20));
                    ran.lock().push(payer);
                };
                tasks.push(tokio::spawn(async move { beside.run(payer, work).await }));
                tokio::task::yield_now().await;
            }
            for task in tasks {
                task.await.expect("it ends");
            }
            assert_eq!(*order.lock(), [1, 2, 1, 1, 1]);
        });
    }

    #[test]
    fn a_panic_is_the_callers_and_the_thread_goes_on() {
        on_threads(async {
            let beside = Arc::new(Beside::new(1));
            let panics = Arc::clone(&beside);
            let ended = tokio::spawn(async move { panics.run(1, || panic!("by the test")).await.0 }).await;
            assert!(ended.is_err_and(|error| error.is_panic()));
            assert_eq!(beside.run(1, || 7).await.0, 7);
        });
    }

    #[tokio::test]
    async fn without_threads_the_work_is_done_at_once() {
        assert_eq!(Beside::new(1).run(1, || 2).await.0, 2);
    }
}
