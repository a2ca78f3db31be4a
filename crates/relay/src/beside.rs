//! Work of about a millisecond or more that no pause divides, such as reading a request of 20,000 values. A thread of
//! its own does it, at most one for each worker at one time, while the tasks of the workers go on. The system gives
//! such a thread a tenth of a worker's weight, so it gets on beside workers that never rest, and takes little from
//! them.
//!
//! Payers have such work done in fair turns, one piece at a time. The caller charges the payer for the time that its
//! piece took. A thread ends with its piece, since the allocator gives back what an idle one had.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
};

use crate::turns::{PayerHash, Turns};

/// The nice value of the threads.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// See the module.
pub(crate) struct Beside {
    turns: Arc<Turns>,
}

/// The result of work, or its panic, and the time that it took.
type Done<T> = (Result<T, Box<dyn Any + Send>>, Duration);

impl Beside {
    /// As many threads at one time as there are workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { turns: Turns::new(workers.max(1), 1) }
    }

    /// Does a payer's work, and tells how long it took. A future that is dropped gives up work that has not begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        payer: PayerHash,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (T, Duration) {
        // A runtime of one thread is a test's, which wants each piece done in its order.
        let has_threads = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        if !has_threads {
            return end_of(timed(work));
        }
        let turn = self.turns.take(payer).await;
        let (tell, told) = oneshot::channel();
        // A thread that does not start leaves the work here.
        let work = Arc::new(Mutex::new(Some(work)));
        let of_thread = Arc::clone(&work);
        let thread = move || {
            step_back();
            let Some(work) = of_thread.lock().take() else { return };
            let done = timed(work);
            drop(turn);
            let _ = tell.send(done);
        };
        if let Err(error) = thread::Builder::new().name("beside".to_owned()).spawn(thread) {
            tracing::warn!(%error, "no thread for long requests");
        }
        if let Ok(done) = told.await {
            return end_of(done);
        }
        let left = work.lock().take();
        #[allow(clippy::expect_used, reason = "a thread that took the work tells its end")]
        end_of(timed(left.expect("work that no thread took")))
    }
}

/// Lowers the priority of this thread. Other systems have one priority for all threads of a process.
fn step_back() {
    #[cfg(target_os = "linux")]
    // A system that refuses divides the cores evenly.
    let _ = rustix::process::setpriority_process(None, NICE);
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
