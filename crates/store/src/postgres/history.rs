//! The history of the log, as far as this process knows it, and the proof that the database still has it.
//!
//! A restore, or a standby that takes over without the last commits, gives the log another history: places that were
//! read before hold other events, or none, and what this process knows of groups comes from commits that never were.
//! The head alone does not show it, because the log may have grown past the known place since. So each commit draws a
//! *nonce*, which the table `commits` holds by the head after that commit. A process remembers the last commit that it
//! knows, and looks for it:
//!
//! - in each read of the log, in the same snapshot;
//! - in each transaction that writes, under the log's lock.
//!
//! After a known commit was missing once, every call fails until the process is started anew.

use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::{Client, Transaction};
use parking_lot::Mutex;
use tokio_postgres::Row;

use super::{
    fail::Fail,
    load::LOCK,
    pipeline::{Pipeline, parameters},
    rows::{cursor, number},
};
use crate::{Cursor, HISTORIES_KEPT_MAX, random};

/// Time, in seconds, for which the nonce of a commit is kept after the next commit. A process that did not read the log
/// for longer, while others wrote, cannot tell whether the log is still the same, and has to be started anew.
const NONCES_KEPT_SECS: u64 = 6 * 3_600;
/// Most nonces that one statement removes.
const NONCES_REMOVED_MAX: i64 = 5_000;

const PUT: &str = "insert into rnostr.commits (head, nonce, at) \
    values ($1, $2, extract(epoch from clock_timestamp())::bigint)";
const FIND: &str = "select nonce from rnostr.commits where head = $1";
/// The head of the log and the nonce of its last commit, at a start.
pub(super) const HEAD: &str =
    "select l.head, l.router_key, c.nonce from rnostr.log l left join rnostr.commits c on c.head = l.head";
/// Removes the nonces of commits that were not the last one at any time that counts.
const REMOVE_OLD: &str = "delete from rnostr.commits c using \
    (select head, lead(at) over (order by head) as followed_at \
        from (select head, at from rnostr.commits order by head limit $1::bigint + 1) oldest) old \
    where c.head = old.head and old.followed_at <= extract(epoch from clock_timestamp())::bigint - $2::bigint";

const BEGIN: &str = "insert into rnostr.histories (head, mark) select head, $1 from rnostr.log \
    on conflict (head) do update set mark = excluded.mark";
const FORGET: &str = "delete from rnostr.histories where head < \
    (select head from rnostr.histories order by head desc offset $1 limit 1)";
const MARK: &str = "select mark from rnostr.histories where head < $1 order by head desc limit 1";
/// The server's timeline, which is another one after each failover and after each restore from a backup.
const TIMELINE: &str = "select ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint as timeline";

/// One commit, as it is recognised later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// The head of the log after the commit.
    head: Cursor,
    nonce: i64,
}

impl Commit {
    /// The last commit, in a row with `head` and `nonce`. A process of an older release commits without a nonce.
    pub(super) fn of(row: &Row) -> Result<Option<Self>, Fail> {
        let nonce: Option<i64> = row.try_get("nonce")?;
        nonce.map(|nonce| Ok(Self { head: cursor(row, "head")?, nonce })).transpose()
    }

    /// Draws the nonce of a commit after which `head` is the log's head, and adds it to the transaction.
    pub(super) fn put(head: Cursor, pipeline: &mut Pipeline) -> Self {
        let commit = Self { head, nonce: random::up_to(u64::MAX).cast_signed() };
        pipeline.add(PUT, parameters![number(head), commit.nonce]);
        commit
    }

    /// The head to look for.
    pub(super) fn place(known: Option<Self>) -> i64 {
        // No commit stands before the beginning.
        known.map_or(-1, |commit| number(commit.head))
    }
}

/// See the module.
pub(super) struct History {
    /// The last commit that is known, of whichever process.
    known: Mutex<Option<Commit>>,
    is_other: AtomicBool,
    /// Whether the server tells its timeline.
    has_timeline: bool,
}

impl History {
    pub(super) const fn new(known: Option<Commit>, has_timeline: bool) -> Self {
        Self { known: Mutex::new(known), is_other: AtomicBool::new(false), has_timeline }
    }

    /// The last commit that is known.
    pub(super) fn known(&self) -> Option<Commit> {
        *self.known.lock()
    }

    /// Fails after the history was found to be another.
    pub(super) fn is_ours(&self) -> Result<(), Fail> {
        if self.is_other.load(Ordering::Acquire) { Err(Fail::OtherHistory) } else { Ok(()) }
    }

    /// Notes a commit of this history.
    pub(super) fn learn(&self, commit: Option<Commit>) {
        let mut known = self.known.lock();
        if commit.is_some_and(|commit| known.is_none_or(|known| known.head < commit.head)) {
            *known = commit;
        }
    }

    /// Compares a commit that was known with the nonce that the database holds in its place.
    pub(super) fn check(&self, known: Option<Commit>, found: Option<i64>) -> Result<(), Fail> {
        match known {
            Some(known) if found != Some(known.nonce) => Err(self.has_changed()),
            _ => self.is_ours(),
        }
    }

    /// Notes that the history is another, and gives the failure that says so.
    pub(super) fn has_changed(&self) -> Fail {
        self.is_other.store(true, Ordering::Release);
        Fail::OtherHistory
    }

    /// Adds the look for the known commit to a transaction that holds the log's lock.
    pub(super) fn fence(&self, pipeline: &mut Pipeline) -> Fence {
        let known = self.known();
        pipeline.add(FIND, parameters![Commit::place(known)]);
        Fence(known)
    }
}

/// Draws the mark of the places behind the head, at a start. The lock keeps commits of other processes from lying
/// between the head that is read and the mark.
pub(super) async fn begin(client: &mut Client) -> Result<(), Fail> {
    let transaction = client.transaction().await?;
    transaction.query_one(LOCK, &[]).await?;
    transaction.execute(BEGIN, &[&random::up_to(u64::MAX).cast_signed()]).await?;
    transaction.execute(FORGET, &[&(HISTORIES_KEPT_MAX as i64 - 1)]).await?;
    Ok(transaction.commit().await?)
}

/// Whether the server tells its timeline. A service that keeps its log in a way of its own may not have one.
///
/// # Errors
/// The connection's.
pub(super) async fn has_timeline(client: &Client) -> Result<bool, Fail> {
    match client.query_one(TIMELINE, &[]).await {
        Ok(_) => Ok(true),
        Err(error) if error.as_db_error().is_some() => {
            tracing::warn!(%error, "the server tells no timeline: after a failover that loses commits, start anew");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

impl History {
    /// See [`crate::Store::history_at`].
    ///
    /// An instance that had not read what a failover lost goes on, and draws no mark. So the mark of a place is also
    /// another one on another timeline. The first timeline changes none.
    pub(super) async fn mark_at(&self, client: &Client, place: Cursor) -> Result<u64, Fail> {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let statement = client.prepare_cached(MARK).await?;
        let Some(row) = client.query_opt(&statement, &[&place]).await? else { return Ok(0) };
        let mark = row.try_get::<_, i64>("mark")?.cast_unsigned();
        if !self.has_timeline {
            return Ok(mark);
        }
        let statement = client.prepare_cached(TIMELINE).await?;
        let timeline = client.query_one(&statement, &[]).await?.try_get::<_, i64>("timeline")?.cast_unsigned();
        Ok(mark ^ timeline.saturating_sub(1).rotate_left(32))
    }
}

/// A look for a known commit whose answer is to be checked.
#[must_use]
pub(super) struct Fence(Option<Commit>);

impl Fence {
    /// Checks the rows that the look gave.
    pub(super) fn check(self, history: &History, rows: &[Row]) -> Result<(), Fail> {
        let found = rows.first().map(|row| row.try_get("nonce")).transpose()?;
        history.check(self.0, found)
    }
}

/// Removes old nonces, and returns whether more may be left.
pub(super) async fn remove_old(transaction: &Transaction<'_>) -> Result<bool, Fail> {
    let statement = transaction.prepare_cached(REMOVE_OLD).await?;
    let removed = transaction.execute(&statement, &[&NONCES_REMOVED_MAX, &number(NONCES_KEPT_SECS)]).await?;
    Ok(removed >= NONCES_REMOVED_MAX.unsigned_abs())
}
