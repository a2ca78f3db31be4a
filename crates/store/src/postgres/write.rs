//! Writing the changes of a batch, under the lock of the log.

use nostr_extensions::{
    Role, Source,
    gate::Touches,
    kinds::{GroupChange, rules},
};

use super::{
    fail::Fail,
    history::Commit,
    pipeline::{Pipeline, Transaction, parameters},
    rows::{end, number},
    vanished::{kept_kinds, prefixes_for},
};
use crate::{
    Cursor,
    decide::{
        EPHEMERAL, EPHEMERAL_SECS, MARK_KIND, TOUCHES_GROUPS,
        batch::{ChangedGroup, Changes, Mark, MemberChange, Put},
    },
    weight::REMOVED_ROWS_MAX,
};

/// Most index entries of removed events that go with the events, in one transaction.
const REMOVED_AT_ONCE_MAX: i64 = REMOVED_ROWS_MAX as i64;
/// Part of a statement that removes events as `gone`: keeps the groups that they touched, at their places in the log.
macro_rules! keep_touches {
    () => {
        "told as (insert into rnostr.removed_touches (cursor, kind, flags, touches_group, touched_groups, at) \
            select cursor, kind, flags, touches_group, touched_groups, extract(epoch from clock_timestamp())::bigint \
            from gone where touches_group is not null or cardinality(touched_groups) > 0 or flags & 4 <> 0), "
    };
}
pub(super) use keep_touches;

/// Removes events, so that no read finds them. At most so many of their index entries go at once, those of the events
/// with the fewest; a sweep takes the others ([`super::sweep`]). Foreign keys remove the events from the directory of
/// KeyPackages.
const REMOVE: &str = concat!(
    "with gone as (delete from rnostr.events where cursor = any($1::bigint[]) \
        returning cursor, id, created_at, prefixes, kind, flags, touches_group, touched_groups), ",
    keep_touches!(),
    "sized as materialized (select cursor, id, created_at, prefixes, \
        sum(cardinality(prefixes)) over (order by cardinality(prefixes), cursor) as through from gone), \
    later as (insert into rnostr.removed (cursor, id, created_at, prefixes) \
        select cursor, id, created_at, prefixes from sized where through > $2) \
    delete from rnostr.event_index i \
        using (select unnest(prefixes) as prefix, -created_at as age, id, cursor from sized where through <= $2) entry \
        where i.prefix = entry.prefix and i.age = entry.age and i.id = entry.id and i.cursor = entry.cursor"
);
/// The same of an event that came and went in one batch.
const PUT_TOUCHES: &str = "insert into rnostr.removed_touches (cursor, kind, flags, touches_group, touched_groups, at) \
    select cursor, kind, flags, touches_group, touched_groups::text[], extract(epoch from clock_timestamp())::bigint \
    from unnest($1::bigint[], $2::int[], $3::smallint[], $4::text[], $5::text[]) \
    as put(cursor, kind, flags, touches_group, touched_groups)";
/// Takes over the index entries of a removed event that is put again: no sweep removes them.
const TAKE_OVER: &str = "delete from rnostr.removed where id = any($1::bytea[])";
const PUT: &str = "insert into rnostr.events (cursor, id, author, kind, created_at, received_at, expires_at, \
    kept_until, flags, address, group_id, touches_group, touched_groups, prefixes, routes, record) \
    select cursor, id, author, kind, created_at, received_at, expires_at, kept_until, flags, address, group_id, \
    touches_group, touched_groups::text[], prefixes::bigint[], routes::bigint[], record \
    from unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[], \
    $8::bigint[], $9::smallint[], $10::bytea[], $11::text[], \
    $12::text[], $13::text[], $14::text[], $15::text[], $16::bytea[]) \
    as put(cursor, id, author, kind, created_at, received_at, expires_at, kept_until, flags, address, group_id, \
    touches_group, touched_groups, prefixes, routes, record)";
const PUT_INDEX: &str = "insert into rnostr.event_index (prefix, age, id, cursor) \
    select * from unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[]) \
    on conflict (prefix, age, id) do update set cursor = excluded.cursor";
const PUT_PACKAGES: &str = "insert into rnostr.packages (cursor, owner, reference, content_hash, last_resort) \
    select * from unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bool[])";
pub(super) const BURY: &str = "insert into rnostr.tombstones (target, deleter, public) \
    select * from unnest($1::bytea[], $2::bytea[], $3::bool[]) \
    on conflict (target, deleter) do update set public = excluded.public";
const BURY_ADDRESS: &str = "insert into rnostr.address_tombstones (address, until) values ($1, $2) \
    on conflict (address) do update set until = greatest(address_tombstones.until, excluded.until)";
/// Marks the addresses of events that are about to go as deleted up to these events.
pub(super) const BURY_ADDRESSES: &str = "insert into rnostr.address_tombstones (address, until) \
    select address, created_at from rnostr.events where cursor = any($1::bigint[]) and address is not null \
    on conflict (address) do update set until = greatest(address_tombstones.until, excluded.until)";
/// Marks a key as vanished, and as pending if it left events of its own or events under the prefixes addressed to it.
const VANISH: &str = "insert into rnostr.vanished (key, until, prefixes, pending) select $1, $2, $3::bigint[], \
        exists (select from rnostr.events where author = $1 and created_at <= $2 and kind <> all($4::int[])) \
        or exists (select from rnostr.event_index where prefix = any($3::bigint[]) and age >= -$2::bigint) \
    on conflict (key) do update set until = greatest(vanished.until, excluded.until), prefixes = excluded.prefixes, \
        pending = vanished.pending or excluded.pending";
const PUT_GROUP: &str = "insert into rnostr.groups (id, record, last_epoch, by_wraps, founder) \
    values ($1, $2, $3, $4, $5) on conflict (id) do update \
    set record = excluded.record, by_wraps = excluded.by_wraps, founder = excluded.founder";
const REMOVE_MEMBERS: &str = "delete from rnostr.members where group_id = $1 and key = any($2::bytea[])";
/// A member that stays keeps its standing, and takes the role alone.
const PUT_MEMBERS: &str = "insert into rnostr.members (group_id, key, admin, invited_at, invited_by) \
    select $1, * from unnest($2::bytea[], $3::bool[], $4::bigint[], $5::bytea[]) \
    on conflict (group_id, key) do update set admin = excluded.admin";
const ACT: &str = "update rnostr.members set invited_at = null, invited_by = null \
    where group_id = $1 and key = any($2::bytea[])";
const COUNT: &str = "insert into rnostr.member_counts (key, memberships, invited) \
    select * from unnest($1::bytea[], $2::int[], $3::int[]) on conflict (key) do update \
    set memberships = member_counts.memberships + excluded.memberships, \
        invited = member_counts.invited + excluded.invited";
const RAISE_EPOCH: &str = "update rnostr.groups set last_epoch = $2 where id = $1";
const PUT_UNLISTED: &str =
    "insert into rnostr.unlisted (group_id) select * from unnest($1::text[]) on conflict do nothing";
const PUT_FOUNDED: &str = "insert into rnostr.founded (key, at) values ($1, $2)";
const FORGET_FOUNDED: &str = "delete from rnostr.founded where key = $1 and at <= $2::bigint - 86400";
pub(super) const PUT_CLAIMED: &str = "insert into rnostr.claimed (owner, content_hash) \
    select * from unnest($1::bytea[], $2::bytea[]) on conflict do nothing";
/// Adds an entry of the log without an event, see [`Changes::mark`].
const MARK: &str = "insert into rnostr.events (cursor, id, author, kind, created_at, received_at, kept_until, flags, \
    touched_groups, prefixes, routes, record) \
    values ($1, '', '', $2, $3, $3, $4, $5, $6::text::text[], '{}', '{}', '')";
const ADVANCE: &str = "update rnostr.log set head = $1";
const NOTIFY: &str = "select pg_notify('rnostr_log', $1)";

/// Writes the changes after `head` and commits. Listeners are notified if `notifies` is set. Returns the
/// commit, if it moved the head.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    changes: &Changes,
    head: Cursor,
    notifies: bool,
) -> Result<Option<Commit>, Fail> {
    let mut pipeline = Pipeline::default();
    if !changes.removed.is_empty() {
        remove(&mut pipeline, changes.removed.iter().map(|(cursor, _)| number(*cursor)).collect());
    }
    let places = || (1..).zip(&changes.put).map(|(n, put)| (number(head + n), put));
    put(&mut pipeline, &places().filter(|(_, put)| !put.gone).collect::<Vec<_>>());
    put_touches(&mut pipeline, &places().filter(|(_, put)| put.gone).collect::<Vec<_>>());
    if !changes.tombstones.is_empty() {
        let targets: Vec<Vec<u8>> = changes.tombstones.iter().map(|((target, _), _)| target.to_vec()).collect();
        let by: Vec<Vec<u8>> = changes.tombstones.iter().map(|((_, deleter), _)| deleter.to_vec()).collect();
        let public: Vec<bool> = changes.tombstones.iter().map(|(_, public)| *public).collect();
        pipeline.add(BURY, parameters![targets, by, public]);
    }
    for (address, until) in &changes.address_tombstones {
        pipeline.add(BURY_ADDRESS, parameters![address.to_vec(), number(*until)]);
    }
    for (key, at) in &changes.vanished {
        let (prefixes, kept) = (prefixes_for(key).to_vec(), kept_kinds());
        pipeline.add(VANISH, parameters![key.as_bytes().to_vec(), number(*at), prefixes, kept]);
    }
    for change in &changes.groups {
        put_group(&mut pipeline, change)?;
    }
    if !changes.counts.is_empty() {
        let keys: Vec<Vec<u8>> = changes.counts.keys().map(|key| key.as_bytes().to_vec()).collect();
        let memberships: Vec<i32> = changes.counts.values().map(|change| change.memberships).collect();
        let invited: Vec<i32> = changes.counts.values().map(|change| change.invited).collect();
        pipeline.add(COUNT, parameters![keys, memberships, invited]);
    }
    for (group, epoch) in &changes.epochs {
        pipeline.add(RAISE_EPOCH, parameters![group.as_str().to_owned(), number(*epoch)]);
    }
    if !changes.unlisted.is_empty() {
        let ids: Vec<String> = changes.unlisted.iter().map(|id| id.as_str().to_owned()).collect();
        pipeline.add(PUT_UNLISTED, parameters![ids]);
    }
    for (key, at) in &changes.founded {
        pipeline.add(FORGET_FOUNDED, parameters![key.as_bytes().to_vec(), number(*at)]);
        pipeline.add(PUT_FOUNDED, parameters![key.as_bytes().to_vec(), number(*at)]);
    }
    if !changes.claimed.is_empty() {
        let owners: Vec<Vec<u8>> = changes.claimed.iter().map(|(owner, _)| owner.to_vec()).collect();
        let contents: Vec<Vec<u8>> = changes.claimed.iter().map(|(_, content)| content.to_vec()).collect();
        pipeline.add(PUT_CLAIMED, parameters![owners, contents]);
    }
    let head = head + changes.places();
    let commit = (changes.places() > 0).then(|| Commit::put(head, &mut pipeline));
    if let Some(Mark { at, touches }) = &changes.mark {
        let (kind, flags) = (i32::from(MARK_KIND.0), EPHEMERAL | TOUCHES_GROUPS);
        let kept_until = number(at.saturating_add(EPHEMERAL_SECS));
        pipeline.add(MARK, parameters![number(head), kind, number(*at), kept_until, flags, array_of(touches)]);
    }
    pipeline.add(ADVANCE, parameters![number(head)]);
    if notifies {
        pipeline.add(NOTIFY, parameters![head.to_string()]);
    }
    pipeline.commit(transaction).await?;
    Ok(commit)
}

/// Removes the events at these cursors, and at once the index entries of a bounded number of rows.
pub(super) fn remove(pipeline: &mut Pipeline, cursors: Vec<i64>) {
    pipeline.add(REMOVE, parameters![cursors, REMOVED_AT_ONCE_MAX]);
}

fn all<T>(events: &[(i64, &Put)], value: impl Fn(&Put) -> T) -> Vec<T> {
    events.iter().map(|(_, put)| value(put)).collect()
}

/// The one group that the event's kind says that it touched.
fn touched_by_kind(put: &Put) -> Option<String> {
    match &put.touches {
        Touches::Groups(groups) if !put.is_told => groups.first().map(|group| group.as_str().to_owned()),
        _ => None,
    }
}

/// The groups that the event touched, as the text of an array, where its kind does not say them.
fn told(put: &Put) -> Option<String> {
    match put.told() {
        Some(touches @ Touches::Groups(_)) => array_of(touches),
        Some(Touches::Nothing) if rules(put.event.kind()).changes == GroupChange::EveryGroup => Some("{}".to_owned()),
        _ => None,
    }
}

/// Keeps the groups that events touched which the same batch removed again.
fn put_touches(pipeline: &mut Pipeline, gone: &[(i64, &Put)]) {
    let touching = |(_, put): &&(i64, &Put)| put.touches != Touches::Nothing;
    let gone: Vec<(i64, &Put)> = gone.iter().filter(touching).copied().collect();
    if gone.is_empty() {
        return;
    }
    pipeline.add(
        PUT_TOUCHES,
        parameters![
            gone.iter().map(|(cursor, _)| *cursor).collect::<Vec<i64>>(),
            all(&gone, |put| i32::from(put.event.kind().0)),
            all(&gone, |put| put.flags),
            all(&gone, touched_by_kind),
            all(&gone, told),
        ],
    );
}

fn put(pipeline: &mut Pipeline, events: &[(i64, &Put)]) {
    if events.is_empty() {
        return;
    }
    let cursors: Vec<i64> = events.iter().map(|(cursor, _)| *cursor).collect();
    let numbers = |numbers: &mut dyn Iterator<Item = i64>| {
        let texts: Vec<String> = numbers.map(|it| it.to_string()).collect();
        format!("{{{}}}", texts.join(","))
    };
    pipeline.add(
        PUT,
        parameters![
            cursors,
            all(events, |put| put.event.id().as_bytes().to_vec()),
            all(events, |put| put.event.pubkey().as_bytes().to_vec()),
            all(events, |put| i32::from(put.event.kind().0)),
            all(events, |put| number(put.event.created_at())),
            all(events, |put| number(put.received_at)),
            all(events, |put| end(put.expires_at)),
            all(events, |put| end(put.kept_until())),
            all(events, |put| put.flags),
            all(events, |put| put.address.map(|it| it.to_vec())),
            all(events, |put| put.group.as_ref().map(|it| it.as_str().to_owned())),
            all(events, touched_by_kind),
            all(events, told),
            all(events, |put| numbers(&mut put.prefixes.iter().copied())),
            all(events, |put| numbers(&mut put.routes.iter().map(|route| route.cast_signed()))),
            all(events, |put| put.event.record().to_vec()),
        ],
    );
    let entries =
        || events.iter().flat_map(|(cursor, put)| put.prefixes.iter().map(move |prefix| (*cursor, *prefix, *put)));
    if entries().next().is_some() {
        pipeline.add(TAKE_OVER, parameters![all(events, |put| put.event.id().as_bytes().to_vec())]);
        pipeline.add(
            PUT_INDEX,
            parameters![
                entries().map(|(_, prefix, _)| prefix).collect::<Vec<i64>>(),
                entries().map(|(.., put)| -number(put.event.created_at())).collect::<Vec<i64>>(),
                entries().map(|(.., put)| put.event.id().as_bytes().to_vec()).collect::<Vec<Vec<u8>>>(),
                entries().map(|(cursor, ..)| cursor).collect::<Vec<i64>>(),
            ],
        );
    }
    let packages = || events.iter().filter_map(|(cursor, put)| Some((*cursor, put.package.as_ref()?)));
    if packages().next().is_some() {
        pipeline.add(
            PUT_PACKAGES,
            parameters![
                packages().map(|(cursor, _)| cursor).collect::<Vec<i64>>(),
                packages().map(|(_, it)| it.owner.as_bytes().to_vec()).collect::<Vec<Vec<u8>>>(),
                packages().map(|(_, it)| it.reference.map(|(_, text)| text.to_vec())).collect::<Vec<Option<Vec<u8>>>>(),
                packages().map(|(_, it)| it.content_hash.to_vec()).collect::<Vec<Vec<u8>>>(),
                packages().map(|(_, it)| it.last_resort).collect::<Vec<bool>>(),
            ],
        );
    }
}

/// Groups as the text of an array; `None` for any number of groups, and for none.
fn array_of(touches: &Touches) -> Option<String> {
    let Touches::Groups(groups) = touches else { return None };
    // A group's id holds no character that an array's text escapes.
    let ids: Vec<String> = groups.iter().map(|id| format!("\"{}\"", id.as_str())).collect();
    Some(format!("{{{}}}", ids.join(",")))
}

fn put_group(pipeline: &mut Pipeline, change: &ChangedGroup) -> Result<(), Fail> {
    let id = || change.group.as_str().to_owned();
    if let Some(record) = change.record.record() {
        let mut record = record.clone();
        let epoch = record.last_epoch.take().map(number);
        let founder = record.founder.map(|founder| founder.as_bytes().to_vec());
        let text = serde_json::to_string(&record).map_err(|_| Fail::Corrupt("a group's record cannot be written"))?;
        pipeline.add(PUT_GROUP, parameters![id(), text, epoch, record.source == Source::GiftWrap, founder]);
    }
    let (mut gone, mut acted) = (Vec::new(), Vec::new());
    let (mut keys, mut admins, mut ranks, mut by) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (key, change) in &change.members {
        let key = key.as_bytes().to_vec();
        let (role, invited) = match change {
            MemberChange::Leaves(_) => {
                gone.push(key);
                continue;
            }
            MemberChange::Acts(_) => {
                acted.push(key);
                continue;
            }
            MemberChange::Takes(role) => (role, None),
            MemberChange::Joins(role, invited) => (role, invited.as_ref()),
        };
        keys.push(key);
        admins.push(*role == Role::Admin);
        ranks.push(invited.map(|invited| number(invited.rank())));
        by.push(invited.and_then(|invited| invited.by).map(|inviter| inviter.as_bytes().to_vec()));
    }
    if !gone.is_empty() {
        pipeline.add(REMOVE_MEMBERS, parameters![id(), gone]);
    }
    if !keys.is_empty() {
        pipeline.add(PUT_MEMBERS, parameters![id(), keys, admins, ranks, by]);
    }
    if !acted.is_empty() {
        pipeline.add(ACT, parameters![id(), acted]);
    }
    Ok(())
}
