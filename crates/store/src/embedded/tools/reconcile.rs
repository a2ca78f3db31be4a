//! The rows that a repair saves, made to agree with each other where rows that they lead to are lost.
//!
//! A lost row leaves others that speak of it: a mark without its event, a member without its group, two events of one
//! address of which one had been removed. They go, or the newer one hides the other, so that what is left is a store.

use heed::{Env, RoTxn, WithTls};
use nostr_protocol::{EventRef, UnixSecs};

use super::{
    super::{
        fail::Fail,
        keys::{Stored, address_of, cursor_bytes, number_from},
        tables::{Table, Tables},
        vanished::Vanishing,
    },
    derived,
    rebuild::{ROWS_MAX, Rebuilt},
};
use crate::Cursor;

/// Removes rows that lead nowhere and counts them as lost, writes what is missing, and hides the events of an address
/// but the one that NIP-01 chooses.
pub(super) fn reconcile(env: &Env<WithTls>, tables: &Tables, rebuilt: &mut Rebuilt) -> Result<(), Fail> {
    drop_loose(env, tables, rebuilt, loose_of_events)?;
    drop_loose(env, tables, rebuilt, loose_members)?;
    drop_loose(env, tables, rebuilt, loose_invited)?;
    put_invited(env, tables)?;
    choose(env, tables)
}

/// A row that leads to nothing: its table's name, the table, and its key.
type Loose = (&'static str, Table, Vec<u8>);

fn drop_loose(
    env: &Env<WithTls>,
    tables: &Tables,
    rebuilt: &mut Rebuilt,
    find: fn(&Tables, &RoTxn<'_>) -> Result<Vec<Loose>, Fail>,
) -> Result<(), Fail> {
    let mut txn = env.write_txn()?;
    for (name, table, key) in find(tables, &txn)? {
        table.delete(&mut txn, &key)?;
        *rebuilt.lost.entry(name.to_owned()).or_default() += 1;
    }
    Ok(txn.commit()?)
}

/// KeyPackages and marks of events that are lost.
fn loose_of_events(tables: &Tables, txn: &RoTxn<'_>) -> Result<Vec<Loose>, Fail> {
    let mut loose: Vec<Loose> = Vec::new();
    let has_event = |cursor: &[u8]| Ok::<_, Fail>(tables.events.get(txn, cursor)?.is_some());
    for row in tables.packages.iter(txn)? {
        let key = row?.0;
        let cursor = key.get(32..).unwrap_or(&[0]);
        // A mark that names another event than it should hides a KeyPackage, and its row goes as with a removal.
        if !has_event(cursor)? || tables.is_removed(txn, number_from(cursor))? {
            loose.push(("key-packages", tables.packages.into(), key.to_vec()));
        }
    }
    for (name, table) in [("touched", tables.touched), ("removed", tables.removed)] {
        for row in table.iter(txn)? {
            let key = row?.0;
            if !has_event(key.get(..6).unwrap_or(&[0]))? {
                loose.push((name, table.into(), key.to_vec()));
            }
        }
    }
    Ok(loose)
}

/// Members of groups that have lost their records.
fn loose_members(tables: &Tables, txn: &RoTxn<'_>) -> Result<Vec<Loose>, Fail> {
    let mut loose: Vec<Loose> = Vec::new();
    for row in tables.members.iter(txn)? {
        let key = row?.0;
        if tables.groups.get(txn, derived::member_of(key)?.0)?.is_none() {
            loose.push(("members", tables.members.into(), key.to_vec()));
        }
    }
    Ok(loose)
}

/// Rows of `invited` whose keys are no members any more, or have another rank.
fn loose_invited(tables: &Tables, txn: &RoTxn<'_>) -> Result<Vec<Loose>, Fail> {
    let mut loose: Vec<Loose> = Vec::new();
    for row in tables.invited.iter(txn)? {
        let key = row?.0;
        let (Some(member), Some(rank), Some(group)) = (key.get(..32), key.get(32..40), key.get(40..)) else {
            return Err(Fail::Corrupt("a membership is cut short"));
        };
        let value = tables.members.get(txn, &[group, &[0], member].concat())?;
        if value.and_then(|value| value.get(1..9)) != Some(rank) {
            loose.push(("invited", tables.invited.into(), key.to_vec()));
        }
    }
    Ok(loose)
}

/// Writes the lost rows of `invited`. The key that invited the member is not known any more, so that the membership
/// counts against nobody; that the member has not acted stays.
fn put_invited(env: &Env<WithTls>, tables: &Tables) -> Result<(), Fail> {
    let mut missing = Vec::new();
    let mut txn = env.write_txn()?;
    for row in tables.members.iter(&txn)? {
        let (key, value) = row?;
        let (group, member) = derived::member_of(key)?;
        if let Some(rank) = value.get(1..9) {
            let key = [member, rank, group].concat();
            if tables.invited.get(&txn, &key)?.is_none() {
                missing.push(key);
            }
        }
    }
    for key in missing {
        tables.invited.put(&mut txn, &key, &[])?;
    }
    Ok(txn.commit()?)
}

/// Writes `addresses`, and hides each event that another one of its address supersedes. Its mark is lost, so it would
/// be shown again.
fn choose(env: &Env<WithTls>, tables: &Tables) -> Result<(), Fail> {
    let vanishing = {
        let txn = env.read_txn()?;
        Vanishing::read(tables, &txn)?
    };
    let mut behind = cursor_bytes(0);
    loop {
        let (mut found, mut last) = (Vec::new(), None);
        let txn = env.read_txn()?;
        let range = (std::ops::Bound::Excluded(&behind[..]), std::ops::Bound::Unbounded);
        for row in tables.events.range(&txn, &range)?.take(ROWS_MAX) {
            let (key, value) = row?;
            let (cursor, stored) = (number_from(key), Stored::read(value)?);
            last = Some(cursor_bytes(cursor));
            // The events of a key that vanished are gone for every reader already.
            if !tables.is_removed(&txn, cursor)? && !vanishing.hides(stored.event) {
                found.extend(address_of(stored.event).map(|address| (address.to_vec(), cursor)));
            }
        }
        drop(txn);
        let Some(last) = last else { return Ok(()) };
        put_chosen(env, tables, &found)?;
        behind = last;
    }
}

fn rank(event: EventRef<'_>) -> (UnixSecs, std::cmp::Reverse<[u8; 32]>) {
    (event.created_at(), std::cmp::Reverse(*event.id().as_bytes()))
}

fn put_chosen(env: &Env<WithTls>, tables: &Tables, found: &[(Vec<u8>, Cursor)]) -> Result<(), Fail> {
    let mut txn = env.write_txn()?;
    for (address, cursor) in found {
        let holder = tables.addresses.get(&txn, address)?.map(number_from);
        let held = holder.map_or(Ok(None), |holder| tables.event(&txn, holder))?;
        let superseded = match (held, tables.event(&txn, *cursor)?) {
            (Some(held), Some(other)) if rank(held.event) > rank(other.event) => Some(*cursor),
            (Some(_), Some(_)) => holder,
            _ => None,
        };
        if superseded != Some(*cursor) {
            tables.addresses.put(&mut txn, address, &cursor_bytes(*cursor))?;
        }
        if let Some(superseded) = superseded {
            hide(tables, &mut txn, superseded)?;
        }
    }
    Ok(txn.commit()?)
}

/// Marks an event as removed, with what a removal takes along of the tables that are there already.
fn hide(tables: &Tables, txn: &mut heed::RwTxn<'_>, cursor: Cursor) -> Result<(), Fail> {
    let cursor = cursor_bytes(cursor);
    let event = tables.events.get(txn, &cursor)?.map(Stored::read).transpose()?;
    if let Some(owner) = event.map(|stored| *stored.event.pubkey().as_bytes()) {
        tables.packages.delete(txn, &[&owner[..], &cursor].concat())?;
    }
    for group in Tables::tails(tables.touched, txn, &cursor)? {
        tables.touched.delete(txn, &[&cursor[..], &group].concat())?;
    }
    tables.removed.put(txn, &cursor, &[])
}
