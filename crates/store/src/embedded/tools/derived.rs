//! The rows that other rows imply: what a check expects, and what a repair writes.

use nostr_extensions::admit::NEVER;

use super::super::{
    fail::Fail,
    keys::{Key, LOG_ONLY, Stored, cursor_bytes, hash16, index_keys, time_bytes},
    tables::{Table, Tables},
};
use crate::Cursor;

/// A table all of whose rows are implied by rows of other tables, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Derived {
    Index,
    Received,
    References,
    Memberships,
    Lapses,
    OnceExpiry,
}

impl Derived {
    pub(super) const ALL: [Self; 6] =
        [Self::Index, Self::Received, Self::References, Self::Memberships, Self::Lapses, Self::OnceExpiry];

    pub(super) const fn table(self, tables: &Tables) -> Table {
        match self {
            Self::Index => tables.index,
            Self::Received => tables.received,
            Self::References => tables.references,
            Self::Memberships => tables.memberships,
            Self::Lapses => tables.lapses,
            Self::OnceExpiry => tables.once_expiry,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Received => "received",
            Self::References => "key-package-references",
            Self::Memberships => "memberships",
            Self::Lapses => "lapses",
            Self::OnceExpiry => "once-expiry",
        }
    }
}

/// A row that is implied, each once.
type Visit<'v> = &'v mut dyn FnMut(Derived, &[u8], &[u8]) -> Result<(), Fail>;

/// The rows that an event at `cursor` implies, as long as its value is stored.
pub(super) fn of_event(stored: &Stored<'_>, cursor: Cursor, visit: Visit<'_>) -> Result<(), Fail> {
    if stored.has(LOG_ONLY) {
        return Ok(());
    }
    let mut keys: Vec<Vec<u8>> = Vec::new();
    index_keys(stored.event, &stored.audience(), cursor, |key| {
        keys.push(key.to_vec());
        Ok(())
    })?;
    keys.sort_unstable();
    // Two keys of an audience that begin alike share a row.
    keys.dedup();
    for key in &keys {
        visit(Derived::Index, key, &[])?;
    }
    stored.received_key(cursor).map_or(Ok(()), |key| visit(Derived::Received, &key, &[]))
}

/// The rows that other tables imply.
///
/// # Errors
/// [`Fail`] of `visit`, or for a row without its checksum or its form.
pub(super) fn of_tables(tables: &Tables, txn: &heed::RoTxn<'_>, visit: Visit<'_>) -> Result<(), Fail> {
    let no_reference = hash16(b"");
    for row in tables.packages.iter(txn)? {
        let (key, value) = row?;
        let (Some((owner, cursor)), Some((reference, rest))) = (key.split_at_checked(32), value.split_at_checked(16))
        else {
            return Err(Fail::Corrupt("a KeyPackage's entry is cut short"));
        };
        if reference != no_reference {
            let content = rest.get(..32).ok_or(Fail::Corrupt("a KeyPackage's entry is cut short"))?;
            visit(Derived::References, &[owner, reference, cursor].concat(), content)?;
        }
    }
    for row in tables.members.iter(txn)? {
        let (group, member) = member_of(row?.0)?;
        visit(Derived::Memberships, &[member, group].concat(), &[])?;
    }
    for table in [tables.ledgers, tables.receipts] {
        for row in table.iter(txn)? {
            let (key, value) = row?;
            let end = value.get(..5).ok_or(Fail::Corrupt("a value that lapses has no end"))?;
            visit(Derived::Lapses, &[end, key].concat(), &[])?;
        }
    }
    for row in tables.once.iter(txn)? {
        let (name, until) = row?;
        visit(Derived::OnceExpiry, &[until, name].concat(), &[])?;
    }
    Ok(())
}

/// The group and the member in a key of `members`.
pub(super) fn member_of(key: &[u8]) -> Result<(&[u8], &[u8]), Fail> {
    let cut = key.len().checked_sub(33).filter(|at| key[*at] == 0);
    let at = cut.ok_or(Fail::Corrupt("a member has no key"))?;
    Ok((&key[..at], &key[at + 1..]))
}

/// The row of `expiry` for an event alone.
pub(super) fn expiry_of(stored: &Stored<'_>, cursor: Cursor) -> Option<(Key, [u8; 6])> {
    let cursor = cursor_bytes(cursor);
    (stored.expires_at != NEVER).then(|| (Key::new().with(&time_bytes(stored.expires_at)).with(&cursor), cursor))
}
