//! Claims of KeyPackages. The filters are matched without the lock of the log; under it one transaction looks only at
//! the names of KeyPackages and uses up those that are given.

use std::collections::HashMap;

use deadpool_postgres::Client;
use nostr_extensions::Sealed;
use nostr_protocol::UnixSecs;
use tokio_postgres::Row;

use super::{
    Postgres,
    fail::Fail,
    history::History,
    load::LOCK,
    pipeline::{Pipeline, Transaction, parameters},
    rows::{cursor, event, event_id, fixed, number, seal},
    save::STATEMENT_MAX,
    write::{BURY, PUT_CLAIMED, remove},
};
use crate::{
    Claim, Claimed, Cost, Cursor,
    decide::claim::{Candidate, Owned, Pick, SEARCHES_MAX, Search, Stock, pick},
    index::front,
};

/// Most KeyPackages of one owner that a claim goes through.
const OWNED_MAX: i64 = 5_000;
/// Most events that a search reads at one time.
const READ_AT_ONCE_MAX: usize = 8;

/// The owner's KeyPackages at a time, which a condition on `p` may narrow.
macro_rules! owned {
    ($columns:literal, $condition:literal) => {
        concat!(
            "select ",
            $columns,
            " from rnostr.packages p join rnostr.events e on e.cursor = p.cursor \
            where p.owner = $1 and (e.expires_at is null or e.expires_at > $2) \
                and not exists (select from rnostr.vanished v where v.key = e.author and v.until >= e.created_at)",
            $condition
        )
    };
}

/// Those of last resort come first, so that the bound does not cut them off.
const OWNED: &str =
    owned!("p.cursor, e.id, p.content_hash, p.last_resort", " order by p.last_resort desc, p.cursor limit $3");
const TWINS: &str =
    owned!("p.cursor, e.id, p.content_hash, p.last_resort", " and p.content_hash = any($3::bytea[]) order by p.cursor");
const OTHERS: &str = owned!("1", " and p.content_hash <> all($3::bytea[]) limit 1");
const EVENTS: &str = "select cursor, received_at, expires_at, flags, record from rnostr.events \
    where cursor = any($1::bigint[]) order by cursor";

fn owned(row: &Row) -> Result<Owned, Fail> {
    Ok(Owned {
        cursor: cursor(row, "cursor")?,
        id: event_id(row, "id")?,
        content_hash: fixed(row, "content_hash")?,
        last_resort: row.try_get("last_resort")?,
    })
}

/// The KeyPackages that a claim may give, and the owner's stock when they were found.
struct Found {
    candidates: Vec<Candidate>,
    events: HashMap<Cursor, Sealed>,
    stock: Stock,
    cost: Cost,
}

impl Found {
    fn give(&self, pick: &Pick) -> Claimed {
        let event = |index: usize| self.events.get(&self.candidates[index].owned.cursor).cloned();
        let given = pick.given.iter().filter_map(|(index, filter)| Some((event(*index)?, *filter)));
        Claimed { given: given.collect(), used: pick.used.len(), withheld: pick.withheld, cost: self.cost }
    }
}

impl Postgres {
    /// See [`crate::Store::claim_key_packages`].
    pub(super) async fn claim(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, Fail> {
        for _ in 0..SEARCHES_MAX {
            let found = self.with_client(async |client| search(client, claim, now).await).await?;
            let first = pick(claim, &found.candidates, &found.stock);
            if first.used.is_empty() {
                return Ok(found.give(&first));
            }
            let take = async |transaction: &Transaction<'_>| {
                take(transaction, &self.history, claim, &found.candidates, now).await
            };
            let taken = self.transact(STATEMENT_MAX, take).await?;
            if !taken.is_overtaken {
                return Ok(found.give(&taken));
            }
        }
        Err(Fail::Late)
    }
}

async fn search(client: &mut Client, claim: &Claim, now: UnixSecs) -> Result<Found, Fail> {
    let statement = client.prepare_cached(OWNED).await?;
    let owner = &claim.owner.as_bytes()[..];
    let rows = client.query(&statement, &[&owner, &number(now), &OWNED_MAX]).await?;
    let all = rows.iter().map(owned).collect::<Result<Vec<Owned>, Fail>>()?;
    let mut search = Search::new(claim);
    let mut events = HashMap::new();
    for last_resort in [false, true] {
        let sort: Vec<&Owned> = all.iter().filter(|it| it.last_resort == last_resort).collect();
        for some in sort.chunks(READ_AT_ONCE_MAX) {
            if !search.looks_for(last_resort) {
                break;
            }
            let wanted: Vec<i64> = some.iter().filter(|it| search.wants(it)).map(|it| number(it.cursor)).collect();
            let statement = client.prepare_cached(EVENTS).await?;
            for row in client.query(&statement, &[&wanted]).await? {
                let (at, event) = (cursor(&row, "cursor")?, event(&row)?);
                let owned = some.iter().find(|it| it.cursor == at);
                if owned.is_some_and(|owned| search.look(owned, event.view())) {
                    events.insert(at, seal(&row, event)?);
                }
            }
        }
    }
    let candidates = search.candidates();
    let stock = Stock::of(&candidates, all.iter());
    Ok(Found { candidates, events, stock, cost: search.cost() })
}

/// Chooses among the candidates and uses up, under the lock of the log.
async fn take(
    transaction: &Transaction<'_>,
    history: &History,
    claim: &Claim,
    candidates: &[Candidate],
    now: UnixSecs,
) -> Result<Pick, Fail> {
    let contents: Vec<Vec<u8>> = candidates.iter().map(|it| it.owned.content_hash.to_vec()).collect();
    let owner = claim.owner.as_bytes().to_vec();
    let mut pipeline = Pipeline::default();
    pipeline.add(LOCK, Vec::new());
    let fence = history.fence(&mut pipeline);
    pipeline.add(TWINS, parameters![owner.clone(), number(now), contents.clone()]);
    pipeline.add(OTHERS, parameters![owner.clone(), number(now), contents]);
    let answers = pipeline.run(transaction).await?;
    let rows = |n: usize| answers.get(n).map_or(&[][..], Vec::as_slice);
    fence.check(history, rows(1))?;
    let twins = rows(2).iter().map(owned).collect::<Result<_, Fail>>()?;
    let stock = Stock { twins, has_others: !rows(3).is_empty() };
    let pick = pick(claim, candidates, &stock);
    if !pick.used.is_empty() {
        let used: Vec<Vec<u8>> = pick.used.iter().map(|hash| front(hash).to_vec()).collect();
        let gone: Vec<i64> = pick.gone.iter().map(|(cursor, _)| number(*cursor)).collect();
        let ids: Vec<Vec<u8>> = pick.gone.iter().map(|(_, id)| front(id.as_bytes()).to_vec()).collect();
        let owner = front(claim.owner.as_bytes()).to_vec();
        let (by, public) = (vec![owner.clone(); ids.len()], vec![true; ids.len()]);
        let mut pipeline = Pipeline::default();
        remove(&mut pipeline, gone);
        pipeline.add(BURY, parameters![ids, by, public]);
        pipeline.add(PUT_CLAIMED, parameters![vec![owner; used.len()], used]);
        pipeline.commit(transaction).await?;
    }
    Ok(pick)
}
