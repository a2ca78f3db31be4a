//! Saving: read, decide, commit, and again if another process was faster.
//!
//! A batch is one Commit if it fits. All events of a Commit have its time; their places within its microsecond begin at
//! a random number, because two unrelated commits may have the same time. At a hundred commits a second, two events
//! share a cursor about once in a hundred hours, and both are then found under it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gcloud_sdk::google::firestore::v1::Write;
use nostr_extensions::{Admitted, Effect};
use nostr_protocol::EventId;

use crate::{
    Saved, StoreError,
    backoff::Backoff,
    decide::{
        EPHEMERAL,
        batch::{ChangedGroup, Changes, MemberChange, SavesParts, Unsaved, cut, decide, save_divided},
    },
    firestore::{
        Inner,
        documents::events,
        log::locations::EventLocation,
        read::load::{LoadRequest, ReadDocuments},
        wire::{
            client::{CALL_SECS_MAX, Transaction},
            clock::{self, PLACES},
            fail::Fail,
        },
    },
};

/// Most bytes of one Commit. The service takes 10 MiB with the index entries that it makes, gRPC's default and the
/// emulator 4 MiB a message.
const COMMIT_BYTES_MAX: usize = 3 << 20;
/// Most tries at a commit that others overtake.
pub(crate) const TRIES_MAX: u32 = 16;
/// Time, in seconds, of a try that others overtook after which they seem to hold a document for longer: the emulator
/// keeps a commit waiting for 2 s.
const HELD_UP_SECS_MIN: u64 = 1;
/// Most groups that a vanishing key leaves in one Commit if they do not fit into one.
const LEAVING_MAX: usize = 100;
/// Longest wait for a read that shows that the service answers.
const ALIVE_MAX: Duration = Duration::from_secs(1);
/// Longest pause before another try, in milliseconds.
const WAIT_MS_MAX: u64 = 400;
const RETRY: Backoff = Backoff::among_racers(8, WAIT_MS_MAX);

impl SavesParts for Inner {
    /// In one Commit. The time of each call is the same, whatever the part; `limit` bounds the tries.
    async fn save_part(&self, part: &[Admitted], limit: Duration) -> Result<Vec<Saved>, Unsaved> {
        match self.save_whole(part, limit).await {
            Ok(saved) => Ok(saved),
            // Others hold up one event of the part, which is refused alone.
            Err(fail @ Fail::Conflict) => Err(Unsaved::Late(fail.into())),
            Err(fail @ (Fail::Large | Fail::Invalid(_))) => Err(Unsaved::Data(fail.into())),
            Err(fail @ Fail::Late(_)) if self.is_there().await => Err(Unsaved::Late(fail.into())),
            Err(fail) => Err(Unsaved::Store(fail.into())),
        }
    }
}

impl Inner {
    /// See [`crate::Store::save`]. Saving goes on after the caller has dropped this future, because an open transaction
    /// would hold up others.
    pub(crate) async fn save(self: &Arc<Self>, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let count = batch.len();
        if count == 0 {
            return Vec::new();
        }
        let inner = Arc::clone(self);
        let saving = tokio::spawn(async move {
            let Ok(_place) = inner.saves.acquire().await else { return Vec::new() };
            inner.save_in_parts(batch).await
        });
        let saved = saving.await.unwrap_or_default();
        if saved.len() == count {
            return saved;
        }
        vec![Err(StoreError::Unavailable("the store was stopped".to_owned())); count]
    }

    /// See [`crate::Store::rehearse`]. The open transaction is ended after the caller has dropped this future, too.
    pub(crate) async fn rehearse(self: &Arc<Self>, admitted: &Admitted) -> Result<Saved, StoreError> {
        let (inner, part) = (Arc::clone(self), [admitted.clone()]);
        let rehearsing = tokio::spawn(async move {
            inner.history.is_ours()?;
            let loaded = inner.load(LoadRequest::of(&part, true)).await?;
            if let Some(transaction) = loaded.transaction {
                inner.client.rollback(transaction).await;
            }
            Ok::<_, Fail>(decide(&part, loaded.facts, &inner.route_hasher).answers(|_| 0).pop())
        });
        let stopped = || StoreError::Unavailable("the store was stopped".to_owned());
        rehearsing.await.map_err(|_| stopped())?.map_err(StoreError::from)?.ok_or_else(stopped)
    }

    async fn save_in_parts(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut down: Option<StoreError> = None;
        let len = |admitted: &Admitted| events::byte_len(admitted.event().view());
        for part in cut(batch).into_iter().flat_map(|part| self.in_size(part, len)) {
            // If the service is away, one part waits for it and the others fail at once.
            match &down {
                Some(error) => answers.extend(part.iter().map(|_| Err(error.clone()))),
                None => {
                    let saved = save_divided(self, &part, Duration::from_secs(CALL_SECS_MAX)).await;
                    down = saved.away;
                    answers.extend(saved.of_events);
                }
            }
        }
        answers
    }

    /// Parts that fit into one commit by estimate.
    pub(crate) fn in_size<T>(&self, batch: Vec<T>, len: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
        let count_max = self.options.batch_size.saturating_sub(1).max(1);
        let mut parts: Vec<Vec<T>> = Vec::new();
        let mut bytes = 0;
        for one in batch {
            let len = len(&one);
            match parts.last_mut().filter(|part| part.len() < count_max && bytes + len <= COMMIT_BYTES_MAX) {
                Some(part) => {
                    bytes += len;
                    part.push(one);
                }
                None => {
                    bytes = len;
                    parts.push(vec![one]);
                }
            }
        }
        parts
    }

    /// Whether the service answers a small read at once, so that a call that was late was given too much.
    async fn is_there(&self) -> bool {
        let read = self.client.get(vec![self.names.event(&EventId::from_bytes([0; 32]))], Some(&["place"]));
        matches!(tokio::time::timeout(ALIVE_MAX, read).await, Ok(Ok(_)))
    }

    /// Tries again while others are faster, for as long as `limit`. A part that others hold up is divided at once.
    async fn save_whole(&self, part: &[Admitted], limit: Duration) -> Result<Vec<Saved>, Fail> {
        self.history.is_ours()?;
        let until = Instant::now() + limit;
        let mut tries = 0;
        loop {
            let began = Instant::now();
            let saved = self.try_to_save(part, tries > 0).await;
            let is_held_up = part.len() > 1 && began.elapsed() >= Duration::from_secs(HELD_UP_SECS_MIN);
            if is_held_up || Instant::now() >= until || !self.is_tried_again(&saved, tries, part.len()).await {
                return saved;
            }
            tries += 1;
        }
    }

    /// Waits and returns `true` if another try may succeed.
    pub(crate) async fn is_tried_again<T>(&self, done: &Result<T, Fail>, tries: u32, count: usize) -> bool {
        let again = match done {
            Err(Fail::Conflict) => tries + 1 < TRIES_MAX,
            // The service refuses an expired transaction in the same words as bad data.
            Err(Fail::Invalid(_)) => tries == 0 && count == 1,
            _ => false,
        };
        if again {
            self.wait_before(tries).await;
        }
        again
    }

    /// Waits before another try, so that others can finish.
    pub(crate) async fn wait_before(&self, tries: u32) {
        tokio::time::sleep(RETRY.pause(tries)).await;
    }

    /// The first try does not ask whether the events are stored: mostly they are not, and the caller has looked before.
    async fn try_to_save(&self, part: &[Admitted], again: bool) -> Result<Vec<Saved>, Fail> {
        let mut loaded = self.load(LoadRequest::of(part, again)).await?;
        let mut decided = decide(part, loaded.facts, &self.route_hasher);
        if !again && !decided.puts_all() {
            // An event may be refused because it is stored already.
            if let Some(transaction) = loaded.transaction {
                self.client.rollback(transaction).await;
            }
            loaded = self.load(LoadRequest::of(part, true)).await?;
            decided = decide(part, loaded.facts, &self.route_hasher);
        }
        let (mut documents, transaction) = (loaded.documents, loaded.transaction);
        let place = self.draw_place(&decided.changes);
        let writes = self.writes(&decided.changes, &mut documents, place);
        let writes = writes.and_then(|writes| self.of_size(writes, part));
        let vanishes = matches!(part, [one] if matches!(one.effect(), Effect::Vanish));
        if let (Err(Fail::Large), true) = (&writes, vanishes && decided.changes.groups.len() > LEAVING_MAX) {
            return self.leave_some(&decided.changes.groups, &documents, transaction).await;
        }
        if let Some(time) = self.commit_or_end(writes, transaction).await? {
            self.committed(&decided.changes, time, place);
            return Ok(decided.answers(|n| clock::cursor(time, place + n as u64)));
        }
        Ok(decided.answers(|_| 0))
    }

    /// A random first place for a batch.
    pub(crate) fn draw_place(&self, changes: &Changes) -> u64 {
        self.random.below(PLACES.saturating_sub(changes.places()))
    }

    /// Commits the writes and gives the time; `None` if there are none. Without a commit it ends the transaction.
    pub(crate) async fn commit_or_end(
        &self,
        writes: Result<Vec<Write>, Fail>,
        transaction: Option<Transaction>,
    ) -> Result<Option<clock::Micros>, Fail> {
        match writes {
            Ok(writes) if !writes.is_empty() => self.client.commit(writes, transaction).await.map(Some),
            other => {
                if let Some(transaction) = transaction {
                    self.client.rollback(transaction).await;
                }
                other.map(|_| None)
            }
        }
    }

    /// Refuses writes that are to be divided. The effects of one event are never divided, with one exception: a
    /// vanishing key may be in more groups than one Commit can change.
    fn of_size(&self, writes: Vec<Write>, part: &[Admitted]) -> Result<Vec<Write>, Fail> {
        let divides = match part {
            [one] => matches!(one.effect(), Effect::Vanish) && byte_len(&writes) > COMMIT_BYTES_MAX,
            _ => self.is_large(&writes),
        };
        if divides { Err(Fail::Large) } else { Ok(writes) }
    }

    /// Whether the writes exceed one Commit.
    pub(crate) fn is_large(&self, writes: &[Write]) -> bool {
        writes.len() > self.options.batch_size || byte_len(writes) > COMMIT_BYTES_MAX
    }

    /// Takes a vanishing key out of some of its groups, so that the next try has fewer. Followers learn it when the
    /// request itself is committed; it is not acknowledged before.
    async fn leave_some(
        &self,
        groups: &[ChangedGroup],
        documents: &ReadDocuments,
        transaction: Option<Transaction>,
    ) -> Result<Vec<Saved>, Fail> {
        if let Some(transaction) = transaction {
            self.client.rollback(transaction).await;
        }
        for some in groups.chunks(LEAVING_MAX) {
            let changes = Changes { groups: some.to_vec(), ..Changes::default() };
            let mut writes = Vec::new();
            self.group_writes(&changes, documents, &mut writes)?;
            self.client.commit(writes, None).await?;
        }
        Err(Fail::Conflict)
    }

    /// Notes durable changes.
    pub(crate) fn committed(&self, changes: &Changes, time: clock::Micros, place: u64) {
        for (put, place) in changes.put.iter().zip(place..) {
            if put.flags & EPHEMERAL == 0 {
                self.locations.remember(clock::cursor(time, place), EventLocation::Document(put.event.id()));
            }
        }
        self.hiding.learn(&changes.vanished, time);
        for (group, epoch) in &changes.epochs {
            self.epochs.rise(group, *epoch);
        }
        for change in &changes.groups {
            for (key, change_of_key) in &change.members {
                if let MemberChange::Acts(was) = change_of_key {
                    self.acted.learn(&change.group, key, was.rank());
                }
            }
        }
        if changes.places() > 0 {
            self.advance(clock::cursor(time, place + changes.places() - 1));
            self.notify();
        }
    }
}

fn byte_len(writes: &[Write]) -> usize {
    writes.iter().map(gcloud_sdk::prost::Message::encoded_len).sum()
}
