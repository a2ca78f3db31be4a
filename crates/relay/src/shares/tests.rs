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

/// The most pieces of work of a crowd that a guest waited for, over many times that the guest was woken. `yields` says
/// whether the crowd's tasks end their polls after each piece, as a client's that has sent nothing more.
async fn polls_waited_for(shares: Option<Arc<Shares>>, yields: bool) -> usize {
    let share_of = |payer| shares.as_ref().map(|shares| shares.share(payer));
    let run = |share: Option<Share>, task: Pin<Box<dyn Future<Output = ()> + Send>>| match share {
        Some(share) => drop(tokio::spawn(share.run(task))),
        None => drop(tokio::spawn(task)),
    };
    let polls = Arc::new(AtomicUsize::new(0));
    let (called, call) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let longest = Arc::new(AtomicUsize::new(0));
    for _ in 0..TASKS {
        let (polls, called, call) = (Arc::clone(&polls), Arc::clone(&called), Arc::clone(&call));
        let share = share_of(CROWD);
        run(
            share.clone(),
            Box::pin(async move {
                // The guest waits before the crowd begins.
                yield_now().await;
                while polls.load(Ordering::SeqCst) < POLLS {
                    spin(Duration::from_micros(400));
                    let count = polls.fetch_add(1, Ordering::SeqCst) + 1;
                    if count % 40 == 0 {
                        let _ = called.compare_exchange(0, count, Ordering::SeqCst, Ordering::SeqCst);
                        call.notify_one();
                    }
                    if yields {
                        yield_now().await;
                    }
                    if let Some(share) = &share {
                        share.pause().await;
                    }
                }
            }),
        );
    }
    let done = Arc::new(Notify::new());
    let (seen, wait, over) = (Arc::clone(&polls), Arc::clone(&longest), Arc::clone(&done));
    run(
        share_of(GUEST),
        Box::pin(async move {
            while seen.load(Ordering::SeqCst) < POLLS - 40 {
                call.notified().await;
                let waited = seen.load(Ordering::SeqCst) - called.swap(0, Ordering::SeqCst);
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
    let waited = polls_waited_for(Some(Shares::new(1)), true).await;
    assert!(waited <= 8, "a guest waited for {waited} polls, of which a quantum holds three");
    let unfair = polls_waited_for(None, true).await;
    assert!(unfair > 8, "without shares it waits for the crowd: {unfair}");
}

#[tokio::test]
async fn a_poll_pays_for_each_message_that_it_handles() {
    let waited = polls_waited_for(Some(Shares::new(1)), false).await;
    assert!(waited <= 8, "a guest waited for {waited} messages, of which a quantum holds three");
}

#[tokio::test]
async fn every_task_of_a_busy_payer_ends() {
    let shares = Shares::new(1);
    let tasks = (0..200).map(|n: u64| {
        let share = shares.share(n % 3);
        tokio::spawn(share.clone().run(async move {
            for _ in 0..5 {
                spin(Duration::from_micros(20 * (n % 7)));
                yield_now().await;
                share.pause().await;
            }
        }))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a task ends");
    }
    let line = shares.line.lock();
    assert_eq!((line.granted, line.waiting.len(), line.queues.len()), (0, 0, 0), "nothing is left behind");
}

/// A task is parked where it pauses and nowhere else, so it keeps nothing from others while it is parked.
#[tokio::test]
async fn a_task_goes_on_between_its_pauses() {
    let shares = Shares::new(1);
    let share = shares.share(CROWD);
    let (entered, left) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (told, done) = (Arc::clone(&entered), Arc::clone(&left));
    tokio::spawn(share.run(async move {
        told.notify_one();
        for _ in 0..5 {
            spin(2 * SAVED_MAX);
            yield_now().await;
        }
        done.store(true, Ordering::SeqCst);
    }));
    entered.notified().await;
    // Another payer holds the only quantum for as long as the test runs.
    shares.line.lock().granted = 1;
    for _ in 0..20 {
        yield_now().await;
    }
    assert!(left.load(Ordering::SeqCst), "it is in debt, and holds what it held to its end");
}

#[tokio::test]
async fn a_task_that_is_dropped_while_parked_holds_up_nobody() {
    let shares = Shares::new(1);
    let busy = |payer| {
        let share = shares.share(payer);
        tokio::spawn(share.clone().run(async move {
            loop {
                spin(Duration::from_micros(300));
                yield_now().await;
                share.pause().await;
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
    let share = shares.share(CROWD);
    let last = share.clone().run(async move {
        for _ in 0..20 {
            spin(Duration::from_micros(300));
            yield_now().await;
            share.pause().await;
        }
    });
    tokio::spawn(last).await.expect("it ends");
    let line = shares.line.lock();
    assert_eq!((line.granted, line.waiting.len(), line.queues.len()), (0, 0, 0));
}

/// The map of payers follows those that have connections: the others are forgotten once they are as many again.
#[tokio::test]
async fn the_map_of_payers_is_bounded_by_those_with_connections() {
    let shares = Shares::new(1);
    let payers = |shares: &Shares| shares.line.lock().payers.len();
    let held: Vec<Share> = (0..PAYERS_MAX as PayerHash).map(|payer| shares.share(payer)).collect();
    let mut most = 0;
    for payer in 0..10 * PAYERS_MAX as PayerHash {
        drop(shares.share(PAYERS_MAX as PayerHash + payer));
        most = most.max(payers(&shares));
    }
    assert!(most <= 2 * (PAYERS_MAX + 1), "{most} payers, of which {PAYERS_MAX} have connections");
    let kept = Arc::clone(&held[0].current());
    assert!(Arc::ptr_eq(&shares.share(0).current(), &kept), "a payer with connections keeps its budget");
    drop((held, kept));
    for payer in 0..3 * PAYERS_MAX as PayerHash {
        drop(shares.share(PayerHash::MAX - payer));
    }
    assert!(payers(&shares) <= PAYERS_MAX, "{} payers without connections", payers(&shares));
}

/// A poll is paid by the payer that the task has at its end, and a quantum of the payer before is given back.
#[tokio::test]
async fn a_poll_is_paid_by_the_payer_that_it_ends_with() {
    let shares = Shares::new(1);
    let (before, after) = (shares.share(CROWD), shares.share(GUEST));
    let share = shares.share(CROWD);
    let task = share.clone().run(async move {
        spin(2 * SAVED_MAX);
        yield_now().await;
        share.pause().await;
        share.change_payer(GUEST);
        spin(SAVED_MAX);
    });
    tokio::spawn(task).await.expect("it ends");
    assert!(before.polls() >= 1 && after.polls() == 1, "{} and {} polls", before.polls(), after.polls());
    let line = shares.line.lock();
    assert_eq!((line.granted, line.waiting.len(), line.queues.len()), (0, 0, 0), "nothing is left behind");
}
