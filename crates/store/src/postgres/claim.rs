//! Claims of KeyPackages. The filters are matched without the lock of the log; under it one transaction looks only at
//! the names of KeyPackages and uses up those that are given.

use std::collections::HashMap;

use deadpool_postgres::Client;
use nostr_extensions::Stamp;
use nostr_protocol::{Event, Kind, PublicKey, UnixSecs};
use tokio_postgres::Row;

use super::{
    Postgres,
    fail::Fail,
    history::History,
    load::LOCK,
    pipeline::{Pipeline, Transaction, parameters},
    rows::{cursor, event, event_id, fixed, kind, number, stamp, unsigned},
    save::STATEMENT_MAX,
    write::{BURY, BURY_ADDRESSES, PUT_CLAIMED, remove},
};
use crate::{
    Claim, Claimed, Cost, Cursor, ReceiptName, StockRequest,
    decide::{
        claim::{Candidate, Contents, OTHERS_MAX, Owned, Pick, SEARCHES_MAX, Search, Stock, pick},
        ledger::Ledger,
        lookup::OWNED_MAX,
        receipt::Receipt,
    },
    index::front,
};

/// Most KeyPackages of one owner that a claim goes through.
const LISTED_MAX: i64 = 5_000;
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
const OTHERS: &str = concat!(
    "select count(*) as all, count(distinct content_hash) filter (where not last_resort) as fresh from (",
    owned!(
        "p.content_hash, p.last_resort",
        " and p.content_hash <> all($3::bytea[]) and p.cursor <> all($5::bigint[]) limit $4"
    ),
    ") others"
);
const CONTENTS: &str = owned!("p.content_hash, p.last_resort, e.kind", " order by p.last_resort, p.cursor limit $3");
const MARK_LAST: &str = "update rnostr.packages set last_resort = true where owner = $1 and content_hash = $2";
const LEDGER: &str = "select packed from rnostr.ledgers where owner = $1";
const PUT_LEDGER: &str = "insert into rnostr.ledgers (owner, until, packed) values ($1, $2, $3) \
    on conflict (owner) do update set until = excluded.until, packed = excluded.packed";
const REMOVE_LEDGER: &str = "delete from rnostr.ledgers where owner = $1";
const RECEIPT: &str = "select packed, (select until from rnostr.vanished where key = $4) as vanished \
    from rnostr.receipts where reader = $1 and name = $2 and until > $3";
const PUT_RECEIPT: &str = "insert into rnostr.receipts (reader, name, until, packed) values ($1, $2, $3, $4) \
    on conflict (reader, name) do update set until = excluded.until, packed = excluded.packed";
const IS_KEPT: &str = "select 1 from rnostr.events where id = $1 and flags & 8 = 0 \
    and (expires_at is null or expires_at > $2)";
const SHARES_GROUP: &str = "select exists(select from rnostr.members a \
    join rnostr.members b on b.group_id = a.group_id and b.key = $2 and b.invited_at is null where a.key = $1) \
    as shares, (select count(*) from rnostr.members where key = $1) as own";
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

/// The KeyPackages that a claim may give, and the owner's stock and ledger when they were found.
struct Found {
    candidates: Vec<Candidate>,
    events: HashMap<Cursor, (Event, Stamp)>,
    /// The owner's banned KeyPackage events.
    banned: Vec<i64>,
    stock: Stock,
    ledger: Ledger,
    cost: Cost,
}

impl Found {
    fn answer(&self, claim: &Claim, pick: &Pick, now: UnixSecs) -> (Claimed, Option<Receipt>) {
        let event = |index: usize| self.events.get(&self.candidates[index].owned.cursor).cloned();
        pick.answer(claim, now, self.cost, event)
    }
}

/// The outcome of a try to use KeyPackages up.
enum Taken {
    Answered(Box<Claimed>),
    /// Other claims have taken all that was found.
    Overtaken,
}

impl Postgres {
    /// See [`crate::Store::claim_key_packages`].
    pub(super) async fn claim(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, Fail> {
        if claim.receipt.is_some()
            && let Some(claimed) = self.with_client(async |client| kept_answer(client, claim, now).await).await?
        {
            return Ok(claimed);
        }
        for _ in 0..SEARCHES_MAX {
            let found = self.with_client(async |client| search(client, claim, now).await).await?;
            let first = pick(claim, &found.candidates, &found.stock, &found.ledger, now);
            if !first.writes(claim) {
                return Ok(found.answer(claim, &first, now).0);
            }
            let take = async |transaction: &Transaction<'_>| take(transaction, &self.history, claim, &found, now).await;
            if let Taken::Answered(claimed) = self.transact(STATEMENT_MAX, take).await? {
                return Ok(*claimed);
            }
        }
        Err(Fail::Late)
    }

    /// See [`crate::Store::stock`].
    pub(super) async fn count_packages(&self, owner: &PublicKey, now: UnixSecs) -> Result<crate::Stock, Fail> {
        let rows = self
            .with_client(async |client| {
                let statement = client.prepare_cached(CONTENTS).await?;
                Ok(client.query(&statement, &[&owner.as_bytes().to_vec(), &number(now), &LISTED_MAX]).await?)
            })
            .await?;
        Ok(contents(&rows)?.0.stock())
    }

    /// See [`crate::Store::may_request`].
    pub(super) async fn request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, Fail> {
        self.transact(STATEMENT_MAX, async |transaction: &Transaction<'_>| {
            let owner = || request.owner.as_bytes().to_vec();
            let mut pipeline = Pipeline::default();
            pipeline.add(LOCK, Vec::new());
            let fence = self.history.fence(&mut pipeline);
            pipeline.add(CONTENTS, parameters![owner(), number(now), OWNED_MAX as i64]);
            pipeline.add(LEDGER, parameters![owner()]);
            let answers = pipeline.run(transaction).await?;
            let rows = |n: usize| answers.get(n).map_or(&[][..], Vec::as_slice);
            fence.check(&self.history, rows(1))?;
            let (contents, is_addressable) = contents(rows(2))?;
            if is_addressable || contents.stock().unclaimed >= request.low_watermark {
                return Ok(false);
            }
            let mut ledger = ledger(rows(3))?;
            let is_kept = match ledger.last_request() {
                Some(id) => {
                    let mut pipeline = Pipeline::default();
                    pipeline.add(IS_KEPT, parameters![id.as_bytes().to_vec(), number(now)]);
                    pipeline.run(transaction).await?.iter().any(|rows| !rows.is_empty())
                }
                None => false,
            };
            if !ledger.request(request.id, &contents.into_hashes(), request.expired, is_kept, now) {
                return Ok(false);
            }
            let mut pipeline = Pipeline::default();
            put_ledger(&mut pipeline, &request.owner, &ledger, now);
            pipeline.commit(transaction).await?;
            Ok(true)
        })
        .await
    }

    /// See [`crate::Store::shares_group`].
    pub(super) async fn find_common_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), Fail> {
        self.with_client(async |client| {
            let statement = client.prepare_cached(SHARES_GROUP).await?;
            let (owner, key) = (owner.as_bytes().to_vec(), key.as_bytes().to_vec());
            let row = client.query_one(&statement, &[&key, &owner]).await?;
            // By the asking key's own groups: a price by the other's would tell their number.
            Ok((row.try_get("shares")?, Cost::of_units(1 + unsigned(row.try_get("own")?)?)))
        })
        .await
    }
}

/// The kept answer to a claim, read without a lock.
async fn kept_answer(client: &mut Client, claim: &Claim, now: UnixSecs) -> Result<Option<Claimed>, Fail> {
    let Some(name) = &claim.receipt else { return Ok(None) };
    let statement = client.prepare_cached(RECEIPT).await?;
    let (reader, owner) = (name.reader.as_bytes().to_vec(), claim.owner.as_bytes().to_vec());
    let rows = client.query(&statement, &[&reader, &name.name.to_vec(), &number(now), &owner]).await?;
    repetition(name, &rows)
}

/// Reads the answer to [`RECEIPT`].
fn repetition(name: &ReceiptName, rows: &[Row]) -> Result<Option<Claimed>, Fail> {
    let Some(row) = rows.first() else { return Ok(None) };
    let receipt = Receipt::unpack(row.try_get("packed")?).ok_or(Fail::Corrupt("a receipt is cut short"))?;
    let vanished = row.try_get::<_, Option<i64>>("vanished")?.map(unsigned).transpose()?;
    Ok(Some(receipt.answer(name, vanished)))
}

/// Reads the answer to [`LEDGER`].
fn ledger(rows: &[Row]) -> Result<Ledger, Fail> {
    let Some(row) = rows.first() else { return Ok(Ledger::default()) };
    Ledger::unpack(row.try_get("packed")?).ok_or(Fail::Corrupt("an owner's ledger is cut short"))
}

fn put_ledger(pipeline: &mut Pipeline, owner: &PublicKey, ledger: &Ledger, now: UnixSecs) {
    let owner = owner.as_bytes().to_vec();
    match ledger.until(now) {
        Some(until) => pipeline.add(PUT_LEDGER, parameters![owner, number(until), ledger.pack()]),
        None => pipeline.add(REMOVE_LEDGER, parameters![owner]),
    }
}

/// Reads the answer to [`CONTENTS`]: the KeyPackages, and whether one of them is a 30443.
fn contents(rows: &[Row]) -> Result<(Contents, bool), Fail> {
    let (mut contents, mut is_addressable) = (Contents::default(), false);
    for row in rows {
        contents.add(fixed(row, "content_hash")?, row.try_get("last_resort")?);
        is_addressable |= kind(row, "kind")? == Kind::ADDRESSABLE_KEY_PACKAGE;
    }
    Ok((contents, is_addressable))
}

async fn search(client: &mut Client, claim: &Claim, now: UnixSecs) -> Result<Found, Fail> {
    let statement = client.prepare_cached(OWNED).await?;
    let owner = &claim.owner.as_bytes()[..];
    let rows = client.query(&statement, &[&owner, &number(now), &LISTED_MAX]).await?;
    let all = rows.iter().map(owned).collect::<Result<Vec<Owned>, Fail>>()?;
    let statement = client.prepare_cached(LEDGER).await?;
    let ledger = ledger(&client.query(&statement, &[&owner]).await?)?;
    let mut search = Search::new(claim);
    search.note_lines(all.len());
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
                    events.insert(at, (event, stamp(&row)?));
                }
            }
        }
    }
    let candidates = search.candidates();
    let stock = Stock::of(claim, &candidates, all.iter());
    let banned = all.iter().filter(|it| claim.passes_over(&it.id)).map(|it| number(it.cursor)).collect();
    Ok(Found { candidates, events, banned, stock, ledger, cost: search.cost() })
}

/// Chooses among the candidates and uses up, under the lock of the log.
async fn take(
    transaction: &Transaction<'_>,
    history: &History,
    claim: &Claim,
    found: &Found,
    now: UnixSecs,
) -> Result<Taken, Fail> {
    let contents: Vec<Vec<u8>> = found.candidates.iter().map(|it| it.owned.content_hash.to_vec()).collect();
    let owner = claim.owner.as_bytes().to_vec();
    let mut pipeline = Pipeline::default();
    pipeline.add(LOCK, Vec::new());
    let fence = history.fence(&mut pipeline);
    pipeline.add(TWINS, parameters![owner.clone(), number(now), contents.clone()]);
    pipeline.add(OTHERS, parameters![owner.clone(), number(now), contents, OTHERS_MAX as i64, found.banned.clone()]);
    pipeline.add(LEDGER, parameters![owner.clone()]);
    if let Some(name) = &claim.receipt {
        let (reader, name) = (name.reader.as_bytes().to_vec(), name.name.to_vec());
        pipeline.add(RECEIPT, parameters![reader, name, number(now), owner]);
    }
    let answers = pipeline.run(transaction).await?;
    let rows = |n: usize| answers.get(n).map_or(&[][..], Vec::as_slice);
    fence.check(history, rows(1))?;
    if let Some(name) = &claim.receipt
        && let Some(claimed) = repetition(name, rows(5))?
    {
        return Ok(Taken::Answered(Box::new(claimed)));
    }
    let twins = rows(2).iter().map(owned).collect::<Result<_, Fail>>()?;
    let others = rows(3).first().ok_or(Fail::Corrupt("a count has no row"))?;
    let fresh_others = usize::try_from(others.try_get::<_, i64>("fresh")?).unwrap_or(0);
    let stock = Stock { twins, has_others: others.try_get::<_, i64>("all")? > 0, fresh_others };
    let mut ledger = ledger(rows(4))?;
    let pick = pick(claim, &found.candidates, &stock, &ledger, now);
    if pick.is_overtaken {
        return Ok(Taken::Overtaken);
    }
    let (claimed, receipt) = found.answer(claim, &pick, now);
    if pick.writes(claim) {
        use_up(claim, &pick, &mut ledger, receipt, now).commit(transaction).await?;
    }
    Ok(Taken::Answered(Box::new(claimed)))
}

/// The statements that carry a choice out.
fn use_up(claim: &Claim, pick: &Pick, ledger: &mut Ledger, receipt: Option<Receipt>, now: UnixSecs) -> Pipeline {
    let mut pipeline = Pipeline::default();
    if !pick.used.is_empty() {
        let used: Vec<Vec<u8>> = pick.used.iter().map(|hash| front(hash).to_vec()).collect();
        let gone: Vec<i64> = pick.gone.iter().map(|(cursor, _)| number(*cursor)).collect();
        let ids: Vec<Vec<u8>> = pick.gone.iter().map(|(_, id)| front(id.as_bytes()).to_vec()).collect();
        let owner = front(claim.owner.as_bytes()).to_vec();
        let (by, public) = (vec![owner.clone(); ids.len()], vec![true; ids.len()]);
        pipeline.add(BURY_ADDRESSES, parameters![gone.clone()]);
        remove(&mut pipeline, gone);
        pipeline.add(BURY, parameters![ids, by, public]);
        pipeline.add(PUT_CLAIMED, parameters![vec![owner; used.len()], used]);
    }
    if let Some(content_hash) = pick.last {
        pipeline.add(MARK_LAST, parameters![claim.owner.as_bytes().to_vec(), content_hash.to_vec()]);
    }
    if ledger.note(claim.rates.as_ref(), &pick.used, now) {
        put_ledger(&mut pipeline, &claim.owner, ledger, now);
    }
    if let (Some(name), Some(receipt)) = (&claim.receipt, receipt) {
        let (reader, name) = (name.reader.as_bytes().to_vec(), name.name.to_vec());
        pipeline.add(PUT_RECEIPT, parameters![reader, name, number(receipt.until()), receipt.pack()]);
    }
    pipeline
}
