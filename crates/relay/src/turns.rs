//! Fair turns: the right to a shared resource, given to the waiting payer that has used it least.
//!
//! At most `at_once` turns are held at one time. While one is free, a turn costs a lock and two looks at the clock.
//! Else payers wait, and start-time fair queueing decides: a payer's virtual start is the time that it has used so
//! far, or the virtual start of the last turn that was given, whichever is later, and the earliest virtual start goes
//! first. So waiting payers get equal shares, however many connections each has; a payer that comes anew waits for
//! the turns under way and for no queue of another payer; and a payer that is alone gets everything.
//!
//! The holder of a turn does bounded work: it reads one page of the archive, or checks one signature.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most payers whose used time is remembered; above it, those that hold nothing and wait for nothing are forgotten.
const PAYERS_MAX: usize = 16_384;

/// The hash of a payer, as `rate_limit` makes it.
pub(crate) type PayerHash = u64;

/// The turns of one resource.
pub(crate) struct Turns {
    line: Mutex<Line>,
    at_once: usize,
    /// Most turns that one payer holds at one time.
    of_one_payer_max: usize,
}

#[derive(Default)]
struct Line {
    held: usize,
    /// The virtual start of the last turn that was given, in microseconds.
    virtual_now: u64,
    /// Payers that wait and may hold another turn, by virtual start and then by arrival.
    waiting: BTreeMap<(u64, u64), PayerHash>,
    arrivals: u64,
    payers: HashMap<PayerHash, Account>,
}

/// One payer's use of the resource.
#[derive(Default)]
struct Account {
    /// Virtual time up to which the payer has used the resource, in microseconds.
    until: u64,
    held: usize,
    /// The payer's requests, in the order of their arrival.
    places: VecDeque<oneshot::Sender<Turn>>,
    /// The payer's key in [`Line::waiting`].
    key: Option<(u64, u64)>,
}

/// One turn, given back when it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    payer: PayerHash,
    began: Instant,
    /// Cleared where the turn was given to a request that no longer waits.
    is_held: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_held {
            let used = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.turns.give_back(self.payer, used.max(1));
        }
    }
}

impl Turns {
    /// Turns of which at most `at_once` are held at one time, and at most `of_one_payer_max` by one payer.
    pub(crate) fn new(at_once: usize, of_one_payer_max: usize) -> Arc<Self> {
        Arc::new(Self {
            line: Mutex::default(),
            at_once: at_once.max(1),
            of_one_payer_max: of_one_payer_max.clamp(1, at_once.max(1)),
        })
    }

    /// Waits for a turn of this payer. A future that is dropped gives its place up.
    pub(crate) async fn take(self: &Arc<Self>, payer: PayerHash) -> Turn {
        loop {
            let place = match self.request(payer) {
                Ok(turn) => return turn,
                Err(place) => place,
            };
            // The line keeps the other end until it gives the turn.
            if let Ok(mut turn) = place.await {
                turn.began = Instant::now();
                return turn;
            }
        }
    }

    fn request(self: &Arc<Self>, payer: PayerHash) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut line = self.line.lock();
        let has_room = line.held < self.at_once;
        let account = line.payers.entry(payer).or_default();
        if has_room && account.held < self.of_one_payer_max && account.places.is_empty() {
            return Ok(self.give(&mut line, payer));
        }
        let (granted, place) = oneshot::channel();
        account.places.push_back(granted);
        self.line_up(&mut line, payer);
        Err(place)
    }

    /// Puts a payer that waits and may hold another turn into the line, at its virtual start.
    fn line_up(&self, line: &mut Line, payer: PayerHash) {
        let Some(account) = line.payers.get_mut(&payer) else { return };
        if let Some(key) = account.key.take() {
            line.waiting.remove(&key);
        }
        if !account.places.is_empty() && account.held < self.of_one_payer_max {
            line.arrivals += 1;
            let key = (account.until.max(line.virtual_now), line.arrivals);
            account.key = Some(key);
            line.waiting.insert(key, payer);
        }
    }

    fn give(self: &Arc<Self>, line: &mut Line, payer: PayerHash) -> Turn {
        let account = line.payers.entry(payer).or_default();
        account.until = account.until.max(line.virtual_now);
        account.held += 1;
        line.virtual_now = account.until;
        line.held += 1;
        Turn { turns: Arc::clone(self), payer, began: Instant::now(), is_held: true }
    }

    /// Takes a turn back, and serves the line.
    fn give_back(self: &Arc<Self>, payer: PayerHash, used_us: u64) {
        let mut line = self.line.lock();
        line.take_back(payer, used_us);
        self.line_up(&mut line, payer);
        while line.held < self.at_once {
            let Some((_, payer)) = line.waiting.pop_first() else { break };
            let place = line.payers.get_mut(&payer).and_then(|account| {
                account.key = None;
                account.places.pop_front()
            });
            if let Some(place) = place {
                let turn = self.give(&mut line, payer);
                if let Err(mut unwanted) = place.send(turn) {
                    unwanted.is_held = false;
                    line.take_back(payer, 0);
                }
            }
            self.line_up(&mut line, payer);
        }
        line.forget_idle();
    }
}

impl Line {
    fn take_back(&mut self, payer: PayerHash, used_us: u64) {
        self.held -= 1;
        if let Some(account) = self.payers.get_mut(&payer) {
            account.held -= 1;
            account.until = account.until.saturating_add(used_us);
        }
    }

    /// Forgets the used time of payers, which matters only while some payer waits.
    fn forget_idle(&mut self) {
        if self.held == 0 {
            *self = Self::default();
        } else if self.payers.len() > PAYERS_MAX {
            self.payers.retain(|_, account| account.held > 0 || !account.places.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;

    const CROWD: PayerHash = 1;
    const GUEST: PayerHash = 2;

    #[tokio::test]
    async fn a_payer_elsewhere_waits_for_one_turn_of_a_crowd() {
        let turns = Turns::new(1, 1);
        let mut under_way = turns.take(CROWD).await;
        let mut crowd: VecDeque<_> = (0..30).map(|_| Box::pin(turns.take(CROWD))).collect();
        assert!(crowd.iter_mut().all(|place| place.as_mut().now_or_never().is_none()), "all wait");
        for _ in 0..5 {
            let mut guest = pin!(turns.take(GUEST));
            assert!(guest.as_mut().now_or_never().is_none(), "the guest waits for the turn under way");
            under_way.began -= Duration::from_millis(1);
            drop(under_way);
            drop(guest.now_or_never().expect("then it is the guest's turn"));
            under_way = crowd.pop_front().expect("a place").now_or_never().expect("and then the crowd's");
        }
    }

    #[tokio::test]
    async fn a_payer_that_is_alone_gets_every_turn() {
        let turns = Turns::new(3, 3);
        let held: Vec<Turn> = futures_util::future::join_all((0..3).map(|_| turns.take(CROWD))).await;
        assert!(turns.take(GUEST).now_or_never().is_none(), "no turn is left");
        drop(held);
        assert!(turns.take(GUEST).now_or_never().is_some());
        assert!(turns.line.lock().payers.is_empty(), "nothing is remembered while nobody holds a turn");
    }

    #[tokio::test]
    async fn one_payer_leaves_turns_to_others() {
        let turns = Turns::new(3, 2);
        let _held = (turns.take(CROWD).await, turns.take(CROWD).await);
        let mut third = pin!(turns.take(CROWD));
        assert!(third.as_mut().now_or_never().is_none(), "two of three are the most for one payer");
        assert!(turns.take(GUEST).now_or_never().is_some());
        assert!(third.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_place_that_is_given_up_holds_up_nobody() {
        let turns = Turns::new(1, 1);
        let held = turns.take(CROWD).await;
        let mut given_up = Box::pin(turns.take(GUEST));
        let mut granted = Box::pin(turns.take(GUEST));
        let mut last = pin!(turns.take(CROWD));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(granted.as_mut().now_or_never().is_none());
        assert!(last.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(held);
        drop(granted);
        assert!(last.now_or_never().is_some(), "a turn that was given and not taken goes on to the next");
    }
}
