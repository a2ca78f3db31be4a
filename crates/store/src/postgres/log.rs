//! Reads of the log by its followers, and single look-ups: events by place or id, groups.

use std::{collections::HashSet, sync::Arc};

use deadpool_postgres::Client;
use nostr_extensions::{Group, GroupStatus, ManagedGroup, NostrGroupId, Sealed};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use tokio_postgres::Row;

use super::{
    fail::Fail,
    history::{Commit, History},
    rows::{
        cursor, event, group, group_id, key, kind, members, number, record, seal, touches, unsigned, without_content,
    },
    vanished,
};
use crate::{
    Cursor, LogEntry, LogPage,
    decide::{
        COMMIT, MARK_KIND,
        hiding::{Hidden, Hiding},
    },
};

/// The last commit, the nonce in the place of the known commit, and the entries after a cursor, in one snapshot. Events
/// that were removed and had touched groups are among them.
const AFTER: &str = "select l.head, c.nonce, (select nonce from rnostr.commits where head = $3) as known, \
        (extract(epoch from clock_timestamp()) * 1000)::bigint as read_at_ms, e.cursor, e.kind, e.flags, e.group_id, \
        e.touches_group, e.touched_groups, e.routes, case when e.kind = 62 then e.author end as vanished, e.created_at \
    from rnostr.log l left join rnostr.commits c on c.head = l.head left join lateral \
        ((select cursor, kind, flags, group_id, touches_group, touched_groups, routes, author, created_at \
            from rnostr.events where cursor > $1 order by cursor limit $2) \
        union all (select cursor, kind, flags, null, touches_group, touched_groups, '{}', ''::bytea, 0 \
            from rnostr.removed_touches where cursor > $1 order by cursor limit $2) \
        order by cursor limit $2) e on true order by e.cursor";
const EVENTS_AT: &str = "select cursor, received_at, coalesce(expires_at, kept_until) as expires_at, flags, record \
    from rnostr.events where cursor = any($1::bigint[]) and record <> '' order by cursor";
const HOLDS: &str = concat!(
    "select flags, ",
    without_content!(),
    " from rnostr.events where id = $1 and flags & 8 = 0 and (expires_at is null or expires_at > $2)"
);
const GROUP: &str = "select l.head, g.record, g.last_epoch, m.keys, m.admins, \
    exists (select from rnostr.unlisted u where u.group_id = $1) as unlisted \
    from rnostr.log l left join rnostr.groups g on g.id = $1 \
    left join lateral (select array_agg(key) as keys, array_agg(admin) as admins from rnostr.members \
        where group_id = g.id) m on true";
const KNOWN_GROUPS: &str = "select asked.id from unnest($1::text[]) as asked(id) \
    where exists (select from rnostr.groups g where g.id = asked.id) \
        or exists (select from rnostr.unlisted u where u.group_id = asked.id)";
const GROUPS_OF: &str = "select distinct group_id from rnostr.members where key = any($1::bytea[]) order by group_id";

const GROUPS_AFTER: &str = "select id from rnostr.groups where id > $1 and id >= $2 order by id limit $3";

/// Each step looks at one row: the first one behind the last owner.
const OWNERS_AFTER: &str = "with recursive owners as ( \
       (select owner from rnostr.packages where owner > $1 order by owner limit 1) union all \
       select (select p.owner from rnostr.packages p where p.owner > o.owner order by p.owner limit 1) \
       from owners o where o.owner is not null) \
     select owner from owners where owner is not null limit $2";

const INVITED_GROUPS: &str = "select distinct group_id from rnostr.members \
    where key = any($1::bytea[]) and invited_at is not null order by group_id";

/// A reader of the log.
pub(super) struct LogReader<'a> {
    pub(super) hiding: &'a Hiding,
    pub(super) history: &'a History,
    /// Whether the last read is so lately that this process knows the keys that vanished; otherwise they are read anew.
    pub(super) knows: bool,
}

impl LogReader<'_> {
    /// The entries after a cursor.
    pub(super) async fn after(&self, client: &Client, behind: Cursor, entries_max: usize) -> Result<LogPage, Fail> {
        let statement = client.prepare_cached(AFTER).await?;
        let most = i64::try_from(entries_max).unwrap_or(i64::MAX);
        let known = self.history.known();
        let rows = client.query(&statement, &[&number(behind), &most, &Commit::place(known)]).await?;
        let first = rows.first().ok_or(Fail::Corrupt("the log has no head"))?;
        let head = cursor(first, "head")?;
        if head < behind {
            return Err(self.history.has_changed());
        }
        self.history.check(known, first.try_get("known")?)?;
        self.history.learn(Commit::of(first)?);
        let page = page(&rows, head, entries_max, self.hiding)?;
        let has_mark = page.entries.iter().any(|entry| entry.kind == MARK_KIND);
        if has_mark || !page.is_head || !self.knows {
            // An import's entry does not name the keys that vanished by it. And a key that vanished further on in the
            // log already hides events of this page.
            vanished::learn(client, self.hiding).await?;
        }
        Ok(page)
    }
}

/// The page in these rows.
fn page(rows: &[Row], head: Cursor, entries_max: usize, hiding: &Hiding) -> Result<LogPage, Fail> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get::<_, Option<i64>>("cursor")?.is_none() {
            break;
        }
        let kind = kind(row, "kind")?;
        let touches = touches(row, kind)?;
        if row.try_get::<_, Option<&[u8]>>("vanished")?.is_some() {
            let vanished = (key(row, "vanished")?, unsigned(row.try_get("created_at")?)?);
            hiding.learn(&[vanished], cursor(row, "cursor")?);
        }
        let routes: Vec<i64> = row.try_get("routes")?;
        entries.push(LogEntry {
            cursor: cursor(row, "cursor")?,
            kind,
            touches,
            group: row.try_get::<_, Option<&str>>("group_id")?.map(group).transpose()?,
            routes: routes.into_iter().map(i64::cast_unsigned).collect(),
            sealed: None,
        });
    }
    let (through, is_head) = match entries.last() {
        Some(last) if entries.len() >= entries_max => (last.cursor, last.cursor == head),
        _ => (head, true),
    };
    let read_at_ms = rows.first().map(|row| row.try_get("read_at_ms")).transpose()?.map(unsigned).transpose()?;
    Ok(LogPage { entries, through, is_head, read_at_ms })
}

pub(super) async fn events_at(client: &Client, cursors: &[Cursor], hidden: &Hidden) -> Result<Vec<Sealed>, Fail> {
    let statement = client.prepare_cached(EVENTS_AT).await?;
    let cursors: Vec<i64> = cursors.iter().map(|cursor| number(*cursor)).collect();
    let mut events = Vec::with_capacity(cursors.len());
    for row in &client.query(&statement, &[&cursors]).await? {
        let event = event(row)?;
        if !hidden.hides(event.view()) {
            events.push(seal(row, event)?);
        }
    }
    Ok(events)
}

pub(super) async fn holds(client: &Client, id: &EventId, now: UnixSecs, hidden: &Hidden) -> Result<bool, Fail> {
    let statement = client.prepare_cached(HOLDS).await?;
    match client.query_opt(&statement, &[&&id.as_bytes()[..], &number(now)]).await? {
        // The content says whether it is a commit, which no vanished key hides, and is not read.
        Some(row) => Ok(row.try_get::<_, i16>("flags")? & COMMIT != 0 || !hidden.hides(event(&row)?.view())),
        None => Ok(false),
    }
}

pub(super) async fn state_of(client: &Client, id: &NostrGroupId) -> Result<(Group, Cursor), Fail> {
    let statement = client.prepare_cached(GROUP).await?;
    let row = client.query_one(&statement, &[&id.as_str()]).await?;
    let status = if row.try_get::<_, Option<&str>>("record")?.is_some() {
        GroupStatus::Managed(Arc::new(ManagedGroup { record: record(&row)?, members: members(&row)? }))
    } else if row.try_get("unlisted")? {
        GroupStatus::Unlisted
    } else {
        GroupStatus::Unknown
    };
    Ok((Group { id: id.clone(), status }, cursor(&row, "head")?))
}

/// Those of the groups that have a record or carried unlisted messages, in one statement.
pub(super) async fn known_groups(client: &Client, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, Fail> {
    let statement = client.prepare_cached(KNOWN_GROUPS).await?;
    let asked: Vec<&str> = ids.iter().map(NostrGroupId::as_str).collect();
    let known = client.query(&statement, &[&asked]).await?;
    let known: HashSet<NostrGroupId> = known.iter().map(|row| group_id(row, "id")).collect::<Result<_, _>>()?;
    Ok(ids.iter().filter(|id| known.contains(*id)).cloned().collect())
}

pub(super) async fn groups_of(client: &Client, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, Fail> {
    groups_by(client, GROUPS_OF, keys).await
}

pub(super) async fn invited_groups(client: &Client, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, Fail> {
    groups_by(client, INVITED_GROUPS, keys).await
}

/// The first managed groups that begin with a prefix and lie behind a place.
pub(super) async fn groups_after(
    client: &Client,
    prefix: &str,
    after: Option<&NostrGroupId>,
    most: usize,
) -> Result<Vec<NostrGroupId>, Fail> {
    let statement = client.prepare_cached(GROUPS_AFTER).await?;
    let after = after.map_or("", NostrGroupId::as_str);
    let rows = client.query(&statement, &[&after, &prefix, &number(most as u64)]).await?;
    let mut groups: Vec<NostrGroupId> = rows.iter().map(|row| group_id(row, "id")).collect::<Result<_, _>>()?;
    let end = groups.iter().position(|id| !id.as_str().starts_with(prefix));
    groups.truncate(end.unwrap_or(groups.len()));
    Ok(groups)
}

/// The first owners of KeyPackages behind a place.
pub(super) async fn owners_after(
    client: &Client,
    after: Option<&PublicKey>,
    most: usize,
) -> Result<Vec<PublicKey>, Fail> {
    let statement = client.prepare_cached(OWNERS_AFTER).await?;
    let after = after.map(|key| &key.as_bytes()[..]).unwrap_or_default();
    let rows = client.query(&statement, &[&after, &number(most as u64)]).await?;
    let owner = |row: &Row| {
        let owner: &[u8] = row.try_get("owner")?;
        owner.try_into().map(PublicKey::from_bytes).map_err(|_| Fail::Corrupt("a KeyPackage has no owner"))
    };
    rows.iter().map(owner).collect()
}

/// The groups of keys by this statement.
async fn groups_by(client: &Client, statement: &str, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, Fail> {
    let statement = client.prepare_cached(statement).await?;
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key.as_bytes()[..]).collect();
    client.query(&statement, &[&keys]).await?.iter().map(|row| group_id(row, "group_id")).collect()
}
