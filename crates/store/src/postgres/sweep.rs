//! Removal of expired events and of events that vanished keys left, and sizes of the store.

use deadpool_postgres::{Client, Transaction};
use nostr_protocol::UnixSecs;

use super::{
    fail::Fail,
    history,
    rows::number,
    vanished::{self, SWEPT_ROWS_MAX},
    write::REMOVE,
};
use crate::{
    Stats,
    decide::{EPHEMERAL, hiding::Hiding},
};

/// The advisory lock of a sweep. A process that does not get it leaves the sweep to the holder.
const SWEEP_LOCK: i64 = 0x726e_6f73_7473;
/// Most rounds of one call that find only ephemeral events, and most that remove nonces.
const ROUNDS_MAX: usize = 50;
/// Most vanished keys that one call removes events of.
const VANISHED_MAX: usize = 500;
/// Number of events above which the server's estimate is taken for the count.
const COUNTED_MAX: f32 = 100_000.0;

const LOCK: &str = "select pg_try_advisory_xact_lock($1)";
/// Expired events, up to the one that reaches a number of rows of the index.
const EXPIRED: &str = "with due as materialized (select cursor, flags, kept_until, cardinality(prefixes) as rows \
        from rnostr.events where kept_until <= $1 order by kept_until limit $2 for update skip locked) \
    select cursor, flags from (select cursor, flags, sum(rows) over (order by kept_until, cursor) - rows as before \
        from due) sized where before < $3";
const STATS: &str = "select case when c.reltuples > $1 then c.reltuples::bigint \
        else (select count(*) from rnostr.events where flags & 8 = 0) end as events, \
    (select count(*) from rnostr.groups) as groups, \
    (select coalesce(sum(pg_total_relation_size(r.oid)), 0)::bigint from pg_class r \
        where r.relnamespace = c.relnamespace and r.relkind = 'r') as bytes \
    from pg_class c where c.oid = 'rnostr.events'::regclass";

/// Removes at most `events_max` events, and returns their number.
pub(super) async fn sweep(
    client: &mut Client,
    now: UnixSecs,
    events_max: usize,
    hiding: &Hiding,
) -> Result<usize, Fail> {
    // A process that does not sweep learns here that keys are finished.
    let pending = vanished::learn(client, hiding).await?;
    sweep_nonces(client).await?;
    let mut removed = sweep_expired(client, now, events_max).await?;
    for (key, until) in pending.iter().take(VANISHED_MAX) {
        if removed >= events_max {
            break;
        }
        let Some(transaction) = begin(client).await? else { break };
        removed += vanished::take_out(&transaction, key, *until, events_max - removed).await?;
        transaction.commit().await?;
    }
    Ok(removed)
}

/// A transaction that holds the sweep's lock; `None` if another process holds it.
async fn begin(client: &mut Client) -> Result<Option<Transaction<'_>>, Fail> {
    let transaction = client.transaction().await?;
    let lock = transaction.prepare_cached(LOCK).await?;
    if transaction.query_one(&lock, &[&SWEEP_LOCK]).await?.try_get::<_, bool>(0)? {
        return Ok(Some(transaction));
    }
    transaction.rollback().await?;
    Ok(None)
}

/// Removes the nonces of old commits.
async fn sweep_nonces(client: &mut Client) -> Result<(), Fail> {
    for _ in 0..ROUNDS_MAX {
        let Some(transaction) = begin(client).await? else { return Ok(()) };
        let is_more_left = history::remove_old(&transaction).await?;
        transaction.commit().await?;
        if !is_more_left {
            break;
        }
    }
    Ok(())
}

async fn sweep_expired(client: &mut Client, now: UnixSecs, events_max: usize) -> Result<usize, Fail> {
    let most = i64::try_from(events_max).unwrap_or(i64::MAX);
    for _ in 0..ROUNDS_MAX {
        let Some(transaction) = begin(client).await? else { return Ok(0) };
        let expired = transaction.prepare_cached(EXPIRED).await?;
        let rows = transaction.query(&expired, &[&number(now), &most, &SWEPT_ROWS_MAX]).await?;
        let cursors: Vec<i64> = rows.iter().map(|row| row.get("cursor")).collect();
        let kept = rows.iter().filter(|row| row.get::<_, i16>("flags") & EPHEMERAL == 0).count();
        if cursors.is_empty() {
            transaction.rollback().await?;
            return Ok(0);
        }
        let remove = transaction.prepare_cached(REMOVE).await?;
        transaction.query(&remove, &[&cursors]).await?;
        transaction.commit().await?;
        // Ephemeral events are not counted, and a round of them must not look like the end.
        if kept > 0 {
            return Ok(kept);
        }
    }
    Ok(0)
}

pub(super) async fn stats(client: &Client) -> Result<Stats, Fail> {
    let statement = client.prepare_cached(STATS).await?;
    let row = client.query_one(&statement, &[&COUNTED_MAX]).await?;
    let number = |column: &str| -> Result<u64, Fail> { super::rows::unsigned(row.try_get(column)?) };
    Ok(Stats { events: number("events")?, groups: number("groups")?, bytes_used: number("bytes")?, bytes_max: 0 })
}
