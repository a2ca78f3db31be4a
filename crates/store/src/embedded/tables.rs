//! The tables of the environment, and the version of their layout.

use std::ops::Bound;

use heed::{CommitOrAbort, Database, Env, RwTxn, WithTls, types::Bytes};

use super::{
    fail::Fail,
    keys::{Stored, cursor_bytes, number_from},
    summed::{Summed, sum},
    written::{IDS_WRITTEN, ROWS_WRITTEN, Written},
};
use crate::{OpenError, StoreError};

/// Byte strings to byte strings; [`super::keys`] knows their forms.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// The version of the layout that this build writes.
pub(super) const SCHEMA_VERSION: u32 = 5;
pub(super) const SCHEMA: &[u8] = b"schema";
/// In `meta`: a cursor that no event has reached; the next process starts here.
pub(super) const NEXT_CURSOR: &[u8] = b"next-cursor";
/// In `meta`: the store's secret.
pub(super) const SECRET: &[u8] = b"secret";
/// All names of `meta`.
pub(super) const META: [&[u8]; 5] = [SCHEMA, NEXT_CURSOR, SECRET, IDS_WRITTEN, ROWS_WRITTEN];
/// Most events that one round of a migration reads.
const MIGRATED_MAX: usize = 10_000;

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident: $sort:ident = $name:literal;)*) => {
        /// Every table.
        #[derive(Clone, Copy)]
        pub(super) struct Tables {
            $($(#[$doc])* pub(super) $field: $sort,)*
        }

        /// The names of all tables.
        pub(super) const NAMES: &[&str] = &[$($name),*];

        /// Whether the rows of the table of this name carry checksums.
        pub(super) fn is_summed(name: &str) -> bool {
            [$(($name, <$sort as Sort>::IS_SUMMED)),*].contains(&(name, true))
        }

        impl Tables {
            fn from_opened(opened: &[Table]) -> Option<Self> {
                let mut opened = opened.iter().copied();
                Some(Self { $($field: <$sort as From<Table>>::from(opened.next()?),)* })
            }

            /// Each table, to be measured.
            pub(super) fn all(&self) -> impl Iterator<Item = Table> {
                [$(Table::from(self.$field)),*].into_iter()
            }

            /// The table of this name.
            pub(super) fn named(&self, name: &str) -> Option<Table> {
                NAMES.iter().zip(self.all()).find(|(other, _)| **other == name).map(|(_, table)| table)
            }

            /// Each table whose rows carry checksums.
            fn summed(&self) -> impl Iterator<Item = Summed> {
                [$((<$sort as Sort>::IS_SUMMED, Table::from(self.$field))),*]
                    .into_iter()
                    .filter_map(|(is_summed, table)| is_summed.then_some(Summed(table)))
            }
        }
    };
}

/// A plain table, or one whose rows carry checksums.
trait Sort {
    const IS_SUMMED: bool;
}

impl Sort for Table {
    const IS_SUMMED: bool = false;
}

impl Sort for Summed {
    const IS_SUMMED: bool = true;
}

impl From<Table> for Summed {
    fn from(table: Table) -> Self {
        Self(table)
    }
}

impl From<Summed> for Table {
    fn from(table: Summed) -> Self {
        table.0
    }
}

tables! {
    /// Names to numbers, each name with a second one for its checksum, see [`Tables::put_meta`].
    meta: Table = "meta";
    /// cursor (6) -> header and record, see [`super::keys::Stored`]; only ever appended to.
    events: Table = "events";
    /// id (first 8) -> cursors (6 each) of the events whose ids begin so.
    ids: Table = "ids";
    /// See [`super::keys::index_keys`]; without the newest rows, see [`super::rows`].
    index: Table = "index";
    /// prefix, cursor (6): events of a group or of one recipient in the order of their receipt, see
    /// [`crate::received`]; without the newest rows.
    received: Table = "received";
    /// expires_at (5), first cursor (6) -> cursors (6 each) of the events that one transaction stored with that expiry.
    expiry: Table = "expiry";
    /// cursor (6): events that are removed for every reader, and whose value in `events` and keys in `index` a sweep
    /// takes away.
    removed: Summed = "removed";
    /// target id (first 16), deleter (first 16) -> whether the target was public (1).
    tombstones: Summed = "tombstones";
    /// address -> `created_at` (8) of the newest deletion.
    address_tombstones: Summed = "address-tombstones";
    /// address -> cursor (6) of the newest event.
    addresses: Table = "addresses";
    /// owner (32), cursor (6) -> reference hash (16), content hash (32), last resort (1).
    packages: Summed = "key-packages";
    /// owner (32), reference hash (16), cursor (6) -> content hash (32).
    references: Table = "key-package-references";
    /// owner (first 16), content hash (first 16): KeyPackages that a claim took.
    claimed: Summed = "claimed";
    /// owner (32) -> end (5), [`crate::decide::ledger::Ledger`].
    ledgers: Summed = "key-package-ledgers";
    /// reader (32), name (16) -> end (5), [`crate::decide::receipt::Receipt`].
    receipts: Summed = "receipts";
    /// end (5), key of `ledgers` or `receipts`, which are told apart by their lengths -> nothing.
    lapses: Table = "lapses";
    /// group id -> [`nostr_extensions::GroupRecord`] as JSON.
    groups: Summed = "groups";
    /// cursor (6), group id: groups that the event there touched, where its kind does not say that.
    touched: Summed = "touched";
    /// group id: has carried unlisted messages.
    unlisted: Summed = "unlisted";
    /// group id, 0, key (32) -> role (1), and its rank (8) while the key has not acted.
    members: Summed = "members";
    /// key (32), group id: the other direction of `members`.
    memberships: Table = "memberships";
    /// key (32), rank (8), group id -> the key that made it a member (32) or nothing: memberships in which the key has
    /// not acted, in the order in which they give way (`Invited::rank`).
    invited: Summed = "invited";
    /// key (32) -> its memberships (4), memberships that count against it (4).
    counts: Table = "member-counts";
    /// founder (32), Unix seconds (8), cursor (6): groups that gift wraps founded in the last day.
    founded: Summed = "founded";
    /// the log's head (6) at a start -> the mark (8) of the places behind it, up to the next start's head.
    histories: Summed = "histories";
    /// name (32) -> the time (5) until which it is used, see [`crate::Store::use_once`].
    once: Summed = "once";
    /// name -> version (8), value, see [`crate::Store::record`].
    records: Summed = "records";
    /// until (5), name (32): the names of `once` in the order in which they are forgotten.
    once_expiry: Table = "once-expiry";
    /// key (32) -> vanished at (8), cursor up to which its events go (6), cursor up to which they are gone (6).
    vanished: Summed = "vanished";
}

/// A step from one version of the layout to the next.
type Step = fn(&mut RwTxn<'_>, &Tables) -> Result<(), Fail>;

/// The steps: the one at `n` leads from version `n + 1` to `n + 2`.
const MIGRATIONS: [Step; SCHEMA_VERSION as usize - 1] = [know_removed, list_received, sum_rows, keep_rows];

/// Leads to version 2, whose builds pass over the events in `removed`. A build that does not know that table would show
/// them.
fn know_removed(_: &mut RwTxn<'_>, _: &Tables) -> Result<(), Fail> {
    Ok(())
}

/// Leads to version 3, whose builds keep `received`.
fn list_received(txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fail> {
    let mut behind = cursor_bytes(0);
    loop {
        let range = (Bound::Excluded(&behind[..]), Bound::Unbounded);
        let (mut keys, mut last) = (Vec::new(), None);
        for entry in tables.events.range(txn, &range)?.take(MIGRATED_MAX) {
            let (key, value) = entry?;
            let cursor = number_from(key);
            keys.extend(Stored::read(value)?.received_key(cursor));
            last = Some(cursor_bytes(cursor));
        }
        for key in keys {
            tables.received.put(txn, &key, &[])?;
        }
        match last {
            Some(last) => behind = last,
            None => return Ok(()),
        }
    }
}

/// Leads to version 4, whose rows carry checksums where nothing repeats them.
fn sum_rows(txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fail> {
    for summed in tables.summed() {
        let plain = Table::from(summed);
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let lower = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut rows = Vec::new();
            for row in plain.range(txn, &(lower, Bound::Unbounded))?.take(MIGRATED_MAX) {
                let (key, value) = row?;
                rows.push((key.to_vec(), value.to_vec()));
            }
            for (key, value) in &rows {
                summed.put(txn, key, value)?;
            }
            match rows.pop() {
                Some((last, _)) => behind = Some(last),
                None => break,
            }
        }
    }
    for name in META {
        if let Some(value) = tables.meta.get(txn, name)?.map(<[u8]>::to_vec) {
            tables.put_meta(txn, name, &value)?;
        }
    }
    Ok(())
}

/// Leads to version 5, whose builds keep the newest rows of `index` and `received` in memory. Older builds have written
/// all of them.
fn keep_rows(txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fail> {
    Written::all(ROWS_WRITTEN, tables.last_cursor(txn)?).put(tables, txn)
}

/// The name of the checksum of a row of `meta`.
pub(super) fn sum_name(name: &[u8]) -> Vec<u8> {
    [name, b"#"].concat()
}

impl Tables {
    /// Puts a row of `meta`, and its checksum beside it: the version of the layout keeps the form in which older builds
    /// read it.
    pub(super) fn put_meta(&self, txn: &mut RwTxn<'_>, name: &[u8], value: &[u8]) -> Result<(), Fail> {
        self.meta.put(txn, name, value)?;
        Ok(self.meta.put(txn, &sum_name(name), &sum(&[name, value]))?)
    }

    /// The store's secret, which the first process makes.
    ///
    /// # Errors
    /// [`Fail`] where it cannot be read or written.
    pub(super) fn secret(&self, env: &Env<WithTls>) -> Result<[u8; 32], Fail> {
        let mut txn = env.write_txn()?;
        if let Some(secret) = self.meta.get(&txn, SECRET)? {
            return secret.try_into().map_err(|_| Fail::Corrupt("its secret is cut short"));
        }
        let secret = crate::random::secret();
        self.put_meta(&mut txn, SECRET, &secret)?;
        txn.commit()?;
        Ok(secret)
    }

    /// How many tables there are.
    pub(super) const COUNT: u32 = NAMES.len() as u32;

    /// Opens all tables, creates missing ones, and brings an older layout up to this build's in one transaction.
    ///
    /// # Errors
    /// [`OpenError`] for a newer layout, and for an environment that is no store.
    pub(super) fn open(env: &Env<WithTls>) -> Result<Self, OpenError> {
        let failed = |error: heed::Error| OpenError::Refused(format!("the store does not open: {error}"));
        let txn = env.write_txn().map_err(failed)?;
        let opened = env
            .create_databases_and_commit(txn, |opener, txn| {
                let open = |name: &&str| opener.create_database::<Bytes, Bytes>(txn, Some(name));
                let opened: Result<Vec<_>, heed::Error> = NAMES.iter().map(open).collect();
                opened.map(Opened).map(CommitOrAbort::<_, ()>::Commit)
            })
            .map_err(failed)?;
        let CommitOrAbort::Commit(opened) = opened else {
            return Err(OpenError::Refused("the store does not open".to_owned()));
        };
        let tables = Self::from_opened(&opened).ok_or_else(|| OpenError::Refused("a table is missing".to_owned()))?;
        tables.climb(env, &MIGRATIONS)?;
        Ok(tables)
    }

    /// Opens all tables for reading; `None` where one is missing, as in an older layout.
    ///
    /// # Errors
    /// [`OpenError`] where they cannot be read.
    pub(super) fn open_existing(env: &Env<WithTls>) -> Result<Option<Self>, OpenError> {
        let failed = |error: heed::Error| OpenError::Refused(format!("the store does not open: {error}"));
        let txn = env.read_txn().map_err(failed)?;
        let opened = env
            .open_databases_and_commit(txn, |opener, txn| {
                let open = |name: &&str| opener.open_database::<Bytes, Bytes>(txn, Some(name));
                let opened: Result<Option<Vec<_>>, heed::Error> = NAMES.iter().map(open).collect();
                opened.map(|opened| opened.map_or(CommitOrAbort::Abort(()), |all| CommitOrAbort::Commit(Opened(all))))
            })
            .map_err(failed)?;
        let tables = match opened {
            CommitOrAbort::Commit(opened) => Self::from_opened(&opened),
            CommitOrAbort::Abort(()) => None,
        };
        let Some(tables) = tables else { return Ok(None) };
        let txn = env.read_txn().map_err(failed)?;
        let version = tables.meta.get(&txn, SCHEMA).map_err(failed)?.map(number_from);
        Ok((version == Some(u64::from(SCHEMA_VERSION))).then_some(tables))
    }

    fn climb(&self, env: &Env<WithTls>, steps: &[Step]) -> Result<(), OpenError> {
        let newest = u32::try_from(steps.len()).unwrap_or(u32::MAX).saturating_add(1);
        let unreadable = |fail: Fail| match fail.to_store_error() {
            StoreError::Unavailable(text)
            | StoreError::Replaced(text)
            | StoreError::Full(text)
            | StoreError::Event(text) => {
                OpenError::Refused(format!("the store cannot be brought up to schema {newest}: {text}"))
            }
            error @ StoreError::UsedUp(_) => OpenError::Refused(error.to_string()),
        };
        let climb = || -> Result<Result<(), OpenError>, Fail> {
            let mut txn = env.write_txn()?;
            let found = match self.meta.get(&txn, SCHEMA)? {
                Some(bytes) => {
                    u32::from_be_bytes(bytes.try_into().map_err(|_| Fail::Corrupt("its schema has no version"))?)
                }
                None if self.events.is_empty(&txn)? => newest,
                None => return Err(Fail::Corrupt("it holds events and no schema")),
            };
            if found > newest || found == 0 {
                return Ok(Err(OpenError::Refused(format!(
                    "the store was made by a newer rnostr (schema {found}, this build knows {newest}); \
                     run that version, or another data directory"
                ))));
            }
            for (step, from) in steps.iter().zip(1..).skip(found as usize - 1) {
                tracing::info!(from, to = from + 1, "migrating the store");
                step(&mut txn, self)?;
            }
            self.put_meta(&mut txn, SCHEMA, &newest.to_be_bytes())?;
            txn.commit()?;
            Ok(Ok(()))
        };
        climb().map_err(unreadable)?
    }
}

struct Opened<'t>(Vec<Database<'t, Bytes, Bytes>>);

impl heed::OnCommit for Opened<'_> {
    type Committed = Vec<Table>;

    fn on_commit(self, token: &heed::CommitToken) -> Vec<Table> {
        self.0.into_iter().map(|table| table.on_commit(token)).collect()
    }
}

#[cfg(test)]
mod tests {
    use nostr_extensions::Stamp;
    use nostr_protocol::testing::{EventBuilder, key, keypair};

    use super::*;
    use crate::embedded::env::open_env;

    fn mark(txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fail> {
        let marks = tables.meta.get(txn, b"marks")?.map_or(0, |bytes| bytes[0]);
        tables.meta.put(txn, b"marks", &[marks + 1])?;
        Ok(())
    }

    fn fail(txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), Fail> {
        mark(txn, tables)?;
        Err(Fail::Corrupt("made up"))
    }

    fn marks(env: &Env<WithTls>, tables: &Tables) -> u8 {
        let txn = env.read_txn().expect("a reader");
        tables.meta.get(&txn, b"marks").expect("a table").map_or(0, |bytes| bytes[0])
    }

    /// A store of layout 2 has its messages in the order of receipt after a start.
    #[test]
    fn a_layout_without_lists_is_given_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let env = open_env(dir.path(), &super::super::Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store of this version");
        let by = keypair("alice");
        let events = [
            EventBuilder::new(445).tag(&["h", "grp"]).event(&by),
            EventBuilder::new(1).event(&by),
            EventBuilder::new(1059).tag(&["p", &key("bob").to_hex()]).event(&by),
        ];
        let mut txn = env.write_txn().expect("a writer");
        for (cursor, event) in (1..).zip(&events) {
            let stamp = Stamp { cursor, received_at: 1, expires_at: u64::MAX, author_only: false };
            let mut value = Vec::new();
            Stored::write(&mut value, &stamp, 0, event.record());
            tables.events.put(&mut txn, &cursor_bytes(cursor), &value).expect("it is put");
        }
        tables.meta.put(&mut txn, SCHEMA, &2_u32.to_be_bytes()).expect("it is put");
        txn.commit().expect("a commit");
        tables.climb(&env, &MIGRATIONS).expect("a step");
        let txn = env.read_txn().expect("a reader");
        let listed: Vec<u64> = tables
            .received
            .iter(&txn)
            .expect("a table")
            .map(|entry| number_from(entry.expect("an entry").0.last_chunk::<6>().expect("a cursor")))
            .collect();
        assert_eq!(listed, [1, 3]);
    }

    /// A store of layout 3 has a checksum on each row that needs one after a start.
    #[test]
    fn a_layout_without_checksums_is_given_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let env = open_env(dir.path(), &super::super::Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store of this version");
        let row = |n: u32| (n.to_be_bytes(), vec![7; n as usize % 90]);
        let mut txn = env.write_txn().expect("a writer");
        for n in 0..25_000 {
            let (key, value) = row(n);
            Table::from(tables.tombstones).put(&mut txn, &key, &value).expect("it is put");
        }
        tables.meta.put(&mut txn, SCHEMA, &3_u32.to_be_bytes()).expect("it is put");
        tables.meta.delete(&mut txn, &sum_name(SCHEMA)).expect("it is deleted");
        txn.commit().expect("a commit");
        tables.climb(&env, &MIGRATIONS).expect("a step");
        let txn = env.read_txn().expect("a reader");
        for n in 0..25_000 {
            let (key, value) = row(n);
            assert_eq!(tables.tombstones.get(&txn, &key).expect("it has its checksum"), Some(&value[..]));
        }
        assert!(tables.meta.get(&txn, &sum_name(SCHEMA)).expect("a table").is_some());
    }

    #[test]
    fn a_row_that_was_changed_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let env = open_env(dir.path(), &super::super::Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store of this version");
        let mut txn = env.write_txn().expect("a writer");
        tables.members.put(&mut txn, b"key", &[1]).expect("it is put");
        let mut row = Table::from(tables.members).get(&txn, b"key").expect("a table").expect("a row").to_vec();
        row[0] = 0;
        Table::from(tables.members).put(&mut txn, b"key", &row).expect("it is put");
        assert!(tables.members.get(&txn, b"key").is_err() && tables.members.get(&txn, b"no key").is_ok());
        assert!(tables.members.iter(&txn).expect("a table").all(|row| row.is_err()));
    }

    #[test]
    fn older_layouts_climb_each_step_once_and_newer_ones_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let env = open_env(dir.path(), &super::super::Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store of this version");
        assert!(tables.climb(&env, &[know_removed, list_received, sum_rows, keep_rows, mark, fail]).is_err());
        assert_eq!(marks(&env, &tables), 0, "a step that fails takes those before it along");
        tables.climb(&env, &[know_removed, list_received, sum_rows, keep_rows, mark, mark]).expect("two steps");
        tables
            .climb(&env, &[know_removed, list_received, sum_rows, keep_rows, mark, mark])
            .expect("nothing left to do");
        assert_eq!(marks(&env, &tables), 2);
        let refused = tables.climb(&env, &[]).expect_err("a newer store");
        assert!(refused.to_string().contains("made by a newer rnostr (schema 7, this build knows 1)"), "{refused}");
    }
}
