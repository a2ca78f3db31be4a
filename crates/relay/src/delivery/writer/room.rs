//! The room that waiting events take: a payer has a part of it, and where all is taken the payer that holds the least
//! goes first.
//!
//! Source: docs/rules.md, "Rate limits" 11. Publishers wait here before their events are among those that the writer
//! divides fairly ([`super::backlog`]), so the way in is fair too: a payer that writes little waits until one batch is
//! done and gives its room back, however many others wait.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most KiB of events that wait for a batch or are in one; then publishers wait.
const WAITING_KIB_MAX: u32 = 64 << 10;
/// Most KiB of one payer's events that wait for a batch or are in one; then its own connections wait.
const PAYER_KIB_MAX: u32 = 4 << 10;

/// See the module.
pub(super) struct Room {
    state: Mutex<State>,
}

struct State {
    free_kib: u32,
    /// Events that hold room or wait for some.
    events: usize,
    arrivals: u64,
    /// Payers that hold room or wait for some.
    payers: HashMap<u64, OfPayer>,
    /// Payers that wait and may hold as much as they wait for, by the KiB that they hold and then by arrival.
    line: BTreeSet<(u32, u64, u64)>,
}

/// The events of one payer.
#[derive(Default)]
struct OfPayer {
    held_kib: u32,
    /// Events that wait for room, in the order of their arrival.
    waiting: VecDeque<(u32, oneshot::Sender<Place>)>,
    /// The payer's key in [`State::line`].
    key: Option<(u32, u64, u64)>,
}

/// The room of one event, given back when it is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    payer: u64,
    /// 0 where the place was given to an event that no longer waits.
    kib: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kib > 0 {
            let mut state = self.room.state.lock();
            state.give_back(self.payer, self.kib);
            self.room.serve(&mut state);
        }
    }
}

impl Room {
    /// All room is free.
    pub(super) fn new() -> Arc<Self> {
        Self::of(WAITING_KIB_MAX)
    }

    fn of(free_kib: u32) -> Arc<Self> {
        let (payers, line) = (HashMap::new(), BTreeSet::new());
        Arc::new(Self { state: Mutex::new(State { free_kib, events: 0, arrivals: 0, payers, line }) })
    }

    /// Number of events that hold room or wait for some.
    pub(super) fn events(&self) -> usize {
        self.state.lock().events
    }

    /// Waits for the room of an event. A future that is dropped gives its place up.
    pub(super) async fn take(self: &Arc<Self>, payer: u64, kib: u32) -> Option<Place> {
        let place = {
            let mut state = self.state.lock();
            let (given, place) = oneshot::channel();
            state.events += 1;
            state.payers.entry(payer).or_default().waiting.push_back((kib.clamp(1, PAYER_KIB_MAX), given));
            state.line_up(payer);
            self.serve(&mut state);
            place
        };
        place.await.ok()
    }

    /// Gives room to the payers at the head of the line.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while let Some(&(_, _, payer)) = state.line.first() {
            let Some(of_payer) = state.payers.get_mut(&payer) else { return };
            // Nobody who waits for less passes the first in the line.
            if of_payer.waiting.front().is_none_or(|(kib, _)| *kib > state.free_kib) {
                return;
            }
            let Some((kib, given)) = of_payer.waiting.pop_front() else { return };
            of_payer.held_kib += kib;
            state.free_kib -= kib;
            if let Err(mut unwanted) = given.send(Place { room: Arc::clone(self), payer, kib }) {
                unwanted.kib = 0;
                state.give_back(payer, kib);
            }
            state.line_up(payer);
        }
    }
}

impl State {
    fn give_back(&mut self, payer: u64, kib: u32) {
        self.events -= 1;
        self.free_kib += kib;
        if let Some(of_payer) = self.payers.get_mut(&payer) {
            of_payer.held_kib -= kib;
        }
        self.line_up(payer);
    }

    /// Puts a payer into the line if it waits and its part has room; forgets it if it has nothing here.
    fn line_up(&mut self, payer: u64) {
        let Some(of_payer) = self.payers.get_mut(&payer) else { return };
        let before = of_payer.key.take();
        if let Some(key) = before {
            self.line.remove(&key);
        }
        match of_payer.waiting.front() {
            Some((kib, _)) if of_payer.held_kib + kib <= PAYER_KIB_MAX => {
                // Another event of the payer leaves its place in the line as it is.
                let key = before.filter(|(held_kib, ..)| *held_kib == of_payer.held_kib).unwrap_or_else(|| {
                    self.arrivals += 1;
                    (of_payer.held_kib, self.arrivals, payer)
                });
                of_payer.key = Some(key);
                self.line.insert(key);
            }
            None if of_payer.held_kib == 0 => {
                self.payers.remove(&payer);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::unconstrained;

    use super::*;

    #[tokio::test]
    async fn a_payer_that_fills_its_room_waits_and_no_other_does() {
        let room = Room::new();
        let mut held = Vec::new();
        for _ in 0..PAYER_KIB_MAX {
            held.extend(room.take(1, 1).await);
        }
        let waits = |payer| unconstrained(room.take(payer, 1)).now_or_never().is_none();
        assert!(waits(1) && !waits(2));
        held.pop();
        assert!(!waits(1), "those that gave up are passed over");
    }

    /// A crowd of payers waits for all the room there is, each for much. A guest that comes last goes first when some
    /// is given back.
    #[tokio::test]
    async fn the_payer_that_holds_the_least_goes_first() {
        let room = Room::of(1_000);
        let mut held = Vec::new();
        for payer in 0..30 {
            held.extend(room.take(payer, 33).await);
        }
        let crowd: Vec<_> = (0..30)
            .flat_map(|payer| (0..20).map(move |_| payer))
            .map(|payer| {
                tokio::spawn({
                    let room = Arc::clone(&room);
                    async move { room.take(payer, 33).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let mut guest = Box::pin(unconstrained(room.take(99, 20)));
        assert!(guest.as_mut().now_or_never().is_none(), "all is taken");
        held.pop();
        assert!(guest.as_mut().now_or_never().flatten().is_some(), "one place that is given back is enough");
        drop((held, crowd));
    }

    #[tokio::test]
    async fn payers_with_nothing_under_way_are_forgotten() {
        let room = Room::new();
        let kept = room.take(0, 1).await;
        for payer in 1..10_000 {
            drop(room.take(payer, 1).await);
        }
        assert!(unconstrained(room.take(0, PAYER_KIB_MAX)).now_or_never().is_none());
        {
            let state = room.state.lock();
            assert_eq!((state.payers.len(), state.free_kib), (1, WAITING_KIB_MAX - 1));
        }
        drop(kept);
        let state = room.state.lock();
        assert_eq!((state.payers.len(), state.line.len(), state.free_kib), (0, 0, WAITING_KIB_MAX));
        assert_eq!(state.events, 0);
    }
}
