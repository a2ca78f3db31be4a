//! Loading what a batch has to know, under the lock of the log.

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{GroupRecord, ManagedGroup, NostrGroupId};
use nostr_protocol::PublicKey;
use tokio_postgres::Row;

use super::{
    fail::Fail,
    pipeline::{Pipeline, Transaction, parameters},
    rows::{cursor, end_from, event, event_id, fixed, group_id, key, number, record, role, unsigned, without_content},
};
use crate::{
    Cursor,
    decide::{
        AUTHOR_ONLY,
        facts::{AddressHolder, Facts, Origin, Referenced, Target, Wanted},
        hiding::Hidden,
    },
};

/// Whoever holds this row writes; the others wait. It is given back when the transaction ends, so that cursors become
/// visible in their order.
pub(super) const LOCK: &str = "select head from rnostr.log for update";

const IDS: &str = "select id from rnostr.events where id = any($1::bytea[]) and flags & 8 = 0";
const TARGETS: &str = concat!(
    "select cursor, flags, ",
    without_content!(),
    " from rnostr.events where id = any($1::bytea[]) and flags & 8 = 0"
);
const TOMBSTONES: &str = "select t.target, t.deleter, t.public from unnest($1::bytea[], $2::bytea[]) \
    as wanted(target, deleter) join rnostr.tombstones t using (target, deleter)";
const VANISHED: &str = "select key, until from rnostr.vanished where key = any($1::bytea[])";
const HOLDERS: &str = "select address, cursor, id, created_at, expires_at from rnostr.events \
    where address = any($1::bytea[])";
const ADDRESS_TOMBSTONES: &str =
    "select address, until from rnostr.address_tombstones where address = any($1::bytea[])";
const REFERENCES: &str = "select p.owner, p.reference, p.content_hash, p.cursor, e.expires_at \
    from unnest($1::bytea[], $2::bytea[]) as wanted(owner, reference) \
    join rnostr.packages p using (owner, reference) join rnostr.events e on e.cursor = p.cursor \
    where not exists (select from rnostr.vanished v where v.key = e.author and v.until >= e.created_at)";
const CLAIMED: &str = "select c.owner, c.content_hash from unnest($1::bytea[], $2::bytea[]) \
    as wanted(owner, content_hash) join rnostr.claimed c using (owner, content_hash)";
/// By the fronts of owner and content.
const TAKEN: &str = "select wanted.owner, wanted.content, p.cursor, e.id from unnest($1::bytea[], $2::bytea[]) \
    as wanted(owner, content) join rnostr.packages p on p.owner >= wanted.owner \
        and p.owner <= wanted.owner || '\\xffffffffffffffffffffffffffffffff'::bytea \
        and substring(p.content_hash for 16) = wanted.content \
    join rnostr.events e on e.cursor = p.cursor";
const GROUPS: &str = "select id, record, last_epoch from rnostr.groups where id = any($1::text[])";
const UNLISTED: &str = "select group_id from rnostr.unlisted where group_id = any($1::text[])";
const ALL_MEMBERS: &str = "select m.group_id, m.key, m.admin from rnostr.groups g \
    join rnostr.members m on m.group_id = g.id \
    where g.id = any($1::text[]) or (g.id = any($2::text[]) and g.by_wraps)";
const MEMBERS: &str = "select m.group_id, m.key, m.admin from unnest($1::text[], $2::bytea[]) as wanted(group_id, key) \
    join rnostr.members m on m.group_id = wanted.group_id collate \"C\" and m.key = wanted.key";
const FOUNDED: &str = "select key, count(*) as founded from rnostr.founded where key = any($1::bytea[]) and at > $2 \
    group by key";
const MEMBERSHIPS: &str =
    "select key, count(*) as memberships from rnostr.members where key = any($1::bytea[]) group by key";
const GROUPS_OF: &str = "select distinct group_id from rnostr.members where key = any($1::bytea[])";

/// Rows of one statement, where it was asked.
struct Asked(Option<usize>);

impl Asked {
    fn of(self, answers: &[Vec<Row>]) -> &[Row] {
        self.0.and_then(|place| answers.get(place)).map_or(&[], Vec::as_slice)
    }
}

/// Takes the log's lock, and loads; what is `hidden` is no target. The second value is the log's head.
pub(super) async fn load(
    transaction: &Transaction<'_>,
    mut wanted: Wanted,
    hidden: &Hidden,
) -> Result<(Facts, Cursor), Fail> {
    let mut pipeline = Pipeline::default();
    pipeline.add(LOCK, Vec::new());
    if !wanted.leaving.is_empty() {
        pipeline.add(GROUPS_OF, parameters![keys(&wanted.leaving)]);
        let answers = pipeline.run(transaction).await?;
        for row in &answers[1] {
            let group = group_id(row, "group_id")?;
            wanted.groups.insert(group.clone());
            wanted.whole.insert(group);
        }
        pipeline = Pipeline::default();
        pipeline.add(LOCK, Vec::new());
    }
    let mut ask =
        |needed: bool, statement, parameters: Vec<_>| Asked(needed.then(|| pipeline.add(statement, parameters)));
    let ids = bytes(wanted.ids.iter().map(|id| &id.as_bytes()[..]));
    let ids = ask(!wanted.ids.is_empty(), IDS, parameters![ids]);
    let targets = bytes(wanted.targets.iter().map(|id| &id.as_bytes()[..]));
    let targets = ask(!wanted.targets.is_empty(), TARGETS, parameters![targets]);
    let (named, by) = (
        bytes(wanted.tombstones.iter().map(|(target, _)| &target[..])),
        bytes(wanted.tombstones.iter().map(|(_, deleter)| &deleter[..])),
    );
    let tombstones = ask(!wanted.tombstones.is_empty(), TOMBSTONES, parameters![named, by]);
    let vanished = ask(!wanted.vanished.is_empty(), VANISHED, parameters![keys(&wanted.vanished)]);
    let addresses = || bytes(wanted.addresses.iter().map(|it| &it[..]));
    let holders = ask(!wanted.addresses.is_empty(), HOLDERS, parameters![addresses()]);
    let address_tombstones = ask(!wanted.addresses.is_empty(), ADDRESS_TOMBSTONES, parameters![addresses()]);
    let (owners, texts) = (
        bytes(wanted.references.iter().map(|(owner, _)| &owner.as_bytes()[..])),
        bytes(wanted.references.iter().map(|(_, text)| &text[..])),
    );
    let references = ask(!wanted.references.is_empty(), REFERENCES, parameters![owners, texts]);
    let (owners, hashes) = (
        bytes(wanted.claimed.iter().map(|(owner, _)| &owner[..])),
        bytes(wanted.claimed.iter().map(|(_, hash)| &hash[..])),
    );
    let claimed = ask(!wanted.claimed.is_empty(), CLAIMED, parameters![owners, hashes]);
    let (owners, contents) = (
        bytes(wanted.taken.iter().map(|(owner, _)| &owner[..])),
        bytes(wanted.taken.iter().map(|(_, content)| &content[..])),
    );
    let taken = ask(!wanted.taken.is_empty(), TAKEN, parameters![owners, contents]);
    let groups = ask(!wanted.groups.is_empty(), GROUPS, parameters![texts_of(&wanted.groups)]);
    let unlisted = ask(!wanted.groups.is_empty(), UNLISTED, parameters![texts_of(&wanted.groups)]);
    let whole = !(wanted.whole.is_empty() && wanted.wrapped.is_empty());
    let all_members = ask(whole, ALL_MEMBERS, parameters![texts_of(&wanted.whole), texts_of(&wanted.wrapped)]);
    let (of, who): (Vec<String>, Vec<Vec<u8>>) =
        wanted.members.iter().map(|(group, key)| (group.as_str().to_owned(), key.as_bytes().to_vec())).unzip();
    let members = ask(!wanted.members.is_empty(), MEMBERS, parameters![of, who]);
    let since = number(wanted.day_start);
    let founded = ask(!wanted.founders.is_empty(), FOUNDED, parameters![keys(&wanted.founders), since]);
    let memberships = ask(!wanted.memberships.is_empty(), MEMBERSHIPS, parameters![keys(&wanted.memberships)]);
    let answers = pipeline.run(transaction).await?;

    let mut facts = Facts::default();
    for row in ids.of(&answers) {
        facts.ids.insert(event_id(row, "id")?);
    }
    for row in targets.of(&answers) {
        let event = event(row)?;
        let author_only = row.try_get::<_, i16>("flags")? & AUTHOR_ONLY != 0;
        let at = Origin::Stored(cursor(row, "cursor")?);
        if hidden.hides(event.view()) {
            continue;
        }
        facts.targets.insert(event.id(), Target { at, event, author_only });
    }
    for row in tombstones.of(&answers) {
        facts.tombstones.insert((fixed(row, "target")?, fixed(row, "deleter")?), row.try_get("public")?);
    }
    for row in vanished.of(&answers) {
        facts.vanished.insert(key(row, "key")?, unsigned(row.try_get("until")?)?);
    }
    for row in holders.of(&answers) {
        let holder = AddressHolder {
            at: Origin::Stored(cursor(row, "cursor")?),
            id: event_id(row, "id")?,
            created_at: unsigned(row.try_get("created_at")?)?,
            expires_at: end_from(row.try_get("expires_at")?)?,
        };
        facts.holders.insert(fixed(row, "address")?, holder);
    }
    for row in address_tombstones.of(&answers) {
        facts.address_tombstones.insert(fixed(row, "address")?, unsigned(row.try_get("until")?)?);
    }
    for row in references.of(&answers) {
        let referenced = Referenced {
            at: Origin::Stored(cursor(row, "cursor")?),
            content_hash: fixed(row, "content_hash")?,
            expires_at: end_from(row.try_get("expires_at")?)?,
        };
        facts.references.entry((key(row, "owner")?, fixed(row, "reference")?)).or_default().push(referenced);
    }
    for row in claimed.of(&answers) {
        facts.claimed.insert((fixed(row, "owner")?, fixed(row, "content_hash")?));
    }
    for row in taken.of(&answers) {
        let place = (cursor(row, "cursor")?, event_id(row, "id")?);
        facts.taken.entry((fixed(row, "owner")?, fixed(row, "content")?)).or_default().push(place);
    }
    let rows = [all_members.of(&answers), members.of(&answers)];
    load_groups(&mut facts, groups.of(&answers), unlisted.of(&answers), rows)?;
    for row in founded.of(&answers) {
        let count = u32::try_from(row.try_get::<_, i64>("founded")?).unwrap_or(u32::MAX);
        facts.founded.insert(key(row, "key")?, count);
    }
    for asked in &wanted.memberships {
        facts.memberships.insert(*asked, 0);
    }
    for row in memberships.of(&answers) {
        let count = usize::try_from(row.try_get::<_, i64>("memberships")?).unwrap_or(usize::MAX);
        facts.memberships.insert(key(row, "key")?, count);
    }
    let head = answers.first().and_then(|rows| rows.first()).ok_or(Fail::Corrupt("the log has no head"))?;
    Ok((facts, cursor(head, "head")?))
}

fn load_groups(facts: &mut Facts, groups: &[Row], unlisted: &[Row], members: [&[Row]; 2]) -> Result<(), Fail> {
    let mut views: HashMap<NostrGroupId, ManagedGroup> = HashMap::new();
    for row in groups {
        let record: GroupRecord = record(row)?;
        views.insert(group_id(row, "id")?, ManagedGroup { record, members: HashMap::new() });
    }
    for row in members.into_iter().flatten() {
        if let Some(view) = views.get_mut(&group_id(row, "group_id")?) {
            view.members.insert(key(row, "key")?, role(row.try_get("admin")?));
        }
    }
    for (id, view) in views {
        facts.groups.entry(id).or_default().view = Some(Arc::new(view));
    }
    for row in unlisted {
        facts.groups.entry(group_id(row, "group_id")?).or_default().unlisted = true;
    }
    Ok(())
}

fn bytes<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    values.map(<[u8]>::to_vec).collect()
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Vec<Vec<u8>> {
    keys.into_iter().map(|key| key.as_bytes().to_vec()).collect()
}

fn texts_of<'a>(groups: impl IntoIterator<Item = &'a NostrGroupId>) -> Vec<String> {
    groups.into_iter().map(|id| id.as_str().to_owned()).collect()
}
