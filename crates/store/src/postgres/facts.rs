//! The facts that a batch is decided by, as statements.
//!
//! Each fact of [`FACTS`] has its statement, the values that [`Wanted`] gives for it, and the way of a row into
//! [`Facts`]. No row holds the content of an event or all its tags: the rows are sent while the log is locked, and a
//! reader that does not take them would hold up every instance.

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{ManagedGroup, NostrGroupId, RouteHasher, mls_gateway::group::Invited, route::Condition};
use nostr_protocol::{Event, EventId, PublicKey, tag::name};
use tokio_postgres::Row;

use super::{
    fail::Fail,
    pipeline::{Parameter, parameters},
    rows::{cursor, end_from, event_id, fixed, group_id, if_any, key, kind, number, record, role, touches, unsigned},
    vanished::kept_kinds,
};
use crate::decide::{
    AUTHOR_ONLY, COMMIT,
    facts::{AddressHolder, Facts, Origin, OwnedPackage, Referenced, Target, Wanted},
    lookup::OWNED_MAX,
};

/// One sort of fact.
pub(super) struct Fact {
    pub(super) statement: &'static str,
    /// The statement's parameters; `None` where the batch wants nothing of this sort.
    pub(super) parameters: fn(&Wanted, &RouteHasher) -> Option<Vec<Parameter>>,
    /// Puts one row of the answer into the facts.
    pub(super) read: fn(&Row, &mut Facts) -> Result<(), Fail>,
}

/// All sorts, in the order in which their rows are read: groups stand before their members.
pub(super) const FACTS: [Fact; 19] = [
    IDS,
    TARGETS,
    TOMBSTONES,
    VANISHED,
    HOLDERS,
    ADDRESS_TOMBSTONES,
    REFERENCES,
    PACKAGES,
    CLAIMED,
    TAKEN,
    GROUPS,
    UNLISTED,
    ALL_MEMBERS,
    MEMBERS,
    FOUNDED,
    MEMBERSHIPS,
    FIRST_TO_GIVE_WAY,
    INVITED_BY,
    INVITATIONS,
];

const IDS: Fact = Fact {
    statement: "select id, cursor, expires_at from rnostr.events where id = any($1::bytea[]) and flags & 8 = 0",
    parameters: |wanted, _| some(&wanted.ids, || parameters![bytes(wanted.ids.iter().map(EventId::as_bytes))]),
    read: |row, facts| {
        let stored = (Origin::Stored(cursor(row, "cursor")?), end_from(row.try_get("expires_at")?)?);
        facts.ids.insert(event_id(row, "id")?, stored);
        Ok(())
    },
};

/// Targets of deletions, each with one key that deletes it; one that a vanished key takes along is none. A row is
/// short, however long the event is: of its tags the decision needs a recipient that deletes it, and the events that
/// may be deleted touched three groups at most.
const TARGETS: Fact = Fact {
    statement: "select e.cursor, e.flags, e.expires_at, e.id, e.author, e.kind, e.created_at, wanted.deleter, \
            wanted.inbox = any(e.routes) as is_recipient, \
            e.touches_group, e.touched_groups, cardinality(e.prefixes) as rows \
        from unnest($1::bytea[], $2::bytea[], $3::bigint[]) as wanted(id, deleter, inbox) \
        join rnostr.events e on e.id = wanted.id and e.flags & 8 = 0 \
        where not exists (select from rnostr.vanished v \
                where v.pending and v.prefixes && e.prefixes and v.until >= e.created_at) \
            and not exists (select from rnostr.vanished v \
                where v.key = e.author and v.until >= e.created_at and e.kind <> all($4::int[]) \
                    and e.flags & 16 = 0)",
    parameters: |wanted, hasher| {
        some(&wanted.named, || {
            let inbox = |(_, key): &(EventId, PublicKey)| hasher.hash(Condition::Inbox(*key)).cast_signed();
            let ids = bytes(wanted.named.iter().map(|(id, _)| id.as_bytes()));
            let deleters = keys(wanted.named.iter().map(|(_, key)| key));
            let inboxes: Vec<i64> = wanted.named.iter().map(inbox).collect();
            parameters![ids, deleters, inboxes, kept_kinds()]
        })
    },
    read: |row, facts| {
        let id = event_id(row, "id")?;
        let (author, kind) = (key(row, "author")?, kind(row, "kind")?);
        let mut tags = Vec::new();
        if row.try_get("is_recipient")? {
            tags.push([name::PUBLIC_KEY.to_owned(), key(row, "deleter")?.to_hex()]);
        }
        // Two keys may delete one event: both are its recipients then.
        if let Some(known) = facts.targets.get(&id) {
            let recipients = known.event.tags().values(name::PUBLIC_KEY);
            tags.extend(recipients.map(|key| [name::PUBLIC_KEY.to_owned(), key.to_owned()]));
        }
        let event = Event::outline(id, author, unsigned(row.try_get("created_at")?)?, kind, &tags);
        let flags: i16 = row.try_get("flags")?;
        let (author_only, stays) = (flags & AUTHOR_ONLY != 0, flags & COMMIT != 0);
        let at = Origin::Stored(cursor(row, "cursor")?);
        let rows = usize::try_from(row.try_get::<_, i32>("rows")?).unwrap_or(0);
        let expires_at = end_from(row.try_get("expires_at")?)?;
        let touches = touches(row, kind)?;
        facts.targets.insert(id, Target { at, event, author_only, stays, touches, expires_at, rows });
        Ok(())
    },
};

const TOMBSTONES: Fact = Fact {
    statement: "select t.target, t.deleter, t.public from unnest($1::bytea[], $2::bytea[]) \
        as wanted(target, deleter) join rnostr.tombstones t using (target, deleter)",
    parameters: |wanted, _| {
        some(&wanted.tombstones, || {
            let targets = bytes(wanted.tombstones.iter().map(|(target, _)| target));
            parameters![targets, bytes(wanted.tombstones.iter().map(|(_, deleter)| deleter))]
        })
    },
    read: |row, facts| {
        facts.tombstones.insert((fixed(row, "target")?, fixed(row, "deleter")?), row.try_get("public")?);
        Ok(())
    },
};

const VANISHED: Fact = Fact {
    statement: "select key, until from rnostr.vanished where key = any($1::bytea[])",
    parameters: |wanted, _| some(&wanted.vanished, || parameters![keys(&wanted.vanished)]),
    read: |row, facts| {
        facts.vanished.insert(key(row, "key")?, unsigned(row.try_get("until")?)?);
        Ok(())
    },
};

const HOLDERS: Fact = Fact {
    statement: "select address, cursor, id, created_at, expires_at, cardinality(prefixes) as rows from rnostr.events \
        where address = any($1::bytea[])",
    parameters: |wanted, _| some(&wanted.addresses, || parameters![bytes(&wanted.addresses)]),
    read: |row, facts| {
        let holder = AddressHolder {
            at: Origin::Stored(cursor(row, "cursor")?),
            id: event_id(row, "id")?,
            created_at: unsigned(row.try_get("created_at")?)?,
            expires_at: end_from(row.try_get("expires_at")?)?,
            rows: usize::try_from(row.try_get::<_, i32>("rows")?).unwrap_or(0),
        };
        facts.holders.insert(fixed(row, "address")?, holder);
        Ok(())
    },
};

const ADDRESS_TOMBSTONES: Fact = Fact {
    statement: "select address, until from rnostr.address_tombstones where address = any($1::bytea[])",
    parameters: |wanted, _| some(&wanted.addresses, || parameters![bytes(&wanted.addresses)]),
    read: |row, facts| {
        facts.address_tombstones.insert(fixed(row, "address")?, unsigned(row.try_get("until")?)?);
        Ok(())
    },
};

const REFERENCES: Fact = Fact {
    statement: "select p.owner, p.reference, p.content_hash, p.cursor, e.expires_at \
        from unnest($1::bytea[], $2::bytea[]) as wanted(owner, reference) \
        join rnostr.packages p using (owner, reference) join rnostr.events e on e.cursor = p.cursor \
        where not exists (select from rnostr.vanished v where v.key = e.author and v.until >= e.created_at)",
    parameters: |wanted, _| {
        some(&wanted.references, || {
            let owners = keys(wanted.references.iter().map(|(owner, _)| owner));
            parameters![owners, bytes(wanted.references.iter().map(|(_, text)| text))]
        })
    },
    read: |row, facts| {
        let referenced = Referenced {
            at: Origin::Stored(cursor(row, "cursor")?),
            content_hash: fixed(row, "content_hash")?,
            expires_at: end_from(row.try_get("expires_at")?)?,
        };
        facts.references.entry((key(row, "owner")?, fixed(row, "reference")?)).or_default().push(referenced);
        Ok(())
    },
};

/// Directories, by owner and from the oldest event to the newest.
const PACKAGES: Fact = Fact {
    statement: "select p.owner, p.cursor, p.content_hash, p.last_resort, e.id, e.created_at, e.expires_at, e.address \
        from unnest($1::bytea[]) as wanted(owner) \
        cross join lateral (select * from rnostr.packages where owner = wanted.owner order by cursor limit $2) p \
        join rnostr.events e on e.cursor = p.cursor \
        where not exists (select from rnostr.vanished v where v.key = e.author and v.until >= e.created_at) \
        order by p.cursor",
    parameters: |wanted, _| some(&wanted.owners, || parameters![keys(&wanted.owners), number(OWNED_MAX as u64)]),
    read: |row, facts| {
        let package = OwnedPackage {
            at: Origin::Stored(cursor(row, "cursor")?),
            id: event_id(row, "id")?,
            content_hash: fixed(row, "content_hash")?,
            last_resort: row.try_get("last_resort")?,
            created_at: unsigned(row.try_get("created_at")?)?,
            address: if_any(row, "address")?,
        };
        let expires_at = end_from(row.try_get("expires_at")?)?;
        facts.packages.entry(key(row, "owner")?).or_default().push((package, expires_at));
        Ok(())
    },
};

const CLAIMED: Fact = Fact {
    statement: "select c.owner, c.content_hash from unnest($1::bytea[], $2::bytea[]) \
        as wanted(owner, content_hash) join rnostr.claimed c using (owner, content_hash)",
    parameters: |wanted, _| {
        some(&wanted.claimed, || {
            let owners = bytes(wanted.claimed.iter().map(|(owner, _)| owner));
            parameters![owners, bytes(wanted.claimed.iter().map(|(_, content)| content))]
        })
    },
    read: |row, facts| {
        facts.claimed.insert((fixed(row, "owner")?, fixed(row, "content_hash")?));
        Ok(())
    },
};

/// KeyPackages, found by the fronts of owner and content.
const TAKEN: Fact = Fact {
    statement: "select wanted.owner, wanted.content, p.cursor, e.id from unnest($1::bytea[], $2::bytea[]) \
        as wanted(owner, content) join rnostr.packages p on p.owner >= wanted.owner \
            and p.owner <= wanted.owner || '\\xffffffffffffffffffffffffffffffff'::bytea \
            and substring(p.content_hash for 16) = wanted.content \
        join rnostr.events e on e.cursor = p.cursor",
    parameters: |wanted, _| {
        some(&wanted.taken, || {
            let owners = bytes(wanted.taken.iter().map(|(owner, _)| owner));
            parameters![owners, bytes(wanted.taken.iter().map(|(_, content)| content))]
        })
    },
    read: |row, facts| {
        let event = (cursor(row, "cursor")?, event_id(row, "id")?);
        facts.taken.entry((fixed(row, "owner")?, fixed(row, "content")?)).or_default().push(event);
        Ok(())
    },
};

const GROUPS: Fact = Fact {
    statement: "select id, record, last_epoch from rnostr.groups where id = any($1::text[])",
    parameters: |wanted, _| some(&wanted.groups, || parameters![texts(&wanted.groups)]),
    read: |row, facts| {
        let view = ManagedGroup { record: record(row)?, members: HashMap::new() };
        facts.groups.entry(group_id(row, "id")?).or_default().view = Some(Arc::new(view));
        Ok(())
    },
};

const UNLISTED: Fact = Fact {
    statement: "select group_id from rnostr.unlisted where group_id = any($1::text[])",
    parameters: |wanted, _| some(&wanted.groups, || parameters![texts(&wanted.groups)]),
    read: |row, facts| {
        facts.groups.entry(group_id(row, "group_id")?).or_default().unlisted = true;
        Ok(())
    },
};

const ALL_MEMBERS: Fact = Fact {
    statement: "select m.group_id, m.key, m.admin, m.invited_at, m.invited_by from rnostr.groups g \
        join rnostr.members m on m.group_id = g.id \
        where g.id = any($1::text[]) or (g.id = any($2::text[]) and g.by_wraps)",
    parameters: |wanted, _| {
        let groups = wanted.whole.iter().chain(&wanted.wrapped);
        some(groups, || parameters![texts(&wanted.whole), texts(&wanted.wrapped)])
    },
    read: member,
};

const MEMBERS: Fact = Fact {
    statement: "select m.group_id, m.key, m.admin, m.invited_at, m.invited_by \
        from unnest($1::text[], $2::bytea[]) as wanted(group_id, key) \
        join rnostr.members m on m.group_id = wanted.group_id collate \"C\" and m.key = wanted.key",
    parameters: |wanted, _| {
        some(&wanted.members, || {
            let groups = texts(wanted.members.iter().map(|(group, _)| group));
            parameters![groups, keys(wanted.members.iter().map(|(_, key)| key))]
        })
    },
    read: member,
};

const FOUNDED: Fact = Fact {
    statement: "select key, count(*) as founded from rnostr.founded where key = any($1::bytea[]) and at > $2 \
        group by key",
    parameters: |wanted, _| some(&wanted.founders, || parameters![keys(&wanted.founders), number(wanted.day_start)]),
    read: |row, facts| {
        let count = u32::try_from(row.try_get::<_, i64>("founded")?).unwrap_or(u32::MAX);
        facts.founded.insert(key(row, "key")?, count);
        Ok(())
    },
};

const MEMBERSHIPS: Fact = Fact {
    statement: "select key, memberships from rnostr.member_counts where key = any($1::bytea[])",
    parameters: |wanted, _| some(&wanted.joining, || parameters![keys(wanted.joining.keys())]),
    read: |row, facts| {
        let count = usize::try_from(row.try_get::<_, i32>("memberships")?).unwrap_or_default();
        facts.memberships.insert(key(row, "key")?, count);
        Ok(())
    },
};

/// For keys that come near the bound, as many memberships as the batch may make give way.
const FIRST_TO_GIVE_WAY: Fact = Fact {
    statement: "select wanted.key, m.group_id, m.invited_at, m.invited_by \
        from unnest($1::bytea[], $2::bigint[]) as wanted(key, most) \
        join rnostr.member_counts c on c.key = wanted.key and c.memberships + wanted.most > $3 \
        cross join lateral (select group_id, invited_at, invited_by from rnostr.members \
            where key = wanted.key and invited_at is not null order by invited_at, group_id limit wanted.most) m",
    parameters: |wanted, _| {
        some(&wanted.joining, || {
            let most: Vec<i64> = wanted.joining.values().map(|most| number(*most as u64)).collect();
            parameters![keys(wanted.joining.keys()), most, number(wanted.memberships_max as u64)]
        })
    },
    read: invited,
};

const INVITED_BY: Fact = Fact {
    statement: "select key, invited from rnostr.member_counts where key = any($1::bytea[])",
    parameters: |wanted, _| some(&wanted.inviters, || parameters![keys(&wanted.inviters)]),
    read: |row, facts| {
        let count = u32::try_from(row.try_get::<_, i32>("invited")?).unwrap_or_default();
        facts.invited_by.insert(key(row, "key")?, count);
        Ok(())
    },
};

const INVITATIONS: Fact = Fact {
    statement: "select wanted.key, wanted.by, count(*) as standing \
        from unnest($1::bytea[], $2::bytea[]) as wanted(key, by) \
        join rnostr.members m on m.key = wanted.key and m.invited_by = wanted.by group by wanted.key, wanted.by",
    parameters: |wanted, _| {
        some(&wanted.invitations, || {
            let (members, inviters) =
                (wanted.invitations.iter().map(|it| &it.0), wanted.invitations.iter().map(|it| &it.1));
            parameters![keys(members), keys(inviters)]
        })
    },
    read: |row, facts| {
        let count = u32::try_from(row.try_get::<_, i64>("standing")?).unwrap_or(u32::MAX);
        facts.invitations.insert((key(row, "key")?, key(row, "by")?), count);
        Ok(())
    },
};

/// Reads a member from the columns `group_id, key, admin, invited_at, invited_by`, and puts it into its group.
fn member(row: &Row, facts: &mut Facts) -> Result<(), Fail> {
    let group = facts.groups.get_mut(&group_id(row, "group_id")?);
    if let Some(view) = group.and_then(|group| group.view.as_mut()) {
        Arc::make_mut(view).members.insert(key(row, "key")?, role(row.try_get("admin")?));
    }
    invited(row, facts)
}

/// Reads whether a member has not acted from the columns `group_id, key, invited_at, invited_by`. `invited_at` is the
/// rank.
fn invited(row: &Row, facts: &mut Facts) -> Result<(), Fail> {
    let Some(rank) = row.try_get::<_, Option<i64>>("invited_at")? else { return Ok(()) };
    let by = match row.try_get::<_, Option<&[u8]>>("invited_by")? {
        Some(_) => Some(key(row, "invited_by")?),
        None => None,
    };
    let invited = Invited::of_rank(unsigned(rank)?, by);
    facts.invited.entry(key(row, "key")?).or_default().insert(group_id(row, "group_id")?, invited);
    Ok(())
}

/// The parameters, or `None` if `wanted` is empty.
fn some<T>(wanted: impl IntoIterator<Item = T>, parameters: impl FnOnce() -> Vec<Parameter>) -> Option<Vec<Parameter>> {
    wanted.into_iter().next().map(|_| parameters())
}

fn bytes<'a, const N: usize>(values: impl IntoIterator<Item = &'a [u8; N]>) -> Vec<Vec<u8>> {
    values.into_iter().map(|value| value.to_vec()).collect()
}

/// Keys as a parameter.
pub(super) fn keys<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Vec<Vec<u8>> {
    bytes(keys.into_iter().map(PublicKey::as_bytes))
}

fn texts<'a>(groups: impl IntoIterator<Item = &'a NostrGroupId>) -> Vec<String> {
    groups.into_iter().map(|id| id.as_str().to_owned()).collect()
}
