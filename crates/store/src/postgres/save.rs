//! Saving batches: facts are loaded, decided on and written in one transaction, under the lock of the log.

use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Object, Pool};
use nostr_extensions::Admitted;

use super::{
    Postgres,
    connect::Suspicion,
    fail::Fail,
    load::{LOCK, load},
    pipeline::{Pipeline, Transaction},
    write::write,
};
use crate::{
    Saved, StoreError,
    decide::{
        batch::{SavesParts, Unsaved, cut, decide, save_divided},
        facts::Wanted,
    },
};

const TOUCH: &str = "update rnostr.log set head = head";
/// Longest time that a statement of a batch takes before the batch is divided.
pub(super) const STATEMENT_MAX: Duration = Duration::from_secs(4);
/// Longest time for which a batch waits for locks, over several tries: an instance that stopped while it held the lock
/// of the log is noticed and cut off in this time.
const LOCKED_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the work of a transaction; it leaves time to end the transaction.
const WORK_MAX: Duration = Duration::from_secs(7);

/// Ends the transactions that wrote to the log, or locked it, and wait for an instance that does not answer: it does
/// not send the next statement, or does not take the rows of the last one. Only the latter need this; the server itself
/// ends the former (`idle_in_transaction_session_timeout`), but no setting of the server ends a transaction whose
/// client's system takes bytes on behalf of a stopped process.
const END_UNANSWERED: &str = "select count(pg_terminate_backend(a.pid)) from pg_stat_activity a \
    where a.datname = current_database() and a.pid <> pg_backend_pid() and a.wait_event_type = 'Client' \
        and greatest(a.query_start, a.state_change) < clock_timestamp() - interval '1500 milliseconds' \
        and exists (select from pg_locks l where l.pid = a.pid and l.granted \
            and l.relation in ('rnostr.log'::regclass, 'rnostr.events'::regclass) \
            and l.mode in ('RowShareLock', 'RowExclusiveLock'))";

impl SavesParts for Postgres {
    /// In one transaction, if need be after others that hold the lock of the log.
    async fn save_part(&self, part: &[Admitted], limit: Duration) -> Result<Vec<Saved>, Unsaved> {
        let until = Instant::now() + LOCKED_MAX;
        let mut was_silent = false;
        loop {
            let fail = match self.save_once(part, limit).await {
                Ok(saved) => return Ok(saved),
                Err(fail) => fail,
            };
            match &fail {
                // The next connection is a new one.
                Fail::Silent if !was_silent => was_silent = true,
                Fail::Locked if Instant::now() < until => {}
                fail if fail.is_about_data() => return Err(Unsaved::Data(fail.to_store_error())),
                Fail::Overtime => return Err(Unsaved::Late(fail.to_store_error())),
                fail => return Err(Unsaved::Store(fail.to_store_error())),
            }
        }
    }
}

impl Postgres {
    pub(super) async fn save_all(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let mut answers = Vec::with_capacity(batch.len());
        for part in cut(batch) {
            answers.extend(save_divided(self, &part, STATEMENT_MAX).await.of_events);
        }
        answers
    }

    async fn save_once(&self, part: &[Admitted], limit: Duration) -> Result<Vec<Saved>, Fail> {
        let (decided, head, commit) = self
            .transact(limit, async |transaction: &Transaction<'_>| {
                let wanted = Wanted::by(part);
                let hidden = self.hiding.now();
                let (facts, head) =
                    load(transaction, wanted, &hidden, &self.route_hasher, &self.loaded, &self.history).await?;
                let decided = decide(part, facts, &self.route_hasher);
                let commit = match decided.changes.put.is_empty() {
                    true => None,
                    false => write(transaction, &decided.changes, head, self.notifies).await?,
                };
                Ok((decided, head, commit))
            })
            .await?;
        self.committed(&decided.changes, head, commit);
        Ok(decided.answers(|n| head + 1 + n as u64))
    }

    /// See [`crate::Store::rehearse`]. The transaction is rolled back.
    pub(super) async fn rehearse_save(&self, admitted: &Admitted) -> Result<Saved, Fail> {
        let part = std::slice::from_ref(admitted);
        let decided = self
            .transact(STATEMENT_MAX, async |transaction: &Transaction<'_>| {
                let hidden = self.hiding.now();
                let wanted = Wanted::by(part);
                let (facts, _) =
                    load(transaction, wanted, &hidden, &self.route_hasher, &self.loaded, &self.history).await?;
                Ok(decide(part, facts, &self.route_hasher))
            })
            .await?;
        decided.answers(|_| 0).pop().ok_or(Fail::Corrupt("an event without an outcome"))
    }

    /// See [`crate::Store::probe`].
    pub(super) async fn try_to_write(&self) -> Result<(), Fail> {
        self.transact(STATEMENT_MAX, async |transaction: &Transaction<'_>| {
            let mut pipeline = Pipeline::default();
            pipeline.add(LOCK, Vec::new());
            // It is rolled back.
            pipeline.add(TOUCH, Vec::new());
            pipeline.run(transaction).await.map(drop)
        })
        .await
    }

    /// Runs `work` in a transaction, within [`super::CALL_MAX`], and rolls back unless it committed. No statement takes
    /// longer than `limit`. If a lock is not free in time, transactions that wait for an instance that does not answer
    /// are ended.
    pub(super) async fn transact<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        self.with_client(async |client| {
            let transaction = Transaction::new(client, limit);
            let done = match tokio::time::timeout(WORK_MAX, work(&transaction)).await {
                Ok(done) => done,
                Err(_) if transaction.has_lock() => Err(Fail::Overtime),
                Err(_) => Err(Fail::Late),
            };
            if let Err(fail) = &done
                && fail.leaves_connection_unknown()
            {
                return done;
            }
            transaction.end().await?;
            match done {
                Err(fail) if fail.waited_for_lock() => {
                    end_unanswered(client).await?;
                    Err(Fail::Locked)
                }
                Err(fail) if fail.was_cancelled() => Err(Fail::Overtime),
                done => done,
            }
        })
        .await
    }

    /// Runs `work` with a connection of the pool, within [`super::CALL_MAX`]. The connection goes back to the pool
    /// after `work` has ended in an answer of the server. It is closed if its state is unknown, also if the caller
    /// drops this future.
    pub(super) async fn with_client<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        self.with_client_of(&self.pool, work).await
    }

    /// [`Postgres::with_client`], with a connection of this pool.
    pub(super) async fn with_client_of<T>(
        &self,
        pool: &Pool,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        self.history.is_ours()?;
        let mut lent = Lent { client: Some(pool.get().await?), suspicion: &self.suspicion };
        let Some(client) = &mut lent.client else { return Err(Fail::Late) };
        let done = match tokio::time::timeout(super::CALL_MAX, work(client)).await {
            Ok(done) => done,
            Err(_) => Err(Fail::Late),
        };
        if !done.as_ref().is_err_and(Fail::leaves_connection_unknown) {
            lent.give_back();
        }
        done
    }
}

/// Ends transactions that wait for an instance that does not answer.
async fn end_unanswered(client: &Client) -> Result<(), Fail> {
    let ended: i64 = client.query_one(END_UNANSWERED, &[]).await?.try_get(0)?;
    if ended > 0 {
        tracing::warn!(ended, "an instance that held the lock of the log did not answer, and was cut off");
    }
    Ok(())
}

/// A connection that is closed when it is dropped before it is given back. Then the others may have fallen silent with
/// it.
struct Lent<'a> {
    client: Option<Object>,
    suspicion: &'a Suspicion,
}

impl Lent<'_> {
    fn give_back(mut self) {
        drop(self.client.take());
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.suspicion.raise();
            drop(Object::take(client));
        }
    }
}
