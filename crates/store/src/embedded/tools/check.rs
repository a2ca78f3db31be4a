//! A check of a store: its pages, the checksums of its rows, its events, and every index against what it stands for.
//!
//! The pages and the checksums are read without LMDB. Only when they are whole does LMDB read the file.

use std::{collections::HashMap, io, path::Path};

use heed::RoTxn;
use nostr_extensions::admit::NEVER;
use nostr_protocol::Unverified;

use super::{
    super::{
        env::open_file,
        fail::Fail,
        ids::{prefix, shard_of},
        keys::{Stored, address_of, cursors_from, number_from, time_bytes},
        rows,
        summed::checked,
        tables::{META, NAMES, NEXT_CURSOR, SCHEMA, SCHEMA_VERSION, Tables, is_summed, sum_name},
        vanished::Vanishing,
        written::{IDS_WRITTEN, ROWS_WRITTEN, Written},
    },
    derived::{self, Derived},
    faults::Faults,
    pages::Pages,
};
use crate::OpenError;

/// The result of a check.
#[derive(Debug, Default)]
pub struct Checked {
    /// Pages of the file.
    pub pages: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Events that are stored, with those that wait for their removal.
    pub events: u64,
    /// The version of the store's layout, where it is an older one. Its rows may have no checksums, and nothing but its
    /// pages and its events is checked.
    pub older_layout: Option<u64>,
    /// All that is wrong.
    pub faults: Faults,
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Pages and checksums: a flipped bit is found, unless it lies in the key or the value of an index.
    Rows,
    /// Also every index against the events and the other rows, and the signature of each event that has no checksum.
    Relations,
    /// Also every signature.
    Signatures,
}

/// Checks the data file at `path`, which no process writes to. Calls `at` with pages of about so many now and then.
///
/// # Errors
/// The file cannot be read.
pub fn check(path: &Path, depth: Depth, at: &mut dyn FnMut(u64, u64)) -> Result<Checked, OpenError> {
    let unreadable = |error: io::Error| OpenError::Refused(format!("{}: {error}", path.display()));
    let mut checked = Checked::default();
    let mut pages = match Pages::open(path).map_err(unreadable)? {
        Ok(pages) => pages,
        Err(fault) => {
            checked.faults.add(|| fault);
            return Ok(checked);
        }
    };
    checked.pages = pages.total();
    let mut rows = Rows::default();
    let total = pages.total();
    pages
        .walk(&mut |table, key, value| rows.row(table, key, value), &mut |walked| at(walked, total))
        .map_err(unreadable)?;
    checked.older_layout = rows.older_layout();
    checked.rows = rows.count;
    checked.events = rows.events;
    checked.faults.extend(std::mem::take(&mut pages.faults));
    checked.faults.extend(std::mem::take(&mut rows.faults));
    if checked.older_layout.is_none() {
        rows.meta();
        checked.faults.extend(std::mem::take(&mut rows.unsummed));
        checked.faults.extend(rows.faults);
    }
    // LMDB may crash over damaged pages, and damaged rows would be told a second time.
    if checked.faults.count() == 0 && checked.older_layout.is_none() && depth != Depth::Rows {
        let env = open_file(path)?;
        let damaged = |fail: Fail| OpenError::Refused(format!("{}: {}", path.display(), fail.to_store_error()));
        let Some(tables) = Tables::open_existing(&env)? else {
            checked.faults.add(|| "a table is missing".to_owned());
            return Ok(checked);
        };
        let txn = env.read_txn().map_err(|error| damaged(error.into()))?;
        let mut relations = Relations { tables: &tables, txn: &txn, faults: Faults::default() };
        relations.run(depth == Depth::Signatures).map_err(damaged)?;
        checked.faults.extend(relations.faults);
    }
    Ok(checked)
}

/// A check of each row by itself.
#[derive(Default)]
struct Rows {
    count: u64,
    events: u64,
    meta: HashMap<Vec<u8>, Vec<u8>>,
    /// Rows without their checksums.
    unsummed: Faults,
    faults: Faults,
}

impl Rows {
    fn row(&mut self, table: &str, key: &[u8], value: &[u8]) {
        self.count += 1;
        match table {
            "meta" => {
                self.meta.insert(key.to_vec(), value.to_vec());
            }
            "events" => {
                self.events += 1;
                if let Err(fault) = whole_event(key, value) {
                    self.faults.add(|| format!("table events, cursor {}: {fault}", number_from(key)));
                }
            }
            table if is_summed(table) && checked(key, value).is_err() => {
                self.unsummed.add(|| format!("table {table}, row {}: it does not have its checksum", self.count));
            }
            table if NAMES.contains(&table) => {}
            table => self.faults.add(|| format!("table {table}: this build does not know it")),
        }
    }

    fn older_layout(&self) -> Option<u64> {
        let version = self.meta.get(SCHEMA)?;
        // Layouts before 4 have no checksums.
        let is_whole = self
            .meta
            .get(&sum_name(SCHEMA)[..])
            .is_none_or(|sum| checked(SCHEMA, &[&version[..], sum].concat()).is_ok());
        Some(version)
            .filter(|_| is_whole)
            .map(|version| number_from(version))
            .filter(|version| (1..u64::from(SCHEMA_VERSION)).contains(version))
    }

    fn meta(&mut self) {
        let faults = &mut self.faults;
        if self.meta.get(SCHEMA).is_none_or(|version| *version != SCHEMA_VERSION.to_be_bytes()) {
            faults.add(|| "table meta: it has no layout that this build knows".to_owned());
        }
        for name in META {
            let (value, sum) = (self.meta.remove(name), self.meta.remove(&sum_name(name)[..]));
            let row = value.zip(sum).map(|(value, sum)| [value, sum].concat());
            let is_whole = row.as_deref().map_or(name != SCHEMA, |row| checked(name, row).is_ok());
            if !is_whole {
                faults.add(|| {
                    format!("table meta, row {}: it does not have its checksum", String::from_utf8_lossy(name))
                });
            }
        }
        if !self.meta.is_empty() {
            faults.add(|| "table meta: it has rows that this build does not know".to_owned());
        }
    }
}

/// The fault of an event's row, seen by itself.
pub(super) fn whole_event(key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if key.len() != 6 {
        return Err("its key is no cursor");
    }
    match Stored::is_whole(value, number_from(key)) {
        Some(true) => Ok(()),
        Some(false) => Err("the event does not have its checksum"),
        None => Stored::read(value)
            .ok()
            .is_some_and(|stored| proves_itself(&stored))
            .then_some(())
            .ok_or("the event has no checksum, and is not the one that its author signed"),
    }
}

/// Whether the record is that of the JSON beside it, and the JSON has its id and its signature.
fn proves_itself(stored: &Stored<'_>) -> bool {
    let verified = Unverified::parse(stored.event.json()).and_then(Unverified::verify);
    verified.is_ok_and(|verified| verified.event().record() == stored.event.record())
}

struct Relations<'a> {
    tables: &'a Tables,
    txn: &'a RoTxn<'a>,
    faults: Faults,
}

/// The numbers of rows that other rows imply.
#[derive(Default)]
struct Implied {
    rows: HashMap<&'static str, u64>,
    ids: u64,
    expiring: u64,
}

impl Relations<'_> {
    fn run(&mut self, signatures: bool) -> Result<(), Fail> {
        let mut implied = Implied::default();
        self.events(signatures, &mut implied)?;
        let (tables, txn) = (self.tables, self.txn);
        derived::of_tables(tables, txn, &mut |table, key, value| self.expect(&mut implied, table, key, value))?;
        for table in Derived::ALL {
            let (rows, expected) =
                (table.table(tables).len(txn)?, implied.rows.get(table.name()).copied().unwrap_or(0));
            if rows != expected {
                self.faults.add(|| format!("table {}: it has {rows} rows, and {expected} are implied", table.name()));
            }
        }
        self.ids(&implied)?;
        self.expiry(&implied)?;
        self.addresses()?;
        self.packages()?;
        self.members()?;
        self.cursor()
    }

    fn expect(&mut self, implied: &mut Implied, table: Derived, key: &[u8], value: &[u8]) -> Result<(), Fail> {
        *implied.rows.entry(table.name()).or_default() += 1;
        if table.table(self.tables).get(self.txn, key)? != Some(value) {
            self.faults.add(|| format!("table {}: a row that another one implies is missing or differs", table.name()));
        }
        Ok(())
    }

    fn events(&mut self, signatures: bool, implied: &mut Implied) -> Result<(), Fail> {
        let (tables, txn) = (self.tables, self.txn);
        let (ids, vanishing) = (Written::read(IDS_WRITTEN, tables, txn)?, Vanishing::read(tables, txn)?);
        let rows = Written::read(ROWS_WRITTEN, tables, txn)?;
        for row in tables.events.iter(txn)? {
            let (key, value) = row?;
            let (cursor, stored) = (number_from(key), Stored::read(value)?);
            derived::of_event(&stored, cursor, &mut |table, key, value| {
                let may_wait = !rows.has(rows::shard_of(key), cursor);
                if may_wait && table.table(tables).get(txn, key)?.is_none() {
                    return Ok(());
                }
                self.expect(implied, table, key, value)
            })?;
            if signatures && !proves_itself(&stored) {
                self.faults
                    .add(|| format!("table events, cursor {cursor}: it is not the event that its author signed"));
            }
            if tables.is_removed(txn, cursor)? {
                continue;
            }
            let id = prefix(&stored.event.id());
            if ids.has(shard_of(id), cursor) {
                implied.ids += 1;
                let listed = tables.ids.get(txn, &id.to_be_bytes())?.unwrap_or_default();
                if !cursors_from(listed).any(|it| it == cursor) {
                    self.faults.add(|| format!("table ids: it lacks the event at cursor {cursor}"));
                }
            }
            implied.expiring += u64::from(stored.expires_at != NEVER);
            if let Some(address) = address_of(stored.event)
                && tables.addresses.get(txn, &address)? != Some(key)
                && !vanishing.hides(stored.event)
            {
                self.faults.add(|| format!("table addresses: it lacks the event at cursor {cursor}"));
            }
        }
        for row in tables.removed.iter(txn)? {
            if tables.events.get(txn, row?.0)?.is_none() {
                self.faults.add(|| "table removed: it names an event that is not there".to_owned());
            }
        }
        Ok(())
    }

    fn ids(&mut self, implied: &Implied) -> Result<(), Fail> {
        let mut listed = 0;
        for row in self.tables.ids.iter(self.txn)? {
            listed += row?.1.len() as u64 / 6;
        }
        if listed != implied.ids {
            self.faults.add(|| format!("table ids: it lists {listed} events instead of {}", implied.ids));
        }
        Ok(())
    }

    fn expiry(&mut self, implied: &Implied) -> Result<(), Fail> {
        let mut listed = 0;
        for row in self.tables.expiry.iter(self.txn)? {
            let (key, cursors) = row?;
            for cursor in cursors_from(cursors) {
                let Some(stored) = self.tables.event(self.txn, cursor)? else { continue };
                listed += 1;
                if key.get(..5) != Some(&time_bytes(stored.expires_at)[..]) {
                    self.faults.add(|| format!("table expiry: it has another time for the event at cursor {cursor}"));
                }
            }
        }
        if listed != implied.expiring {
            self.faults.add(|| format!("table expiry: it lists {listed} events instead of {}", implied.expiring));
        }
        Ok(())
    }

    fn addresses(&mut self) -> Result<(), Fail> {
        for row in self.tables.addresses.iter(self.txn)? {
            let (address, cursor) = row?;
            let stored = self.tables.event(self.txn, number_from(cursor))?;
            if stored.and_then(|stored| address_of(stored.event)).is_none_or(|it| it[..] != *address) {
                self.faults.add(|| "table addresses: an address leads to no event of its own".to_owned());
            }
        }
        Ok(())
    }

    fn packages(&mut self) -> Result<(), Fail> {
        for row in self.tables.packages.iter(self.txn)? {
            let (key, _) = row?;
            let cursor = number_from(key.get(32..).unwrap_or_default());
            let stored = self.tables.event(self.txn, cursor)?;
            let owner = stored.filter(|it| it.event.kind().is_key_package()).map(|it| it.event.pubkey());
            if owner.is_none_or(|owner| key.get(..32) != Some(&owner.as_bytes()[..])) {
                self.faults.add(|| format!("table key-packages: cursor {cursor} has no KeyPackage of the owner"));
            }
        }
        Ok(())
    }

    /// Holds the members against their groups, and the numbers of a key against its memberships.
    fn members(&mut self) -> Result<(), Fail> {
        let (tables, txn) = (self.tables, self.txn);
        let (mut ranked, mut invited_by) = (0_u64, HashMap::<&[u8], u32>::new());
        for row in tables.members.iter(txn)? {
            let (key, value) = row?;
            let (group, member) = derived::member_of(key)?;
            if tables.groups.get(txn, group)?.is_none() {
                self.faults.add(|| "table members: a group has members and no record".to_owned());
            }
            if let Some(rank) = value.get(1..9) {
                ranked += 1;
                if tables.invited.get(txn, &[member, rank, group].concat())?.is_none() {
                    self.faults.add(|| "table invited: a member that has not acted is missing".to_owned());
                }
            }
        }
        for row in tables.invited.iter(txn)? {
            let inviter = row?.1;
            if !inviter.is_empty() {
                *invited_by.entry(inviter).or_default() += 1;
            }
        }
        if tables.invited.len(txn)? != ranked {
            self.faults.add(|| "table invited: it has rows without a member".to_owned());
        }
        for row in tables.counts.iter(txn)? {
            let (key, value) = row?;
            let memberships = tables.memberships.prefix_iter(txn, key)?.count() as u32;
            let invited = invited_by.remove(key).unwrap_or(0);
            if *value != [memberships.to_be_bytes(), invited.to_be_bytes()].concat()[..] {
                self.faults.add(|| "table member-counts: a key has other numbers than it should".to_owned());
            }
        }
        if !invited_by.is_empty() {
            self.faults.add(|| format!("table member-counts: it lacks {} keys", invited_by.len()));
        }
        for row in tables.groups.iter(txn)? {
            if serde_json::from_slice::<nostr_extensions::GroupRecord>(row?.1).is_err() {
                self.faults.add(|| "table groups: a record does not read".to_owned());
            }
        }
        Ok(())
    }

    fn cursor(&mut self) -> Result<(), Fail> {
        let last = self.tables.last_cursor(self.txn)?;
        let next = self.tables.meta.get(self.txn, NEXT_CURSOR)?.map_or(1, number_from);
        if last >= next && next > 1 {
            self.faults.add(|| format!("table meta: the next cursor is {next}, and {last} is taken"));
        }
        Ok(())
    }
}
