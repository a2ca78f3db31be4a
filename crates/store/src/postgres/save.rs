//! Saving batches: facts are loaded, decided on and written in one transaction, under the lock of the log.

use deadpool_postgres::{Client, Object};
use nostr_extensions::{Admitted, Sealed};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    Postgres,
    fail::Fail,
    load::{LOCK, load},
    pipeline::{Pipeline, Transaction, parameters},
    rows::{cursor, event_id, fixed, number, sealed},
    write::{BURY, PUT_CLAIMED, REMOVE, write},
};
use crate::{
    Saved, StoreError,
    decide::{
        batch::{cut, decide},
        claim::{Owned, claim},
        facts::Wanted,
    },
    index::front,
};

const OWNED: &str = "select p.cursor, e.id, p.content_hash, p.last_resort, e.received_at, e.expires_at, e.flags, \
    e.record from rnostr.packages p join rnostr.events e on e.cursor = p.cursor \
    where p.owner = $1 and (e.expires_at is null or e.expires_at > $2) \
        and not exists (select from rnostr.vanished v where v.key = e.author and v.until >= e.created_at) \
    order by p.cursor";

impl Postgres {
    pub(super) async fn save_all(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let mut answers = Vec::with_capacity(batch.len());
        for part in cut(batch) {
            answers.extend(self.save_part(&part).await);
        }
        answers
    }

    /// Saves a part in one transaction. If the server refuses the data of an event, the part is halved until that event
    /// stands alone.
    async fn save_part(&self, part: &[Admitted]) -> Vec<Result<Saved, StoreError>> {
        let fail = match self.save_once(part).await {
            Ok(saved) => return saved.into_iter().map(Ok).collect(),
            Err(fail) => fail,
        };
        if !fail.is_about_data() {
            return vec![Err(fail.to_store_error()); part.len()];
        }
        if part.len() == 1 {
            return vec![Err(StoreError::Event(fail.to_store_error().to_string()))];
        }
        let (front, back) = part.split_at(part.len() / 2);
        let mut answers = Box::pin(self.save_part(front)).await;
        answers.extend(Box::pin(self.save_part(back)).await);
        answers
    }

    async fn save_once(&self, part: &[Admitted]) -> Result<Vec<Saved>, Fail> {
        let wanted = Wanted::by(part);
        let (decided, head) = self
            .transact(async |transaction: &Transaction<'_>| {
                let (facts, head) = load(transaction, wanted, &self.hiding.now()).await?;
                let decided = decide(part, facts, &self.route_hasher);
                if !decided.changes.put.is_empty() {
                    write(transaction, &decided.changes, head, self.notifies).await?;
                }
                Ok((decided, head))
            })
            .await?;
        self.committed(&decided.changes, head);
        Ok(decided.answers(|n| head + 1 + n as u64))
    }

    pub(super) async fn claim(
        &self,
        owner: &PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, Fail> {
        self.transact(async |transaction: &Transaction<'_>| {
            let mut pipeline = Pipeline::default();
            pipeline.add(LOCK, Vec::new());
            pipeline.add(OWNED, parameters![owner.as_bytes().to_vec(), number(now)]);
            let answers = pipeline.run(transaction).await?;
            let rows = answers.get(1).map_or(&[][..], Vec::as_slice);
            let mut owned = Vec::with_capacity(rows.len());
            for row in rows {
                owned.push(Owned {
                    cursor: cursor(row, "cursor")?,
                    id: event_id(row, "id")?,
                    content_hash: fixed(row, "content_hash")?,
                    last_resort: row.try_get("last_resort")?,
                });
            }
            let claim = claim(&owned, packages_max);
            let mut given = Vec::with_capacity(claim.given.len());
            for wanted in &claim.given {
                let row = owned.iter().position(|it| it.cursor == *wanted).and_then(|place| rows.get(place));
                given.push(sealed(row.ok_or(Fail::Corrupt("a KeyPackage has no event"))?)?);
            }
            let used: Vec<Vec<u8>> = claim.used.iter().map(|hash| front(hash).to_vec()).collect();
            let gone: Vec<i64> = claim.gone.iter().map(|(cursor, _)| number(*cursor)).collect();
            let ids: Vec<Vec<u8>> = claim.gone.iter().map(|(_, id)| front(id.as_bytes()).to_vec()).collect();
            if !gone.is_empty() {
                let mut pipeline = Pipeline::default();
                let owner = front(owner.as_bytes()).to_vec();
                let (by, public) = (vec![owner.clone(); ids.len()], vec![true; ids.len()]);
                pipeline.add(REMOVE, parameters![gone]);
                pipeline.add(BURY, parameters![ids, by, public]);
                pipeline.add(PUT_CLAIMED, parameters![vec![owner; used.len()], used]);
                pipeline.commit(transaction).await?;
            }
            Ok(given)
        })
        .await
    }

    /// Runs `work` in a transaction, within [`super::CALL_MAX`], and rolls back unless it committed. The
    /// connection is closed if the end of the transaction is unknown, and also if the caller drops this future.
    pub(super) async fn transact<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        let connection = ClosedOnDrop(Some(self.pool.get().await?));
        let Some(client) = &connection.0 else { return Err(Fail::Late) };
        let done = tokio::time::timeout(super::CALL_MAX, async {
            let transaction = Transaction::new(client);
            let done = work(&transaction).await;
            (done, transaction.end().await)
        });
        let Ok((done, ended)) = done.await else { return Err(Fail::Late) };
        if ended.is_ok() {
            connection.give_back();
        }
        done
    }

    /// Runs `work` with a connection of the pool, within [`super::CALL_MAX`]. A connection in an unknown state is
    /// closed.
    pub(super) async fn with_client<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        let mut client = self.pool.get().await?;
        let done = match tokio::time::timeout(super::CALL_MAX, work(&mut client)).await {
            Ok(done) => done,
            Err(_) => Err(Fail::Late),
        };
        if done.as_ref().is_err_and(Fail::leaves_connection_unknown) {
            drop(Object::take(client));
        }
        done
    }
}

/// A connection that is closed when it is dropped.
struct ClosedOnDrop(Option<Object>);

impl ClosedOnDrop {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}
