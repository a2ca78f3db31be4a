//! The tables of the environment, and the version of their layout.

use std::ops::Bound;

use heed::{CommitOrAbort, Database, Env, RwTxn, WithTls, types::Bytes};

use super::{
    fail::Fail,
    keys::{Stored, cursor_bytes, number_from},
};
use crate::{OpenError, StoreError};

/// Byte strings to byte strings; [`super::keys`] knows their forms.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// The version of the layout that this build writes.
pub(super) const SCHEMA_VERSION: u32 = 3;
const SCHEMA: &[u8] = b"schema";
/// In `meta`: a cursor that no event has reached; the next process starts here.
pub(super) const NEXT_CURSOR: &[u8] = b"next-cursor";
/// In `meta`: the store's secret.
const SECRET: &[u8] = b"secret";
/// Most events that one round of a migration reads.
const MIGRATED_MAX: usize = 10_000;

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident = $name:literal;)*) => {
        /// Every table.
        #[derive(Clone, Copy)]
        pub(super) struct Tables {
            $($(#[$doc])* pub(super) $field: Table,)*
        }

        const NAMES: &[&str] = &[$($name),*];

        impl Tables {
            fn from_opened(opened: &[Table]) -> Option<Self> {
                let mut opened = opened.iter().copied();
                Some(Self { $($field: opened.next()?,)* })
            }

            /// Each table, to be measured.
            pub(super) fn all(&self) -> impl Iterator<Item = Table> {
                [$(self.$field),*].into_iter()
            }
        }
    };
}

tables! {
    /// Names to numbers.
    meta = "meta";
    /// cursor (6) -> header and record, see [`super::keys::Stored`]; only ever appended to.
    events = "events";
    /// id (first 8) -> cursors (6 each) of the events whose ids begin so.
    ids = "ids";
    /// See [`super::keys::index_keys`].
    index = "index";
    /// prefix, cursor (6): events of a group or of one recipient in the order of their receipt, see
    /// [`crate::received`].
    received = "received";
    /// expires_at (5), first cursor (6) -> cursors (6 each) of the events that one transaction stored with that expiry.
    expiry = "expiry";
    /// cursor (6): events that are removed for every reader, and whose value in `events` and keys in `index` a sweep
    /// takes away.
    removed = "removed";
    /// target id (first 16), deleter (first 16) -> whether the target was public (1).
    tombstones = "tombstones";
    /// address -> `created_at` (8) of the newest deletion.
    address_tombstones = "address-tombstones";
    /// address -> cursor (6) of the newest event.
    addresses = "addresses";
    /// owner (32), cursor (6) -> reference hash (16), content hash (32), last resort (1).
    packages = "key-packages";
    /// owner (32), reference hash (16), cursor (6) -> content hash (32).
    references = "key-package-references";
    /// owner (first 16), content hash (first 16): KeyPackages that a claim took.
    claimed = "claimed";
    /// owner (32) -> end (5), [`crate::decide::ledger::Ledger`].
    ledgers = "key-package-ledgers";
    /// reader (32), name (16) -> end (5), [`crate::decide::receipt::Receipt`].
    receipts = "receipts";
    /// end (5), key of `ledgers` or `receipts`, which are told apart by their lengths -> nothing.
    lapses = "lapses";
    /// group id -> [`nostr_extensions::GroupRecord`] as JSON.
    groups = "groups";
    /// cursor (6), group id: groups that the event there touched, where its kind does not say that.
    touched = "touched";
    /// group id: has carried unlisted messages.
    unlisted = "unlisted";
    /// group id, 0, key (32) -> role (1), and its rank (8) while the key has not acted.
    members = "members";
    /// key (32), group id: the other direction of `members`.
    memberships = "memberships";
    /// key (32), rank (8), group id -> the key that made it a member (32) or nothing: memberships in which the key has
    /// not acted, in the order in which they give way (`Invited::rank`).
    invited = "invited";
    /// key (32) -> its memberships (4), memberships that count against it (4).
    counts = "member-counts";
    /// founder (32), Unix seconds (8), cursor (6): groups that gift wraps founded in the last day.
    founded = "founded";
    /// the log's head (6) at a start -> the mark (8) of the places behind it, up to the next start's head.
    histories = "histories";
    /// name (32) -> the time (5) until which it is used, see [`crate::Store::use_once`].
    once = "once";
    /// name -> version (8), value, see [`crate::Store::record`].
    records = "records";
    /// until (5), name (32): the names of `once` in the order in which they are forgotten.
    once_expiry = "once-expiry";
    /// key (32) -> vanished at (8), cursor up to which its events go (6), cursor up to which they are gone (6).
    vanished = "vanished";
}

/// A step from one version of the layout to the next.
type Step = fn(&mut RwTxn<'_>, &Tables) -> Result<(), Fail>;

/// The steps: the one at `n` leads from version `n + 1` to `n + 2`.
const MIGRATIONS: [Step; SCHEMA_VERSION as usize - 1] = [know_removed, list_received];

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

impl Tables {
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
        self.meta.put(&mut txn, SECRET, &secret)?;
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
            self.meta.put(&mut txn, SCHEMA, &newest.to_be_bytes())?;
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

    #[test]
    fn older_layouts_climb_each_step_once_and_newer_ones_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let env = open_env(dir.path(), &super::super::Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store of this version");
        assert!(tables.climb(&env, &[know_removed, list_received, mark, fail]).is_err());
        assert_eq!(marks(&env, &tables), 0, "a step that fails takes those before it along");
        tables.climb(&env, &[know_removed, list_received, mark, mark]).expect("two steps");
        tables.climb(&env, &[know_removed, list_received, mark, mark]).expect("nothing left to do");
        assert_eq!(marks(&env, &tables), 2);
        let refused = tables.climb(&env, &[]).expect_err("a newer store");
        assert!(refused.to_string().contains("made by a newer rnostr (schema 5, this build knows 1)"), "{refused}");
    }
}
