//! Events of vanished keys: hidden from the moment of the request, and removed by sweeps, some at a time.

use std::collections::HashMap;

use deadpool_postgres::{Client, Transaction};
use nostr_extensions::{
    kinds::{KEPT_FROM_VANISHED, OWNED_BY_RECIPIENTS},
    mls_gateway::deletion::vanishes,
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    fail::Fail,
    rows::{cursor, event, key, number, unsigned, without_content},
    write::keep_touches,
};
use crate::{
    decide::{hiding::Hiding, number_of},
    index::prefix,
    weight::BATCH_ROWS_MAX,
};

/// Rows of the index after which one transaction of a sweep removes no further event, as many as one batch adds. No
/// batch waits for a lock of this transaction.
pub(super) const SWEPT_ROWS_MAX: i64 = BATCH_ROWS_MAX as i64;
/// Most keys that one statement gives.
const PENDING_KEYS_MAX: i64 = 1_000;

/// Pending keys, with the head of the log in the same snapshot.
const PENDING: &str = "select l.head, v.key, v.until from rnostr.log l left join lateral \
    (select key, until from rnostr.vanished where pending and key > $1 order by key limit $2) v on true order by v.key";
const BY_AUTHOR: &str = "select cursor from rnostr.events where author = $1 and created_at <= $2 \
    and kind <> all($4::int[]) and flags & 16 = 0 order by created_at limit $3";
const BY_PREFIX: &str = concat!(
    "select e.cursor, i.age, i.id, ",
    without_content!(),
    " from rnostr.event_index i join rnostr.events e on e.cursor = i.cursor \
        where i.prefix = $1 and (i.age, i.id) > ($2, $3) order by i.age, i.id limit $4"
);
/// Removes events with their index entries, but skips locked rows, so that sweep and writer never wait for each other,
/// and ends with the event that reaches a number of rows of the index.
pub(super) const REMOVE_FREE: &str = concat!(
    "with free as materialized (select cursor, cardinality(prefixes) as rows \
        from rnostr.events where cursor = any($1::bigint[]) for update skip locked), \
    taken as (select cursor from (select cursor, sum(rows) over (order by cursor) - rows as before from free) sized \
        where before < $2), \
    gone as (delete from rnostr.events e using taken where e.cursor = taken.cursor \
        returning e.created_at, e.id, e.prefixes, e.cursor, e.kind, e.flags, e.touches_group, e.touched_groups), ",
    keep_touches!(),
    "index as (delete from rnostr.event_index i \
        using (select unnest(prefixes) as prefix, -created_at as age, id from gone) entry \
        where i.prefix = entry.prefix and i.age = entry.age and i.id = entry.id) \
    select count(*) from gone"
);
const DONE: &str = "update rnostr.vanished set pending = false where key = $1 and until = $2";

/// The prefixes of events that a vanished key takes along and did not write, as numbers.
pub(super) fn prefixes_for(key: &PublicKey) -> [i64; 3] {
    OWNED_BY_RECIPIENTS.map(|kind| number_of(&prefix::reader(key, kind)))
}

/// Kinds that stay when their author vanishes, for statements.
pub(super) fn kept_kinds() -> Vec<i32> {
    KEPT_FROM_VANISHED.map(|kind| i32::from(kind.0)).to_vec()
}

/// Reads the keys that vanished and still have events.
pub(super) async fn learn(client: &Client, hiding: &Hiding) -> Result<HashMap<PublicKey, UnixSecs>, Fail> {
    let statement = client.prepare_cached(PENDING).await?;
    let (mut pending, mut head) = (HashMap::new(), None);
    let mut behind = Vec::new();
    loop {
        let rows = client.query(&statement, &[&behind, &PENDING_KEYS_MAX]).await?;
        for row in &rows {
            // A later page may lack keys that vanished after the first snapshot, so the first head counts.
            head = Some(head.unwrap_or(cursor(row, "head")?));
            if row.try_get::<_, Option<&[u8]>>("key")?.is_some() {
                let key = key(row, "key")?;
                behind = key.as_bytes().to_vec();
                pending.insert(key, unsigned(row.try_get("until")?)?);
            }
        }
        if (rows.len() as i64) < PENDING_KEYS_MAX {
            break;
        }
    }
    hiding.settle(&pending, head.ok_or(Fail::Corrupt("the log has no head"))?);
    Ok(pending)
}

/// Removes at most `events_max` events that a vanished key left, and returns their number. Marks the key as finished if
/// none is left.
pub(super) async fn take_out(
    transaction: &Transaction<'_>,
    key: &PublicKey,
    until: UnixSecs,
    events_max: usize,
) -> Result<usize, Fail> {
    let left = left_by(transaction, key, until, events_max).await?;
    if left.is_empty() {
        let done = transaction.prepare_cached(DONE).await?;
        transaction.execute(&done, &[&key.as_bytes().as_slice(), &number(until)]).await?;
        return Ok(0);
    }
    let remove = transaction.prepare_cached(REMOVE_FREE).await?;
    let removed: i64 = transaction.query_one(&remove, &[&left, &SWEPT_ROWS_MAX]).await?.try_get(0)?;
    Ok(usize::try_from(removed).unwrap_or(0))
}

/// Places of at most `events_max` events that a vanished key left; empty if none is left.
async fn left_by(
    transaction: &Transaction<'_>,
    key: &PublicKey,
    until: UnixSecs,
    events_max: usize,
) -> Result<Vec<i64>, Fail> {
    let most = i64::try_from(events_max.max(1)).unwrap_or(i64::MAX);
    let statement = transaction.prepare_cached(BY_AUTHOR).await?;
    let rows =
        transaction.query(&statement, &[&key.as_bytes().as_slice(), &number(until), &most, &kept_kinds()]).await?;
    let mut left = rows.iter().map(|row| Ok(row.try_get("cursor")?)).collect::<Result<Vec<i64>, Fail>>()?;
    let statement = transaction.prepare_cached(BY_PREFIX).await?;
    for prefix in prefixes_for(key) {
        let (mut age, mut id) = (-number(until), Vec::<u8>::new());
        // Every event under this prefix goes, unless its prefix only shares the number.
        while left.len() < events_max {
            let rows = transaction.query(&statement, &[&prefix, &age, &id, &most]).await?;
            for row in &rows {
                (age, id) = (row.try_get("age")?, row.try_get("id")?);
                if vanishes(event(row)?.view(), key, until) {
                    left.push(number(cursor(row, "cursor")?));
                }
            }
            if (rows.len() as i64) < most {
                break;
            }
        }
    }
    Ok(left)
}
