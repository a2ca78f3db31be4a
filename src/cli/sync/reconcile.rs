//! Filling by NIP-77: both relays compare their sets, and only the missing events are sent.
//!
//! A relay reconciles a bounded number of events in one session. So a part of time that is too large for it is halved.

use std::{collections::HashSet, time::Duration};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_protocol::{EventId, negentropy::is_whole};
use tokio::time::Instant;

use super::{
    connection::{Connection, NegAnswer, Trouble, shown},
    intake::Intake,
    local::{Item, Local},
    pages::Pages,
    window::{Asked, Window, of_ids},
};
use crate::cli::moving::now;

/// Most bytes of a message of this side, before it is written as hex. Relays take twice as much.
const MESSAGE_BYTES_MAX: u64 = 30_000;
/// Most sessions of one run.
const SESSIONS_MAX: usize = 4_000;
/// Most sessions in a row that the relay ends before their time and that brought no event.
const EARLY_ENDS_MAX: usize = 5;
/// Most messages of one session.
const ROUNDS_MAX: usize = 5_000;
/// Most ids that are asked for in one session.
const SESSION_IDS_MAX: usize = 1_000_000;
/// Longest time without an event that was asked for, in seconds.
const EVENTLESS_SECS_MAX: u64 = 3_600;
/// Most ids of one request.
const IDS_AT_ONCE_MAX: usize = 250;
/// Most events that the relay may announce and then not give. An event may expire, or be deleted, in between.
const MISSING_MAX: u64 = 10_000;

/// The end of a reconciliation.
pub(super) enum Reconciled {
    Done,
    /// The relay does not know NIP-77.
    Unknown,
}

/// The end of one session.
enum Ended {
    Done,
    /// The part of time holds more events than the relay reconciles.
    TooLarge,
    /// The relay has ended the session before its time.
    Early,
    Unknown,
}

/// One run.
pub(super) struct Reconciling<'a, 'b> {
    pub(super) connection: &'a mut Connection,
    pub(super) asked: &'a Asked,
    pub(super) local: &'a mut Local,
    pub(super) intake: &'a mut Intake<'b>,
    /// Events that the relay announced and did not give.
    pub(super) missing: &'a mut u64,
    pub(super) last_event: LastEvent,
}

/// The time of the last event that was asked for and came.
pub(super) struct LastEvent(Instant);

impl LastEvent {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// # Errors
    /// None came for so long that the relay only holds up the command.
    fn check(&self, now: Instant) -> Result<(), Trouble> {
        if now.duration_since(self.0) < Duration::from_secs(EVENTLESS_SECS_MAX) {
            return Ok(());
        }
        Err(Trouble(format!("the relay has given no event for {EVENTLESS_SECS_MAX} s, and comes to no end")))
    }
}

impl Reconciling<'_, '_> {
    pub(super) async fn run(mut self) -> Result<Reconciled, Trouble> {
        let mut windows = parts_around(self.asked.window(), now());
        let mut early_ends = 0;
        for _ in 0..SESSIONS_MAX {
            let Some(window) = windows.pop() else { return Ok(Reconciled::Done) };
            self.last_event.check(Instant::now())?;
            let before = self.intake.received;
            match self.session(window).await? {
                Ended::Done => early_ends = 0,
                Ended::Early if early_ends >= EARLY_ENDS_MAX => {
                    return Err(Trouble("the relay ends session after session before its time".to_owned()));
                }
                Ended::Early => {
                    early_ends = if self.intake.received > before { 0 } else { early_ends + 1 };
                    windows.push(window);
                }
                Ended::Unknown => return Ok(Reconciled::Unknown),
                Ended::TooLarge => match window.halves() {
                    Some([later, earlier]) => windows.extend([earlier, later]),
                    None => self.page_through(window).await?,
                },
            }
        }
        Err(Trouble(format!(
            "the relay needed over {SESSIONS_MAX} sessions, and there is more; narrow the filter by since and until"
        )))
    }

    /// Takes the events of one second, which are too many for a session.
    async fn page_through(&mut self, window: Window) -> Result<(), Trouble> {
        let mut pages = Pages::of(window);
        while pages.next(self.connection, self.asked, self.intake).await?.is_some() {}
        Ok(())
    }

    async fn session(&mut self, window: Window) -> Result<Ended, Trouble> {
        let mut negentropy = sealed(self.local.within(window))?;
        let first = negentropy.initiate().map_err(|error| Trouble(error.to_string()))?;
        let (request, mut answer) = self.connection.neg_open(&self.asked.during(window, None), &first).await?;
        let mut wanted: HashSet<EventId> = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            self.last_event.check(Instant::now())?;
            let message = match answer {
                NegAnswer::Message(message) if is_whole(&message) => message,
                NegAnswer::Message(_) => return Err(Trouble("the relay sends a NEG-MSG that breaks off".to_owned())),
                NegAnswer::Unknown => return Ok(Ended::Unknown),
                NegAnswer::Ended(reason) => return ended(&reason),
            };
            let (mut have, mut need) = (Vec::new(), Vec::new());
            let next = negentropy.reconcile_with_ids(&message, &mut have, &mut need);
            let next = next.map_err(|error| Trouble(format!("the relay sends a NEG-MSG that is wrong: {error}")))?;
            let need = need.iter().map(|id| EventId::from_bytes(id.to_bytes()));
            let need: Vec<EventId> = need.filter(|id| wanted.insert(*id)).collect();
            if wanted.len() > SESSION_IDS_MAX {
                self.connection.neg_close(&request).await?;
                return Ok(Ended::TooLarge);
            }
            for ids in need.chunks(IDS_AT_ONCE_MAX) {
                self.last_event.check(Instant::now())?;
                self.fetch(ids, window).await?;
            }
            answer = match next {
                None => {
                    self.connection.neg_close(&request).await?;
                    return Ok(Ended::Done);
                }
                Some(next) => self.connection.neg_message(&request, &next).await?,
            };
        }
        Err(Trouble(format!("the relay comes to no end within {ROUNDS_MAX} messages of a session")))
    }

    /// Asks for the events of these ids and stores them.
    async fn fetch(&mut self, ids: &[EventId], window: Window) -> Result<(), Trouble> {
        let events = self.connection.stored(&of_ids(ids), ids.len()).await?;
        let mut taken = self.intake.take(events, self.asked, window).await?;
        taken.sort_unstable();
        taken.dedup();
        taken.retain(|(_, id)| ids.iter().any(|asked| asked.as_bytes() == id));
        if !taken.is_empty() {
            self.last_event = LastEvent::new();
        }
        *self.missing += (ids.len() - taken.len()) as u64;
        if *self.missing > MISSING_MAX {
            return Err(Trouble(format!("the relay announced over {MISSING_MAX} events that it does not give")));
        }
        self.local.add(taken);
        Ok(())
    }
}

/// The time before and after now, so that halves of a part are not spent on an empty future. The part that comes first
/// stands last.
fn parts_around(window: Window, now: u64) -> Vec<Window> {
    if window.since <= now && now < window.until {
        vec![Window { until: now, ..window }, Window { since: now + 1, ..window }]
    } else {
        vec![window]
    }
}

fn sealed(items: &[Item]) -> Result<Negentropy<'static, NegentropyStorageVector>, Trouble> {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    let made = items
        .iter()
        .try_for_each(|(at, id)| storage.insert(*at, Id::from_byte_array(*id)))
        .and_then(|()| storage.seal())
        .and_then(|()| Negentropy::owned(storage, MESSAGE_BYTES_MAX));
    made.map_err(|error| Trouble(format!("the events of this store cannot be compared: {error}")))
}

/// Reads the reason by which the relay ends a session. Relays have no common word for a set that is too large, but all
/// refuse it with `blocked:`.
fn ended(reason: &str) -> Result<Ended, Trouble> {
    if reason.starts_with("blocked") || reason.contains("TOO_BIG") {
        Ok(Ended::TooLarge)
    } else if reason.starts_with("closed") || reason.starts_with("rate-limited") {
        Ok(Ended::Early)
    } else {
        Err(Trouble(format!("the relay ends the reconciliation: {}", shown(reason))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_gives_nothing_for_an_hour_is_left() {
        let last = LastEvent::new();
        let after = |secs| last.0 + Duration::from_secs(secs);
        assert!(last.check(after(EVENTLESS_SECS_MAX - 1)).is_ok());
        assert!(last.check(after(EVENTLESS_SECS_MAX)).is_err());
    }
}
