//! Values of columns.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use nostr_extensions::{
    GroupRecord, NostrGroupId, Role, Sealed, Stamp,
    admit::NEVER,
    gate::Touches,
    kinds::{GroupChange, rules},
    mls_gateway::group::Invited,
};
use nostr_protocol::{Event, EventId, Kind, PublicKey, UnixSecs};
use tokio_postgres::Row;

use super::fail::Fail;
use crate::{
    Cursor,
    decide::{AUTHOR_ONLY, TOUCHES_GROUPS},
};

/// The column `record` of an event without its content, which may be long. [`Event::record`] has the length of the tags
/// before them, and needs some JSON at its end.
macro_rules! without_content {
    () => {
        "substring(record from 1 for 78 + get_byte(substring(record from 75 for 4), 0) \
            + (get_byte(substring(record from 75 for 4), 1) << 8) \
            + (get_byte(substring(record from 75 for 4), 2) << 16) \
            + (get_byte(substring(record from 75 for 4), 3) << 24)) || '\\x7b7d'::bytea as record"
    };
}
pub(super) use without_content;

/// A number for a column. Only times in filters exceed 63 bits; they become the largest number.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> Result<u64, Fail> {
    u64::try_from(value).map_err(|_| Fail::Corrupt("a number is negative"))
}

/// A time for a column; null for never.
pub(super) fn end(value: UnixSecs) -> Option<i64> {
    (value != NEVER).then(|| number(value))
}

pub(super) fn end_from(value: Option<i64>) -> Result<UnixSecs, Fail> {
    value.map_or(Ok(NEVER), unsigned)
}

fn bytes<const N: usize>(row: &Row, column: &str) -> Result<[u8; N], Fail> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| Fail::Corrupt("bytes of a fixed length have another"))
}

pub(super) fn fixed<const N: usize>(row: &Row, column: &str) -> Result<[u8; N], Fail> {
    bytes(row, column)
}

/// Bytes of a fixed length, of a column that may be null.
pub(super) fn if_any<const N: usize>(row: &Row, column: &str) -> Result<Option<[u8; N]>, Fail> {
    let is_null = row.try_get::<_, Option<&[u8]>>(column)?.is_none();
    if is_null { Ok(None) } else { bytes(row, column).map(Some) }
}

pub(super) fn key(row: &Row, column: &str) -> Result<PublicKey, Fail> {
    Ok(PublicKey::from_bytes(bytes(row, column)?))
}

pub(super) fn kind(row: &Row, column: &str) -> Result<Kind, Fail> {
    let number: i32 = row.try_get(column)?;
    Ok(Kind(u16::try_from(number).map_err(|_| Fail::Corrupt("a kind is too large"))?))
}

pub(super) fn event_id(row: &Row, column: &str) -> Result<EventId, Fail> {
    Ok(EventId::from_bytes(bytes(row, column)?))
}

pub(super) fn cursor(row: &Row, column: &str) -> Result<Cursor, Fail> {
    unsigned(row.try_get(column)?)
}

pub(super) fn group(text: &str) -> Result<NostrGroupId, Fail> {
    NostrGroupId::parse(text).ok_or(Fail::Corrupt("a group has an id that is none"))
}

pub(super) fn group_id(row: &Row, column: &str) -> Result<NostrGroupId, Fail> {
    group(row.try_get(column)?)
}

pub(super) fn event(row: &Row) -> Result<Event, Fail> {
    let record: &[u8] = row.try_get("record")?;
    Event::from_record(Bytes::copy_from_slice(record)).ok_or(Fail::Corrupt("an event's record is cut short"))
}

/// The event with the other columns of its row: `cursor, received_at, expires_at, flags`.
pub(super) fn seal(row: &Row, event: Event) -> Result<Sealed, Fail> {
    Ok(Sealed::new(event, stamp(row)?))
}

/// The columns `cursor, received_at, expires_at, flags`.
pub(super) fn stamp(row: &Row) -> Result<Stamp, Fail> {
    let flags: i16 = row.try_get("flags")?;
    Ok(Stamp {
        cursor: cursor(row, "cursor")?,
        received_at: unsigned(row.try_get("received_at")?)?,
        expires_at: end_from(row.try_get("expires_at")?)?,
        author_only: flags & AUTHOR_ONLY != 0,
    })
}

/// The groups that an event of this kind touched, of columns `touches_group, touched_groups, flags`.
pub(super) fn touches(row: &Row, kind: Kind) -> Result<Touches, Fail> {
    if let Some(id) = row.try_get::<_, Option<&str>>("touches_group")? {
        return Ok(Touches::groups([group(id)?]));
    }
    let told: Option<Vec<&str>> = row.try_get("touched_groups")?;
    if let Some(ids) = told {
        return Ok(Touches::groups(ids.into_iter().map(group).collect::<Result<Vec<_>, _>>()?));
    }
    let is_any =
        rules(kind).changes == GroupChange::EveryGroup || row.try_get::<_, i16>("flags")? & TOUCHES_GROUPS != 0;
    Ok(if is_any { Touches::EveryGroup } else { Touches::Nothing })
}

/// A group's record of columns `record, last_epoch`.
pub(super) fn record(row: &Row) -> Result<GroupRecord, Fail> {
    let text: &str = row.try_get("record")?;
    let mut record: GroupRecord =
        serde_json::from_str(text).map_err(|_| Fail::Corrupt("a group's record is not readable"))?;
    record.last_epoch = row.try_get::<_, Option<i64>>("last_epoch")?.map(unsigned).transpose()?;
    Ok(record)
}

pub(super) const fn role(admin: bool) -> Role {
    if admin { Role::Admin } else { Role::Member }
}

/// Members of columns `keys, admins`, two arrays of one length; empty if they are null.
pub(super) fn members(row: &Row) -> Result<HashMap<PublicKey, Role>, Fail> {
    let keys: Option<Vec<&[u8]>> = row.try_get("keys")?;
    let admins: Option<Vec<bool>> = row.try_get("admins")?;
    let pairs = keys.unwrap_or_default().into_iter().zip(admins.unwrap_or_default());
    let member = |(key, admin): (&[u8], bool)| {
        let key = key.try_into().map_err(|_| Fail::Corrupt("a member's key is cut short"))?;
        Ok((PublicKey::from_bytes(key), role(admin)))
    };
    pairs.map(member).collect()
}

/// Members that have not acted, of columns `keys, ranks, inviters`, arrays of one length; empty if they are null.
pub(super) fn invited(row: &Row) -> Result<BTreeMap<PublicKey, Invited>, Fail> {
    let keys: Option<Vec<&[u8]>> = row.try_get("keys")?;
    let ranks: Option<Vec<Option<i64>>> = row.try_get("ranks")?;
    let inviters: Option<Vec<Option<&[u8]>>> = row.try_get("inviters")?;
    let key = |bytes: &[u8]| {
        let bytes = bytes.try_into().map_err(|_| Fail::Corrupt("a member's key is cut short"))?;
        Ok::<_, Fail>(PublicKey::from_bytes(bytes))
    };
    let with_ranks = keys.unwrap_or_default().into_iter().zip(ranks.unwrap_or_default());
    let all = with_ranks.zip(inviters.unwrap_or_default());
    let invited = all.filter_map(|((member, rank), by)| Some((member, rank?, by)));
    invited
        .map(|(member, rank, by)| Ok((key(member)?, Invited::of_rank(unsigned(rank)?, by.map(key).transpose()?))))
        .collect()
}
