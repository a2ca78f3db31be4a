//! Work of a millisecond or more that a task does at one time, such as reading a request of 20,000 values. The other
//! tasks of its thread go on beside it, on another thread, and the system divides the cores between the two.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

/// Places for such work.
pub(crate) struct Beside {
    free: AtomicUsize,
}

impl Beside {
    /// As many places as there are threads that serve connections.
    pub(crate) const fn new(workers: usize) -> Self {
        Self { free: AtomicUsize::new(workers) }
    }

    /// Does the work, beside the other tasks if there is a place, else before them.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let has_threads = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        let place = if has_threads { Place::take(&self.free) } else { None };
        match place {
            Some(_place) => block_in_place(work),
            None => work(),
        }
    }
}

/// A place that is taken.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(free: &'a AtomicUsize) -> Option<Self> {
        let taken = free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.is_ok().then_some(Self(free))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::sync::oneshot;

    use super::*;

    /// Work that takes its time holds up no other task of the only thread.
    #[test]
    fn other_tasks_go_on_beside_the_work() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let beside = Arc::new(Beside::new(1));
            let (begun, began) = oneshot::channel();
            let (done, is_done) = std::sync::mpsc::channel();
            let worker = tokio::spawn(async move {
                beside.run(|| {
                    let _ = begun.send(());
                    // It ends only after another task has run.
                    is_done.recv_timeout(Duration::from_secs(10)).is_ok()
                })
            });
            let other = tokio::spawn(async move {
                began.await.expect("the work begins");
                done.send(()).expect("the work waits");
            });
            other.await.expect("it ends");
            assert!(worker.await.expect("it ends"));
        });
    }

    #[tokio::test]
    async fn without_a_place_or_threads_the_work_is_done_at_once() {
        assert_eq!(Beside::new(0).run(|| 1), 1);
        assert_eq!(Beside::new(1).run(|| 2), 2);
    }
}
