//! Export, page by page in the order of primary keys, and import, part by part under the lock of the log.

use async_trait::async_trait;
use deadpool_postgres::Client;
use nostr_extensions::{EventMeta, ManagedGroup, Restored};
use nostr_protocol::{DAY_SECS, UnixSecs};
use tokio_postgres::{Row, types::ToSql};

use super::{
    CALL_MAX, Postgres,
    fail::Fail,
    load::load,
    pipeline::Transaction,
    rows::{cursor, end_from, event, fixed, group_id, invited, key, members, number, record, touches, unsigned},
    write::write,
};
use crate::{
    StoreError,
    decide::{
        AUTHOR_ONLY, EPHEMERAL, LOG_ONLY,
        facts::Wanted,
        hiding::Hidden,
        restore::{self, decide},
    },
    moving::{ExportBounds, ExportPage, ExportPosition, Exported, Imported, Moving, Part, Record, after_part},
};

/// Most groups of one page; each may have 10,000 members.
const PAGE_GROUPS_MAX: i64 = 32;

const VANISHED: &str = "select key, until from rnostr.vanished where key > $1 order by key limit $2";
const TOMBSTONES: &str = "select target || deleter as key, target, deleter, public from rnostr.tombstones \
    where (target, deleter) > (substring($1::bytea from 1 for 16), substring($1::bytea from 17)) \
    order by tombstones.target, tombstones.deleter limit $2";
const ADDRESS_TOMBSTONES: &str =
    "select address as key, until from rnostr.address_tombstones where address > $1 order by address limit $2";
const CLAIMED: &str = "select owner || content_hash as key, owner, content_hash from rnostr.claimed \
    where (owner, content_hash) > (substring($1::bytea from 1 for 16), substring($1::bytea from 17)) \
    order by claimed.owner, claimed.content_hash limit $2";
const FOUNDED: &str = "select key, array_agg(at order by at) as times from rnostr.founded where key > $1 and at > $3 \
    group by key order by key limit $2";
const UNLISTED: &str = "select group_id, convert_to(group_id, 'UTF8') as key from rnostr.unlisted \
    where group_id > convert_from($1::bytea, 'UTF8') order by group_id limit $2";
const GROUPS: &str = "select g.id, convert_to(g.id, 'UTF8') as key, g.record, \
    g.last_epoch, m.keys, m.admins, m.ranks, m.inviters \
    from (select * from rnostr.groups where id > convert_from($1::bytea, 'UTF8') order by id limit $2) g \
    left join lateral (select array_agg(key) as keys, array_agg(admin) as admins, array_agg(invited_at) as ranks, \
            array_agg(invited_by) as inviters \
        from rnostr.members where group_id = g.id) m on true order by g.id";
/// The next entries up to the one that reaches the page's bytes.
const EVENTS: &str = "with found as (select * from rnostr.events where cursor > $1 and cursor <= $3 \
        order by cursor limit $2), \
    sized as (select cursor, received_at, expires_at, flags, touches_group, touched_groups, record, \
        count(*) over () as entries, \
        sum(octet_length(record)) over (order by cursor) - octet_length(record) as before from found) \
    select cursor, received_at, expires_at, flags, touches_group, touched_groups, record, entries from sized \
        where before < $4 order by cursor";

async fn page(
    client: &Client,
    from: &ExportPosition,
    bounds: ExportBounds,
    now: UnixSecs,
    hidden: &Hidden,
) -> Result<ExportPage, Fail> {
    if from.part() == Part::Events {
        return events(client, from, bounds, now, hidden).await;
    }
    let most = i64::try_from(bounds.records_max.max(1)).unwrap_or(i64::MAX);
    let (statement, most) = match from.part() {
        Part::Vanished => (VANISHED, most),
        Part::Tombstones => (TOMBSTONES, most),
        Part::AddressTombstones => (ADDRESS_TOMBSTONES, most),
        Part::Claimed => (CLAIMED, most),
        Part::Founded => (FOUNDED, most),
        Part::Unlisted => (UNLISTED, most),
        Part::Groups | Part::Events => (GROUPS, most.min(PAGE_GROUPS_MAX)),
    };
    let statement = client.prepare_cached(statement).await?;
    let behind = from.behind().to_vec();
    let since = number(now.saturating_sub(DAY_SECS));
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&behind, &most];
    if from.part() == Part::Founded {
        parameters.push(&since);
    }
    let rows = client.query(&statement, &parameters).await?;
    let mut records = Vec::with_capacity(rows.len());
    let (mut bytes, mut last) = (0, None);
    for row in &rows {
        let record = record_of(from.part(), row)?;
        bytes += record.byte_len();
        records.push(record);
        if bytes >= bounds.bytes_max || records.len() as i64 >= most {
            last = Some(row.try_get::<_, &[u8]>("key")?.to_vec());
            break;
        }
    }
    Ok(ExportPage { records, next: after_part(from, last) })
}

fn record_of(part: Part, row: &Row) -> Result<Record<Exported>, Fail> {
    Ok(match part {
        Part::Vanished => Record::Vanished { key: key(row, "key")?, at: unsigned(row.try_get("until")?)? },
        Part::Tombstones => Record::Tombstone {
            target: fixed(row, "target")?,
            deleter: fixed(row, "deleter")?,
            public: row.try_get("public")?,
        },
        Part::AddressTombstones => {
            Record::AddressTombstone { address: fixed(row, "key")?, until: unsigned(row.try_get("until")?)? }
        }
        Part::Claimed => Record::Claimed { owner: fixed(row, "owner")?, content: fixed(row, "content_hash")? },
        Part::Founded => {
            let times: Vec<i64> = row.try_get("times")?;
            Record::Founded { key: key(row, "key")?, at: times.into_iter().map(unsigned).collect::<Result<_, _>>()? }
        }
        Part::Unlisted => Record::Unlisted(group_id(row, "group_id")?),
        Part::Groups | Part::Events => Record::Group {
            id: group_id(row, "id")?,
            view: ManagedGroup { record: record(row)?, members: members(row)? },
            invited: invited(row)?,
        },
    })
}

async fn events(
    client: &Client,
    from: &ExportPosition,
    bounds: ExportBounds,
    now: UnixSecs,
    hidden: &Hidden,
) -> Result<ExportPage, Fail> {
    let statement = client.prepare_cached(EVENTS).await?;
    let most = i64::try_from(bounds.records_max.max(1)).unwrap_or(i64::MAX);
    let bytes = i64::try_from(bounds.bytes_max.max(1)).unwrap_or(i64::MAX);
    let parameters: [&(dyn ToSql + Sync); 4] = [&number(from.behind_cursor()), &most, &number(from.up_to()), &bytes];
    let rows = client.query(&statement, &parameters).await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let flags: i16 = row.try_get("flags")?;
        let expires_at = end_from(row.try_get("expires_at")?)?;
        if flags & EPHEMERAL == 0 && expires_at > now {
            let event = event(row)?;
            let kept = EventMeta {
                received_at: unsigned(row.try_get("received_at")?)?,
                expires_at,
                author_only: flags & AUTHOR_ONLY != 0,
                log_only: flags & LOG_ONLY != 0,
                touches: touches(row, event.kind())?.kept_of(event.view()),
            };
            if !hidden.hides(event.view()) {
                records.push(Record::Event(Exported { event, kept }));
            }
        }
    }
    let mut last = None;
    if let Some(row) = rows.last() {
        let entries: i64 = row.try_get("entries")?;
        if entries >= most || entries > rows.len() as i64 {
            last = Some(cursor(row, "cursor")?.to_be_bytes().to_vec());
        }
    }
    Ok(ExportPage { records, next: after_part(from, last) })
}

impl Postgres {
    async fn import_part(&self, part: &[Record<Restored>], now: UnixSecs) -> Result<Vec<Imported>, Fail> {
        let wanted = Wanted::by_records(part, now);
        let (restoring, head, commit) = self
            .transact(CALL_MAX, async |transaction: &Transaction<'_>| {
                let (facts, head) =
                    load(transaction, wanted, &self.hiding.now(), &self.route_hasher, &self.loaded, &self.history)
                        .await?;
                let restoring = decide(part, facts, &self.route_hasher, now);
                let commit = match restoring.changes.is_empty() {
                    true => None,
                    false => write(transaction, &restoring.changes, head, self.notifies).await?,
                };
                Ok((restoring, head, commit))
            })
            .await?;
        self.committed(&restoring.changes, head, commit);
        Ok(restoring.outcomes)
    }
}

#[async_trait]
impl Moving for Postgres {
    async fn export(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, StoreError> {
        self.call(async move |client| page(client, from, bounds, now, &self.hiding.now()).await).await
    }

    async fn import(&self, records: Vec<Record<Restored>>, now: UnixSecs) -> Result<Vec<Imported>, StoreError> {
        let mut outcomes = Vec::with_capacity(records.len());
        for part in restore::cut(records) {
            let imported = self.import_part(&part, now).await;
            outcomes.extend(imported.map_err(|fail| fail.to_store_error())?);
        }
        Ok(outcomes)
    }
}
