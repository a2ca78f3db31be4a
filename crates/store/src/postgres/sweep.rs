//! Removal of expired events, of events that vanished keys left, and of index entries that removals left; and sizes of
//! the store.

use deadpool_postgres::{Client, Transaction};
use nostr_extensions::mls_gateway::key_package::suite_of;
use nostr_protocol::UnixSecs;
use tokio_postgres::Row;

use super::{
    fail::Fail,
    history, once,
    rows::{self, number},
    vanished::{self, REMOVE_FREE, SWEPT_ROWS_MAX},
};
use crate::{
    ExpiredPackage, Stats, Swept,
    decide::{EPHEMERAL, hiding::Hiding},
};

/// The advisory lock of a sweep. A process that does not get it leaves the sweep to the holder.
const SWEEP_LOCK: i64 = 0x726e_6f73_7473;
/// Most rounds of one call that find only ephemeral events, and most that remove nonces, or used names.
const ROUNDS_MAX: usize = 50;
/// Most removed events whose index entries one call takes away.
const REMOVED_MAX: usize = 64;
/// Most vanished keys that one call removes events of.
const VANISHED_MAX: usize = 500;
/// Time, in seconds, for which the log tells the groups that removed events had touched. An instance whose last pass
/// began 2 s ago forgets all states of groups.
const TOUCHES_KEPT_SECS: u64 = 120;
/// Most such entries that one call removes.
const TOUCHES_SWEPT_MAX: i64 = 5_000;
/// Most rows of a table that are counted for the store's sizes. Above it the server's estimate is taken.
const COUNTED_ROWS_MAX: i64 = 100_000;

const LOCK: &str = "select pg_try_advisory_xact_lock($1)";
/// Expired events, up to the one that reaches a number of rows of the index.
const EXPIRED: &str = "with due as materialized (select cursor, flags, kept_until, cardinality(prefixes) as rows \
        from rnostr.events where kept_until <= $1 order by kept_until limit $2 for update skip locked) \
    select cursor, flags from (select cursor, flags, sum(rows) over (order by kept_until, cursor) - rows as before \
        from due) sized where before < $3";
/// KeyPackages of kind 443 among expired events that expire without having been given.
const EXPIRED_PACKAGES: &str = "select p.content_hash, e.record from rnostr.packages p \
    join rnostr.events e on e.cursor = p.cursor \
    where p.cursor = any($1::bigint[]) and not p.last_resort and e.kind = 443";
/// Most ledgers, and most receipts, that one call removes.
const LAPSED_MAX: i64 = 200;
const LAPSED_LEDGERS: &str = "delete from rnostr.ledgers where owner = any(array(\
    select owner from rnostr.ledgers where until <= $1 order by until limit $2 for update skip locked))";
const LAPSED_RECEIPTS: &str = "delete from rnostr.receipts where ctid = any(array(\
    select ctid from rnostr.receipts where until <= $1 order by until limit $2 for update skip locked))";
/// Takes the index entries of removed events away, up to the event that reaches a number of rows, and counts the
/// events. It passes over events that are put again just now: they take over their entries.
const SWEEP_REMOVED: &str = "with waiting as materialized (select cursor, cardinality(prefixes) as rows \
        from rnostr.removed order by cursor limit $1 for update skip locked), \
    due as (select cursor from (select cursor, sum(rows) over (order by cursor) - rows as before from waiting) sized \
        where before < $2), \
    gone as (delete from rnostr.removed r using due where r.cursor = due.cursor \
        returning r.cursor, r.id, r.created_at, r.prefixes), \
    index as (delete from rnostr.event_index i \
        using (select unnest(prefixes) as prefix, -created_at as age, id, cursor from gone) entry \
        where i.prefix = entry.prefix and i.age = entry.age and i.id = entry.id and i.cursor = entry.cursor) \
    select count(*) from gone";
const SWEEP_TOUCHES: &str = "delete from rnostr.removed_touches where cursor = any(array(select cursor \
    from rnostr.removed_touches where at < extract(epoch from clock_timestamp())::bigint - $1::bigint \
    order by at limit $2))";
/// A table that was never analysed has no estimate: its count ends at the bound.
const STATS: &str = "select case when e.reltuples > $1::bigint then e.reltuples::bigint \
        else (select count(*) filter (where flags & 8 = 0) \
            from (select flags from rnostr.events limit $1::bigint) counted) end as events, \
    case when g.reltuples > $1::bigint then g.reltuples::bigint \
        else (select count(*) from (select 1 from rnostr.groups limit $1::bigint) counted) end as groups, \
    case when p.reltuples > $1::bigint then p.reltuples::bigint \
        else (select count(*) from (select 1 from rnostr.packages limit $1::bigint) counted) end as packages, \
    (select coalesce(sum(pg_total_relation_size(r.oid)), 0)::bigint from pg_class r \
        where r.relnamespace = e.relnamespace and r.relkind = 'r') as bytes \
    from pg_class e, pg_class g, pg_class p where e.oid = 'rnostr.events'::regclass \
        and g.oid = 'rnostr.groups'::regclass and p.oid = 'rnostr.packages'::regclass";

/// Removes at most `events_max` events, and returns their number.
pub(super) async fn sweep(
    client: &mut Client,
    now: UnixSecs,
    events_max: usize,
    hiding: &Hiding,
) -> Result<Swept, Fail> {
    // A process that does not sweep learns here that keys are finished.
    let pending = vanished::learn(client, hiding).await?;
    sweep_nonces(client).await?;
    sweep_touches(client).await?;
    for _ in 0..ROUNDS_MAX {
        if !once::forget(client, now).await? {
            break;
        }
    }
    sweep_lapsed(client, now).await?;
    let mut swept = Swept { removed: sweep_removed(client, events_max).await?, ..Swept::default() };
    if swept.removed < events_max {
        let expired = sweep_expired(client, now, events_max - swept.removed).await?;
        swept.removed += expired.removed;
        swept.expired = expired.expired;
    }
    for (key, until) in pending.iter().take(VANISHED_MAX) {
        if swept.removed >= events_max {
            break;
        }
        let Some(transaction) = begin(client).await? else { break };
        let taken = vanished::take_out(&transaction, key, *until, events_max - swept.removed).await?;
        transaction.commit().await?;
        swept.removed += taken;
        if taken > 0 {
            // The caller pauses before the next piece.
            break;
        }
    }
    Ok(swept)
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

/// Removes what removed events had touched, once no follower goes by it.
async fn sweep_touches(client: &mut Client) -> Result<(), Fail> {
    let Some(transaction) = begin(client).await? else { return Ok(()) };
    let sweep = transaction.prepare_cached(SWEEP_TOUCHES).await?;
    transaction.execute(&sweep, &[&number(TOUCHES_KEPT_SECS), &TOUCHES_SWEPT_MAX]).await?;
    transaction.commit().await?;
    Ok(())
}

/// Takes index entries of removed events away, and gives the number of the events.
async fn sweep_removed(client: &mut Client, events_max: usize) -> Result<usize, Fail> {
    let most = i64::try_from(events_max.min(REMOVED_MAX)).unwrap_or(i64::MAX);
    let Some(transaction) = begin(client).await? else { return Ok(0) };
    let sweep = transaction.prepare_cached(SWEEP_REMOVED).await?;
    let swept: i64 = transaction.query_one(&sweep, &[&most, &SWEPT_ROWS_MAX]).await?.try_get(0)?;
    transaction.commit().await?;
    Ok(usize::try_from(swept).unwrap_or(0))
}

/// Removes ledgers and receipts that have lapsed.
async fn sweep_lapsed(client: &mut Client, now: UnixSecs) -> Result<(), Fail> {
    for statement in [LAPSED_LEDGERS, LAPSED_RECEIPTS] {
        let Some(transaction) = begin(client).await? else { return Ok(()) };
        let remove = transaction.prepare_cached(statement).await?;
        transaction.execute(&remove, &[&number(now), &LAPSED_MAX]).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn sweep_expired(client: &mut Client, now: UnixSecs, events_max: usize) -> Result<Swept, Fail> {
    let most = i64::try_from(events_max).unwrap_or(i64::MAX);
    for _ in 0..ROUNDS_MAX {
        let Some(transaction) = begin(client).await? else { return Ok(Swept::default()) };
        let expired = transaction.prepare_cached(EXPIRED).await?;
        let rows = transaction.query(&expired, &[&number(now), &most, &SWEPT_ROWS_MAX]).await?;
        let cursors: Vec<i64> = rows.iter().map(|row| row.get("cursor")).collect();
        let kept = rows.iter().filter(|row| row.get::<_, i16>("flags") & EPHEMERAL == 0).count();
        if cursors.is_empty() {
            transaction.rollback().await?;
            return Ok(Swept::default());
        }
        let packages = transaction.prepare_cached(EXPIRED_PACKAGES).await?;
        let packages = transaction.query(&packages, &[&cursors]).await?;
        let expired = packages.iter().map(expired_package).collect::<Result<_, Fail>>()?;
        let remove = transaction.prepare_cached(REMOVE_FREE).await?;
        transaction.query_one(&remove, &[&cursors, &i64::MAX]).await?;
        transaction.commit().await?;
        // Ephemeral events are not counted, and a round of them must not look like the end.
        if kept > 0 {
            return Ok(Swept { removed: kept, expired });
        }
    }
    Ok(Swept::default())
}

fn expired_package(row: &Row) -> Result<ExpiredPackage, Fail> {
    let event = rows::event(row)?;
    Ok(ExpiredPackage {
        owner: event.pubkey(),
        content_hash: rows::fixed(row, "content_hash")?,
        suite: suite_of(event.view()),
    })
}

pub(super) async fn stats(client: &Client) -> Result<Stats, Fail> {
    let statement = client.prepare_cached(STATS).await?;
    let row = client.query_one(&statement, &[&COUNTED_ROWS_MAX]).await?;
    let number = |column: &str| -> Result<u64, Fail> { super::rows::unsigned(row.try_get(column)?) };
    Ok(Stats {
        events: number("events")?,
        groups: number("groups")?,
        key_packages: Some(number("packages")?),
        bytes_used: number("bytes")?,
        bytes_max: 0,
    })
}
