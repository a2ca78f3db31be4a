//! The one thread that writes: it takes all waiting calls into one transaction, so that one fsync serves all of them.
//!
//! A transaction ends with the work that reaches the bounds of a batch ([`crate::weight`]), by the weights of its
//! events or by the rows that it really changed. LMDB copies each page that a transaction changes, so these bounds also
//! bound its memory. The works behind it go into the next transaction.
//!
//! A transaction that fails is given up and divided, down to the one event that does not go in, which alone gets the
//! error. The thread then forgets the groups that it remembers; all else in its memory comes from committed
//! transactions.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use heed::{Env, RoTxn, WithTls};
use nostr_extensions::{Admitted, Restored, mls_gateway::group::ServiceAnswer};
use nostr_protocol::{Kind, UnixSecs};

use super::{
    Durability, Shared,
    fail::Fail,
    groups::KnownGroups,
    queue::{Call, Queue, Taken, Waiting},
    recent::{Changes, Progress},
    reply::{Outcome, Outcomes, Reply},
    tables::{NEXT_CURSOR, Tables},
    write::Tx,
};
use crate::{
    Claim, Cursor, OnceName, RecordName, Saved, StockRequest,
    decide::{claim::Candidate, event::Decider},
    moving::Record,
    weight::{BATCH_ROWS_MAX, Load, Weight},
};

/// Least time between two writes of the epochs that messages raised.
const EPOCHS_PERIOD: Duration = Duration::from_secs(1);
/// Cursors that are set aside in one write, so that an ephemeral event needs none.
const CURSORS_AHEAD: Cursor = 65_536;
/// Most bytes of the map that are kept for removals, and for the copies of pages that they make; of a small map, an
/// eighth.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// More bytes than one transaction adds to the map.
const TXN_GROWTH_BYTES_MAX: u64 = 128 << 20;

/// A piece of work for a transaction.
enum Work {
    Save(Admitted),
    Claim {
        claim: Claim,
        candidates: Vec<Candidate>,
        now: UnixSecs,
    },
    Request {
        request: StockRequest,
        now: UnixSecs,
    },
    UseOnce {
        name: OnceName,
        until: UnixSecs,
        now: UnixSecs,
    },
    PutRecord {
        name: RecordName,
        known: u64,
        value: Vec<u8>,
    },
    Sweep {
        now: UnixSecs,
        events_max: usize,
    },
    /// All records are written, or none.
    Import {
        records: Vec<Record<Restored>>,
        now: UnixSecs,
    },
    Service {
        given: ServiceAnswer,
        now: UnixSecs,
    },
    /// A write that changes nothing, see [`crate::Store::probe`].
    Probe,
}

/// The work for which the map has room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    Nothing,
    /// Events that remove more than they add.
    Removals,
    Everything,
}

pub(super) struct Writer {
    pub(super) env: Env<WithTls>,
    pub(super) tables: Tables,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    durability: Durability,
    known_groups: KnownGroups,
    progress: Progress,
    /// Most rows of removed events that go at once in the calls that are served together.
    removed_rows_max: usize,
    /// Such rows that may still go in the calls that are being served.
    removable: usize,
    /// Rows that these calls changed.
    rows: usize,
    next: Cursor,
    /// The next process starts at this cursor, or above.
    set_aside: Cursor,
    epochs_written: Instant,
    synced: Instant,
    unsynced: bool,
}

/// Closes the queue when the writer ends, also by a panic.
struct Ending(Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub(super) fn new(
        env: Env<WithTls>,
        tables: Tables,
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        progress: Progress,
        (durability, removed_rows_max): (Durability, usize),
    ) -> Self {
        let next = shared.head.load(Ordering::Acquire) + 1;
        let now = Instant::now();
        Self {
            env,
            tables,
            shared,
            queue,
            durability,
            known_groups: KnownGroups::default(),
            progress,
            removed_rows_max,
            removable: 0,
            rows: 0,
            next,
            set_aside: next,
            epochs_written: now,
            synced: now,
            unsynced: false,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.queue));
        loop {
            match self.queue.take(self.patience()) {
                Taken::Closed => break,
                Taken::Calls(calls) => self.serve(calls),
            }
            self.sync_if_due();
        }
        if let Err(fail) = self.attempt(&[], true) {
            tracing::warn!(error = %fail.to_store_error(), "the last write of the store failed");
        }
        if self.unsynced
            && let Err(error) = self.env.force_sync()
        {
            tracing::warn!(%error, "the last sync of the store failed");
        }
    }

    /// The longest time for which the writer may wait for calls.
    fn patience(&self) -> Option<Duration> {
        let epochs = (!self.shared.epochs.lock().unwritten().is_empty())
            .then(|| EPOCHS_PERIOD.saturating_sub(self.epochs_written.elapsed()));
        let sync = match self.durability {
            Durability::Interval { ms } if self.unsynced => {
                Some(Duration::from_millis(ms).saturating_sub(self.synced.elapsed()))
            }
            _ => None,
        };
        epochs.into_iter().chain(sync).min()
    }

    fn sync_if_due(&mut self) {
        let Durability::Interval { ms } = self.durability else { return };
        if self.unsynced && self.synced.elapsed() >= Duration::from_millis(ms) {
            match self.env.force_sync() {
                Ok(()) => self.unsynced = false,
                Err(error) => tracing::error!(%error, "what was stored is not on disk yet"),
            }
            self.synced = Instant::now();
        }
    }

    fn serve(&mut self, calls: Vec<Waiting>) {
        let (mut works, mut rehearsals) = (Vec::new(), Vec::new());
        let mut replies = Vec::new();
        let mut shares = Vec::new();
        for waiting in calls {
            let (call, share) = waiting.split();
            shares.push(share);
            let reply = match call {
                Call::Save { batch, answer } => {
                    let count = batch.len();
                    works.extend(batch.into_iter().map(Work::Save));
                    Reply::Save(count, answer)
                }
                Call::Rehearse { admitted, answer } => {
                    rehearsals.push((admitted, answer));
                    continue;
                }
                Call::Claim { claim, candidates, now, answer } => {
                    works.push(Work::Claim { claim, candidates, now });
                    Reply::Claim(answer)
                }
                Call::Request { request, now, answer } => {
                    works.push(Work::Request { request, now });
                    Reply::Request(answer)
                }
                Call::UseOnce { name, until, now, answer } => {
                    works.push(Work::UseOnce { name, until, now });
                    Reply::UseOnce(answer)
                }
                Call::PutRecord { name, known, value, answer } => {
                    works.push(Work::PutRecord { name, known, value });
                    Reply::PutRecord(answer)
                }
                Call::Sweep { now, events_max, answer } => {
                    works.push(Work::Sweep { now, events_max });
                    Reply::Sweep(answer)
                }
                Call::Import { records, now, answer } => {
                    works.push(Work::Import { records, now });
                    Reply::Import(answer)
                }
                Call::Service { given, now, answer } => {
                    works.push(Work::Service { given, now });
                    Reply::Service(answer)
                }
                Call::Probe { answer } => {
                    works.push(Work::Probe);
                    Reply::Probe(answer)
                }
            };
            replies.push(reply);
        }
        let mut outcomes = Vec::with_capacity(works.len());
        (self.removable, self.rows) = (self.removed_rows_max, 0);
        self.write(&works, &mut outcomes);
        self.shared.most_rows_served.fetch_max(self.rows, Ordering::Relaxed);
        let mut outcomes = outcomes.into_iter();
        for reply in replies {
            reply.send(&mut outcomes);
        }
        for (admitted, answer) in rehearsals {
            // A caller that is gone needs no answer.
            let _ = answer.send(self.rehearse(&admitted).map_err(|fail| fail.to_store_error()));
        }
    }

    /// Saves an event in a transaction that is given up.
    fn rehearse(&mut self, admitted: &Admitted) -> Result<Saved, Fail> {
        let recent = Changes::new(&self.shared.recent, &self.progress);
        let parts = (&self.tables, &*self.shared, &mut self.known_groups);
        let mut tx = Tx::begin(self.env.write_txn()?, parts, self.next, recent, self.removable);
        let saved = tx.save(admitted);
        drop(tx);
        self.known_groups.forget_all();
        saved
    }

    /// Does the works in one transaction, or in several where they are more than a batch or where one fails.
    fn write(&mut self, mut works: &[Work], outcomes: &mut Outcomes) {
        loop {
            let (batch, rest) = works.split_at(batch_len(works));
            match self.attempt(batch, false) {
                // The transaction may have ended before the last works of the batch.
                Ok(done) => {
                    works = &works[done.len()..];
                    outcomes.extend(done);
                }
                Err(fail) if batch.len() <= 1 => {
                    let error = fail.to_store_error();
                    tracing::warn!(%error, "a write failed");
                    outcomes.extend(batch.iter().map(|_| Err(error.clone())));
                    works = rest;
                }
                Err(_) => {
                    let (first, second) = works.split_at(batch.len() / 2);
                    self.write(first, outcomes);
                    works = second;
                }
            }
            if works.is_empty() {
                return;
            }
        }
    }

    fn attempt(&mut self, works: &[Work], closing: bool) -> Result<Outcomes, Fail> {
        let done = self.transact(works, closing);
        if done.is_err() {
            // Only the abandoned transaction may have known some of them.
            self.known_groups.forget_all();
            // Epochs that could not be written are tried again in a while, not at once.
            self.epochs_written = Instant::now();
        }
        done
    }

    /// Does the works in one transaction, up to the one by which it reaches the rows of a batch.
    fn transact(&mut self, works: &[Work], closing: bool) -> Result<Outcomes, Fail> {
        let before = self.shared.vanishing.load_full();
        let recent = Changes::new(&self.shared.recent, &self.progress);
        let parts = (&self.tables, &*self.shared, &mut self.known_groups);
        let mut tx = Tx::begin(self.env.write_txn()?, parts, self.next, recent, self.removable);
        let unwritten = if closing || self.epochs_written.elapsed() >= EPOCHS_PERIOD {
            self.shared.epochs.lock().unwritten()
        } else {
            Vec::new()
        };
        for (group, last) in &unwritten {
            if let Some(mut record) = self.tables.group_record(&tx.txn, group)? {
                record.last_epoch = *last;
                self.tables.put_group_record(&mut tx.txn, group, &record)?;
            }
        }
        let free = room(&self.env, &self.tables, &tx.txn, Spare::Before)?;
        let mut outcomes = Vec::with_capacity(works.len());
        let (mut brings, mut probe) = (false, false);
        for work in works {
            if tx.rows >= BATCH_ROWS_MAX {
                break;
            }
            outcomes.push(match work {
                Work::Save(admitted) if free < needed(admitted) => Err(Fail::Full.to_store_error()),
                Work::Save(admitted) => {
                    brings |= needed(admitted) == Room::Everything;
                    Ok(Outcome::Saved(tx.save(admitted)?))
                }
                // A receipt takes room; a claim without one gives room back.
                Work::Claim { claim, .. } if claim.receipt.is_some() && free < Room::Everything => {
                    Err(Fail::Full.to_store_error())
                }
                Work::Request { .. } if free < Room::Everything => Err(Fail::Full.to_store_error()),
                Work::Request { request, now } => Ok(Outcome::Requested(tx.may_request(request, *now)?)),
                Work::Claim { claim, candidates, now } => {
                    brings |= claim.receipt.is_some();
                    Ok(Outcome::Claimed(tx.take_packages(claim, candidates, *now)?))
                }
                Work::UseOnce { .. } if free < Room::Removals => Err(Fail::Full.to_store_error()),
                Work::UseOnce { name, until, now } => Ok(Outcome::UsedOnce(tx.use_once(name, *until, *now)?)),
                Work::PutRecord { .. } if free < Room::Removals => Err(Fail::Full.to_store_error()),
                Work::PutRecord { name, known, value } => Ok(Outcome::RecordPut(tx.put_record(*name, *known, value)?)),
                Work::Sweep { now, events_max } => {
                    let has_more_names = tx.forget_once(*now)?;
                    let mut swept = tx.sweep(*now, *events_max)?;
                    swept.more |= has_more_names;
                    tx.removable = self.removable;
                    Ok(Outcome::Swept(swept))
                }
                Work::Import { records, .. } if free < needed_by(records) => Err(Fail::Full.to_store_error()),
                Work::Service { .. } | Work::Probe if free < Room::Everything => Err(Fail::Full.to_store_error()),
                Work::Probe => {
                    brings = true;
                    probe = true;
                    Ok(Outcome::Probed)
                }
                Work::Service { given, now } => {
                    brings = true;
                    Ok(Outcome::Applied(tx.apply_answer(given, *now)?))
                }
                Work::Import { records, now } => {
                    brings |= needed_by(records) == Room::Everything;
                    let imported = records.iter().map(|record| Decider(&mut tx).record(record, *now));
                    Ok(Outcome::Imported(imported.collect::<Result<_, _>>()?))
                }
            });
        }
        tx.flush_expiry()?;
        tx.recent.write_overflow(tx.tables, &mut tx.txn, tx.next - 1)?;
        let set_aside = if closing {
            Some(tx.next)
        } else {
            // A probe writes a page, so that a disk without room shows.
            (probe || tx.next > self.set_aside).then_some(tx.next + CURSORS_AHEAD)
        };
        if let Some(cursor) = set_aside {
            self.tables.put_meta(&mut tx.txn, NEXT_CURSOR, &cursor.to_be_bytes())?;
        }
        if brings && room(&self.env, &self.tables, &tx.txn, Spare::After)? < Room::Everything {
            return Err(Fail::Full);
        }
        let Tx { txn, next, vanishing, recent, epochs, rows, removable, .. } = tx;
        self.progress = recent.commit(txn)?;
        self.removable = removable;
        self.rows += rows;
        self.shared.most_rows.fetch_max(rows, Ordering::Relaxed);

        self.next = next;
        self.set_aside = set_aside.unwrap_or(self.set_aside);
        let wrote = !works.is_empty() || !unwritten.is_empty() || closing;
        self.unsynced |= wrote && matches!(self.durability, Durability::Interval { .. });
        if !Arc::ptr_eq(&before, &vanishing) {
            self.shared.vanishing.store(vanishing);
        }
        if !epochs.is_empty() || !unwritten.is_empty() {
            let mut known = self.shared.epochs.lock();
            known.written(&unwritten);
            known.learn(epochs);
        }
        if !unwritten.is_empty() {
            self.epochs_written = Instant::now();
        }
        self.shared.head.store(next - 1, Ordering::Release);
        Ok(outcomes)
    }
}

/// The number of works that go into one transaction, by the weights of their events.
fn batch_len(works: &[Work]) -> usize {
    let mut load = Load::default();
    let fits = |work: &&Work| match work {
        Work::Save(admitted) => load.take(Weight::of(admitted.event().view())),
        Work::Claim { .. }
        | Work::Request { .. }
        | Work::UseOnce { .. }
        | Work::PutRecord { .. }
        | Work::Sweep { .. }
        | Work::Import { .. }
        | Work::Service { .. }
        | Work::Probe => true,
    };
    works.iter().take_while(fits).count()
}

/// The room that an event needs.
fn needed(admitted: &Admitted) -> Room {
    match admitted.event().kind() {
        Kind::DELETION | Kind::VANISH => Room::Removals,
        _ => Room::Everything,
    }
}

/// The room that records of an import need: removals alone are taken by a full store, as deletions are.
fn needed_by(records: &[Record<Restored>]) -> Room {
    let is_removal = |record: &Record<Restored>| matches!(record, Record::Removal(_));
    if records.iter().all(is_removal) { Room::Removals } else { Room::Everything }
}

/// How much of the reserve must be left: all of it before a transaction, half of it after one.
#[derive(Clone, Copy)]
enum Spare {
    Before,
    After,
}

/// The room in the map, by the pages that the tables use. Most of the time the map has not been written to its end, and
/// nothing else is looked at.
fn room(env: &Env<WithTls>, tables: &Tables, txn: &RoTxn<'_>, spare: Spare) -> Result<Room, Fail> {
    let info = env.info();
    let map = info.map_size as u64;
    let reserve = (map / 8).min(RESERVE_BYTES_MAX);
    let page = u64::from(tables.meta.stat(txn)?.page_size);
    if (info.last_page_number as u64 + 1) * page + 2 * reserve + TXN_GROWTH_BYTES_MAX < map {
        return Ok(Room::Everything);
    }
    let used = bytes_used(tables, txn)?;
    let (full, spent) = match spare {
        Spare::Before => (map - reserve, map - reserve / 4),
        Spare::After => (map - reserve / 2, map),
    };
    Ok(match used {
        used if used <= full => Room::Everything,
        used if used <= spent => Room::Removals,
        _ => Room::Nothing,
    })
}

/// Bytes of the pages that hold something.
pub(super) fn bytes_used(tables: &Tables, txn: &RoTxn<'_>) -> Result<u64, Fail> {
    let mut bytes = 0;
    for table in tables.all() {
        let stat = table.stat(txn)?;
        bytes += (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64 * u64::from(stat.page_size);
    }
    Ok(bytes)
}
