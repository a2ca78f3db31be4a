//! A walk over all pages of a data file without LMDB, which trusts its file and may crash over a damaged page.
//!
//! The walk holds every page against the trees that lead to it: numbers, bounds, the order of keys within the
//! separators above them, counts and depth, long values, and the free list. A page is used once, free, or a fault.

use std::{fs::File, io, ops::Bound, os::unix::fs::FileExt as _, path::Path};

use super::{
    faults::Faults,
    node::{Content, META_BYTES, Meta, NO_PAGE, PAGE_HEADER, Tree, Value, content, is_overflow, u64_at},
};

/// Most levels of a tree, as in LMDB.
const DEPTH_MAX: u16 = 32;
/// Most free pages behind the end of a file.
const BEHIND_PAGES_MAX: u64 = 1 << 20;
/// Longest value that is read.
const VALUE_BYTES_MAX: usize = 1 << 30;

/// A data file whose meta pages read.
pub(super) struct Pages {
    file: File,
    meta: Meta,
    used: Vec<u64>,
    missing: Vec<(String, u64)>,
    pub(super) faults: Faults,
}

/// The place of a walk in its tree.
struct Place<'a> {
    table: &'a str,
    has_numbers: bool,
    counted: Tree,
}

/// Takes a table, a key and a value.
pub(super) type VisitRow<'v> = &'v mut dyn FnMut(&str, &[u8], &[u8]);
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Pages {
    /// Opens a data file. `Ok(Err(…))` tells a fault that leaves nothing to walk over.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn open(path: &Path) -> io::Result<Result<Self, String>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut first = [0; META_BYTES];
        if len < META_BYTES as u64 {
            return Ok(Err(format!("it has {len} bytes, which is no store")));
        }
        file.read_exact_at(&mut first, 0)?;
        let Some(even) = Meta::read(&first, 0) else { return Ok(Err("page 0: it is no first page of a store".into())) };
        if file.read_exact_at(&mut first, even.page_bytes as u64).is_err() {
            return Ok(Err("page 1: the file ends before it".into()));
        }
        let Some(odd) = Meta::read(&first, 1) else { return Ok(Err("page 1: it is no second page of a store".into())) };
        // Transactions write the two in turn, and a new file has none.
        let (newer, older) = if odd.transaction > even.transaction { (odd, even) } else { (even, odd) };
        let in_turn = newer.transaction == 0 || newer.transaction - older.transaction == 1;
        let on_its_page = newer.transaction.is_multiple_of(2) == (even.transaction == newer.transaction);
        if even.page_bytes != odd.page_bytes || !in_turn || !on_its_page {
            return Ok(Err("pages 0 and 1: their transactions do not follow one another".into()));
        }
        // The last pages may be free and not in the file.
        if newer.last_page > (len / newer.page_bytes as u64).saturating_add(BEHIND_PAGES_MAX) {
            return Ok(Err(format!("it ends before its last page, {}", newer.last_page)));
        }
        let used = vec![0; newer.last_page as usize / 64 + 1];
        Ok(Ok(Self { file, meta: newer, used, missing: Vec::new(), faults: Faults::default() }))
    }

    /// Walks over everything. Calls `row` with the table, the key and the value of each row, and `walked` with the
    /// number of pages now and then.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn walk(&mut self, row: VisitRow<'_>, walked: &mut dyn FnMut(u64)) -> io::Result<()> {
        let meta = self.meta;
        let mut tables = Vec::new();
        self.tree("main", false, &meta.main, &mut |_, key, value| match value {
            Row::Table(tree) => tables.push((String::from_utf8_lossy(key).into_owned(), tree)),
            Row::Value(_) => {}
        })?;
        let mut free = Vec::new();
        self.tree("free", true, &meta.free, &mut |_, key, value| {
            if let Row::Value(value) = value {
                free.push((u64_at(key, 0).unwrap_or(NO_PAGE), value.to_vec()));
            }
        })?;
        let mut pages = 0;
        for (table, tree) in tables {
            self.tree(&table, false, &tree, &mut |table, key, value| {
                if let Row::Value(value) = value {
                    row(table, key, value);
                }
            })?;
            pages += tree.branches.saturating_add(tree.leaves).saturating_add(tree.overflows);
            walked(pages);
        }
        for (transaction, list) in free {
            self.free_list(transaction, &list);
        }
        self.leaked();
        Ok(())
    }

    fn tree(
        &mut self,
        table: &str,
        has_numbers: bool,
        tree: &Tree,
        row: &mut dyn FnMut(&str, &[u8], Row<'_>),
    ) -> io::Result<()> {
        let none = Tree { branches: 0, leaves: 0, overflows: 0, entries: 0, ..*tree };
        let mut place = Place { table, has_numbers, counted: none };
        if tree.root == NO_PAGE {
            if *tree != none || tree.depth != 0 {
                self.faults.add(|| format!("table {table}: it is empty and says that it has rows"));
            }
            return Ok(());
        }
        if tree.depth == 0 || tree.depth > DEPTH_MAX || (!has_numbers && tree.flags != 0) {
            self.faults.add(|| format!("table {table}: its record is not that of a table"));
        }
        self.page(&mut place, tree.root, 1, (Bound::Unbounded, Bound::Unbounded), row)?;
        if place.counted.entries < tree.entries {
            self.missing.push((table.to_owned(), tree.entries - place.counted.entries));
        }
        if place.counted != *tree {
            self.faults.add(|| format!("table {table}: its record does not count its rows and pages"));
        }
        Ok(())
    }

    /// Walks over the page of this number, at `depth` levels from the root, whose keys lie in `range`.
    fn page(
        &mut self,
        place: &mut Place<'_>,
        number: u64,
        depth: u16,
        range: Range,
        row: &mut dyn FnMut(&str, &[u8], Row<'_>),
    ) -> io::Result<()> {
        let table = place.table;
        if depth > DEPTH_MAX {
            self.faults.add(|| format!("page {number}, table {table}: it is deeper than a tree can be"));
            return Ok(());
        }
        let Some(bytes) = self.take(number, 1, table)? else { return Ok(()) };
        let content = match content(&bytes, number) {
            Ok(content) => content,
            Err(fault) => {
                self.faults.add(|| format!("page {number}, table {table}: {fault}"));
                return Ok(());
            }
        };
        match content {
            Content::Branch(children) => {
                place.counted.branches += 1;
                // The first key stands for all below the second.
                self.in_order(place, number, children.iter().skip(1).map(|(key, _)| *key), &range);
                for (n, (key, child)) in children.iter().enumerate() {
                    let from = if n == 0 { range.0.clone() } else { Bound::Included(key.to_vec()) };
                    let to = children.get(n + 1).map_or(range.1.clone(), |(next, _)| Bound::Excluded(next.to_vec()));
                    self.page(place, *child, depth + 1, (from, to), row)?;
                }
            }
            Content::Leaf(rows) => {
                place.counted.leaves += 1;
                place.counted.entries += rows.len() as u64;
                if depth != place.counted.depth {
                    self.faults.add(|| format!("page {number}, table {table}: it is not at the depth of its table"));
                }
                self.in_order(place, number, rows.iter().map(|(key, _)| *key), &range);
                for (key, value) in rows {
                    match value {
                        Value::Here(value) => row(table, key, Row::Value(value)),
                        Value::Table(tree) if table == "main" => row(table, key, Row::Table(tree)),
                        Value::Table(_) => {
                            self.faults.add(|| format!("page {number}, table {table}: it holds a table"));
                        }
                        Value::Elsewhere(first, bytes) => {
                            if let Some(value) = self.long_value(place, first, bytes)? {
                                row(table, key, Row::Value(&value));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn in_order<'k>(
        &mut self,
        place: &Place<'_>,
        number: u64,
        keys: impl Iterator<Item = &'k [u8]>,
        (from, to): &Range,
    ) {
        let by_number = place.has_numbers;
        let less = |a: &[u8], b: &[u8]| if by_number { u64_at(a, 0) < u64_at(b, 0) } else { a < b };
        let mut before: Option<&[u8]> = None;
        for key in keys {
            let follows = before.is_none_or(|before| less(before, key));
            let is_behind = matches!(from, Bound::Included(from) if less(key, from));
            let is_ahead = matches!(to, Bound::Excluded(to) if !less(key, to));
            if !follows || is_behind || is_ahead || (by_number && key.len() != 8) {
                self.faults.add(|| format!("page {number}, table {}: its keys are not in order", place.table));
                return;
            }
            before = Some(key);
        }
    }

    fn long_value(&mut self, place: &mut Place<'_>, first: u64, bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let table = place.table;
        if bytes > VALUE_BYTES_MAX {
            self.faults.add(|| format!("page {first}, table {table}: a value of {bytes} bytes begins there"));
            return Ok(None);
        }
        let pages = ((PAGE_HEADER - 1 + bytes) / self.meta.page_bytes + 1) as u64;
        let Some(mut read) = self.take(first, pages, table)? else { return Ok(None) };
        place.counted.overflows += pages;
        if !is_overflow(&read, first, pages) {
            self.faults.add(|| format!("page {first}, table {table}: no long value begins there"));
            return Ok(None);
        }
        read.drain(..PAGE_HEADER);
        read.truncate(bytes);
        Ok(Some(read))
    }

    /// Marks pages as used, and reads them.
    fn take(&mut self, first: u64, pages: u64, table: &str) -> io::Result<Option<Vec<u8>>> {
        if !self.mark(first, pages) {
            self.faults.add(|| format!("page {first}, table {table}: it is not there, or is used twice"));
            return Ok(None);
        }
        let mut bytes = vec![0; pages as usize * self.meta.page_bytes];
        match self.file.read_exact_at(&mut bytes, first * self.meta.page_bytes as u64) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.faults.add(|| format!("page {first}, table {table}: the file ends before it"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn mark(&mut self, first: u64, pages: u64) -> bool {
        let end = first.checked_add(pages).filter(|end| first >= 2 && *end <= self.meta.last_page + 1);
        let Some(end) = end else { return false };
        let mut is_new = true;
        for number in first..end {
            let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
            match self.used.get_mut(word) {
                Some(word) if *word & bit == 0 => *word |= bit,
                _ => is_new = false,
            }
        }
        is_new
    }

    fn free_list(&mut self, transaction: u64, list: &[u8]) {
        let numbers: Vec<u64> = (0..list.len() / 8).filter_map(|n| u64_at(list, n * 8)).collect();
        let is_whole =
            transaction <= self.meta.transaction && numbers.first().is_some_and(|count| *count < numbers.len() as u64);
        if !is_whole {
            self.faults.add(|| format!("table free: the list of transaction {transaction} does not read"));
            return;
        }
        let count = numbers[0] as usize;
        for number in &numbers[1..=count] {
            if !self.mark(*number, 1) {
                self.faults.add(|| format!("page {number}: it is free and used, or is not there"));
            }
        }
    }

    fn leaked(&mut self) {
        let is_used =
            |number: u64| self.used.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1);
        let leaked = (2..=self.meta.last_page).filter(|number| !is_used(*number)).count();
        if leaked > 0 {
            self.faults.add(|| format!("{leaked} pages are neither used nor free"));
        }
    }

    /// The tables of whose rows some cannot be read, with their numbers.
    pub(super) fn missing(&mut self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.missing)
    }

    /// The number of pages of the file, used or free.
    pub(super) const fn total(&self) -> u64 {
        self.meta.last_page + 1
    }
}

enum Row<'a> {
    Value(&'a [u8]),
    Table(Tree),
}
