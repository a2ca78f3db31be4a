//! Repair: a new data file with the rows that are whole, and with every index made anew.
//!
//! The damaged file is read without LMDB, and stays beside the new one.

use std::{collections::BTreeMap, path::Path};

use heed::{Env, WithTls};

use super::{
    super::{
        Durability, Options,
        env::open_env,
        fail::Fail,
        ids,
        keys::{Stored, cursor_bytes, number_from},
        summed::checked,
        tables::{META, Table, Tables, is_summed, sum_name},
        written::{IDS_WRITTEN, ROWS_WRITTEN, Written},
    },
    check::whole_event,
    derived::{self, Derived},
    faults::Faults,
    pages::Pages,
    reconcile::reconcile,
};
use crate::{Cursor, OpenError};

/// Most rows that one transaction writes.
pub(super) const ROWS_MAX: usize = 10_000;

/// The result of a repair.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Rows that were taken over.
    pub rows: u64,
    /// Rows that were left out, by table, each table with the number that is missing.
    pub lost: BTreeMap<String, u64>,
    /// The faults of the damaged file.
    pub faults: Faults,
}

/// Writes a new store into `directory` out of the damaged file at `path`.
///
/// # Errors
/// [`OpenError`]: nothing of the file can be read, or the new one cannot be written.
pub(super) fn rebuild(path: &Path, directory: &Path) -> Result<Rebuilt, OpenError> {
    let refused = |error: String| OpenError::Refused(format!("{}: {error}", path.display()));
    let mut pages = Pages::open(path)
        .map_err(|error| refused(error.to_string()))?
        .map_err(|fault| refused(format!("{fault}; nothing can be read, so restore a backup")))?;
    let map_bytes_max = (pages.total() << 16).max(1 << 34);
    let options = Options { durability: Durability::Interval { ms: 1_000 }, map_bytes_max };
    let env = open_env(directory, &options)?;
    let tables = Tables::open(&env)?;
    let written = |fail: Fail| OpenError::Refused(format!("{}: {}", directory.display(), fail.to_store_error()));
    let mut taking = Taking { env: &env, tables: &tables, rows: Vec::new(), rebuilt: Rebuilt::default(), failed: None };
    let walked = pages.walk(&mut |table, key, value| taking.row(table, key, value), &mut |_| {});
    walked.map_err(|error| refused(error.to_string()))?;
    taking.flush();
    let Taking { mut rebuilt, failed, .. } = taking;
    failed.map_or(Ok(()), |fail| Err(written(fail)))?;
    rebuilt.faults = std::mem::take(&mut pages.faults);
    for (table, missing) in pages.missing() {
        if is_base(&table) {
            *rebuilt.lost.entry(table).or_default() += missing;
        }
    }
    derive(&env, &tables, &mut rebuilt).map_err(written)?;
    env.force_sync().map_err(|error| written(error.into()))?;
    env.prepare_for_closing().wait();
    Ok(rebuilt)
}

/// Whether the rows of a table are implied by no others.
fn is_base(table: &str) -> bool {
    table == "events" || table == "meta" || table == "main" || is_summed(table)
}

/// The rows of the damaged file on their way into the new one.
struct Taking<'a> {
    env: &'a Env<WithTls>,
    tables: &'a Tables,
    rows: Vec<(Table, Vec<u8>, Vec<u8>)>,
    rebuilt: Rebuilt,
    failed: Option<Fail>,
}

impl Taking<'_> {
    fn row(&mut self, table: &str, key: &[u8], value: &[u8]) {
        if !is_base(table) || self.failed.is_some() {
            return;
        }
        let is_whole = match table {
            // The version is that of the new file, and the ids are written anew.
            "meta" => return self.meta(key, value),
            "events" => whole_event(key, value).is_ok(),
            _ => checked(key, value).is_ok(),
        };
        match self.tables.named(table).filter(|_| is_whole) {
            Some(to) => self.rows.push((to, key.to_vec(), value.to_vec())),
            None => *self.rebuilt.lost.entry(table.to_owned()).or_default() += 1,
        }
        if self.rows.len() >= ROWS_MAX {
            self.flush();
        }
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) {
        if META[1..3].contains(&key) || META[1..3].iter().any(|name| sum_name(name) == key) {
            self.rows.push((self.tables.meta, key.to_vec(), value.to_vec()));
        }
    }

    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.rebuilt.rows += rows.len() as u64;
        if let Err(fail) = put(self.env, &rows) {
            self.failed.get_or_insert(fail);
        }
    }
}

fn put(env: &Env<WithTls>, rows: &[(Table, Vec<u8>, Vec<u8>)]) -> Result<(), Fail> {
    let mut txn = env.write_txn()?;
    for (table, key, value) in rows {
        table.put(&mut txn, key, value)?;
    }
    Ok(txn.commit()?)
}

/// Removes rows that lead to events which are lost, and writes all rows that others imply.
fn derive(env: &Env<WithTls>, tables: &Tables, rebuilt: &mut Rebuilt) -> Result<(), Fail> {
    meta(env, tables, rebuilt)?;
    reconcile(env, tables, rebuilt)?;
    let mut behind = cursor_bytes(0);
    loop {
        let (mut rows, mut ids, mut last) = (Vec::new(), Vec::new(), None);
        let txn = env.read_txn()?;
        let range = (std::ops::Bound::Excluded(&behind[..]), std::ops::Bound::Unbounded);
        for row in tables.events.range(&txn, &range)? {
            let (key, value) = row?;
            let (cursor, stored) = (number_from(key), Stored::read(value)?);
            derived::of_event(&stored, cursor, &mut |table, key, value| {
                rows.push((table.table(tables), key.to_vec(), value.to_vec()));
                Ok(())
            })?;
            if !tables.is_removed(&txn, cursor)? {
                ids.push((ids::prefix(&stored.event.id()), cursor));
                let expiry = derived::expiry_of(&stored, cursor);
                rows.extend(expiry.map(|(key, cursor)| (tables.expiry, key.to_vec(), cursor.to_vec())));
            }
            last = Some(cursor_bytes(cursor));
            if rows.len() >= ROWS_MAX {
                break;
            }
        }
        drop(txn);
        let Some(last) = last else { break };
        put(env, &rows)?;
        put_ids(env, tables, &ids)?;
        behind = last;
    }
    let txn = env.read_txn()?;
    let mut rows = Vec::new();
    let (mut counts, last) = (BTreeMap::<Vec<u8>, [u32; 2]>::new(), tables.last_cursor(&txn)?);
    derived::of_tables(tables, &txn, &mut |table, key, value| {
        if table == Derived::Memberships {
            counts.entry(key[..32].to_vec()).or_default()[0] += 1;
        }
        rows.push((table.table(tables), key.to_vec(), value.to_vec()));
        if rows.len() >= ROWS_MAX { put(env, &std::mem::take(&mut rows)) } else { Ok(()) }
    })?;
    for row in tables.invited.iter(&txn)? {
        let inviter = row?.1;
        if !inviter.is_empty() {
            counts.entry(inviter.to_vec()).or_default()[1] += 1;
        }
    }
    drop(txn);
    rows.extend(
        counts.into_iter().map(|(key, [a, b])| (tables.counts, key, [a.to_be_bytes(), b.to_be_bytes()].concat())),
    );
    put(env, &rows)?;
    let mut txn = env.write_txn()?;
    for name in [IDS_WRITTEN, ROWS_WRITTEN] {
        Written::all(name, last).put(tables, &mut txn)?;
    }
    Ok(txn.commit()?)
}

fn put_ids(env: &Env<WithTls>, tables: &Tables, ids: &[(u64, Cursor)]) -> Result<(), Fail> {
    let mut txn = env.write_txn()?;
    for (prefix, cursor) in ids {
        ids::put(tables, &mut txn, *prefix, *cursor)?;
    }
    Ok(txn.commit()?)
}

/// Leaves out a damaged row of `meta`. Without the next cursor, a cursor of an ephemeral event might be used again, so
/// that the store's secret goes too: cursors of the old store are then refused.
fn meta(env: &Env<WithTls>, tables: &Tables, rebuilt: &mut Rebuilt) -> Result<(), Fail> {
    let mut txn = env.write_txn()?;
    let mut damaged = 0;
    for name in &META[1..3] {
        let row = |name: &[u8]| Ok::<_, Fail>(tables.meta.get(&txn, name)?.unwrap_or_default().to_vec());
        damaged += u64::from(checked(name, &[row(name)?, row(&sum_name(name))?].concat()).is_err());
    }
    if damaged > 0 {
        for name in &META[1..3] {
            tables.meta.delete(&mut txn, name)?;
            tables.meta.delete(&mut txn, &sum_name(name))?;
        }
        rebuilt.lost.insert("meta".to_owned(), damaged);
    }
    Ok(txn.commit()?)
}
