//! nostr-rs-relay's SQLite file, read as lines of one event each.
//!
//! Its table `event` holds each event's JSON in `content`, and `hidden` is set for events that it shows nobody. The
//! file comes from elsewhere, so nothing of its schema but that one table is used, no function that the schema names
//! and no index. The table must be read in the order in which it lies in the file, so its `id` is the rowid.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit, params};

/// The first bytes of every SQLite database.
const HEADER: &[u8; 16] = b"SQLite format 3\0";
/// Most rows that are read at one time.
const ROWS_MAX: usize = 256;
/// Bytes of events after which no further row is read at that time.
const ROWS_BYTES_MAX: usize = 4 << 20;
/// Most bytes of one event; a longer one is a bad line.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// Most bytes of one value that SQLite makes.
const VALUE_BYTES_MAX: i32 = (16 << 20) + 1;

/// Whether the file is a SQLite database. Reads on from the beginning in any case.
pub(super) fn is_database(file: &mut File) -> io::Result<bool> {
    let mut begin = Vec::new();
    // A pipe with a name cannot go back, and is no database.
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    file.by_ref().take(HEADER.len() as u64).read_to_end(&mut begin)?;
    file.rewind()?;
    Ok(begin == HEADER)
}

/// The events of a file as lines, in the order of `id`, without hidden ones.
pub(super) struct Rows {
    connection: Connection,
    /// Rows that are read, and rows that are hidden.
    counts: (u64, u64),
    /// The last `id` that was read.
    behind: i64,
    lines: io::Cursor<Vec<u8>>,
}

impl Rows {
    /// Opens the file for reading alone.
    ///
    /// # Errors
    /// In words for the operator.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let text = |error: rusqlite::Error| error.to_string();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(text)?;
        mistrust(&connection).map_err(text)?;
        if !has_table(&connection).map_err(text)? {
            return Err("this SQLite file has no table `event` as nostr-rs-relay makes it, with `id` as its integer \
                        primary key and without generated columns; export the events as JSON lines"
                .to_owned());
        }
        let count = |hidden: &str| {
            let query = format!("select count(*) from main.event not indexed where hidden {hidden} true");
            let count = connection.query_row(&query, [], |row| row.get::<_, i64>(0)).map_err(text)?;
            Ok::<u64, String>(count.unsigned_abs())
        };
        let counts = (count("is not")?, count("is")?);
        Ok(Self { connection, counts, behind: i64::MIN, lines: io::Cursor::default() })
    }

    /// The rows that are read, and the rows that are hidden.
    pub(super) const fn counts(&self) -> (u64, u64) {
        self.counts
    }

    /// Reads the next rows into lines, none at the end.
    fn next(&mut self) -> io::Result<()> {
        let text = io::Error::other::<rusqlite::Error>;
        let mut lines = std::mem::take(&mut self.lines).into_inner();
        lines.clear();
        let statement = self.connection.prepare(
            "select id, octet_length(content), \
                case when octet_length(content) <= ?2 then cast(content as blob) end \
                from main.event not indexed where id > ?1 and hidden is not true order by id limit ?3",
        );
        let mut statement = statement.map_err(text)?;
        let bounds = params![self.behind, EVENT_BYTES_MAX as i64, ROWS_MAX as i64];
        let mut rows = statement.query(bounds).map_err(text)?;
        while lines.len() < ROWS_BYTES_MAX
            && let Some(row) = rows.next().map_err(text)?
        {
            let id = row.get(0).map_err(text)?;
            // A file that was made so could otherwise give the same rows without end.
            if id <= self.behind {
                return Err(io::Error::other(format!("the row {id} lies behind the row {}", self.behind)));
            }
            self.behind = id;
            match row.get_ref(2).map_err(text)?.as_bytes_or_null() {
                // JSON has line feeds between its members alone, and nostr-rs-relay writes none.
                Ok(Some(event)) => lines.extend(event.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte })),
                _ => {
                    let bytes: Option<i64> = row.get(1).map_err(text)?;
                    let fault = format!("\"the row {} of {} bytes\"", self.behind, bytes.unwrap_or_default());
                    lines.extend_from_slice(fault.as_bytes());
                }
            }
            lines.push(b'\n');
        }
        self.lines = io::Cursor::new(lines);
        Ok(())
    }
}

/// Has SQLite read the file as one that an attacker may have made.
fn mistrust(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Whether the file has a table `event` that is no view and no virtual table, in which nothing is computed, and whose
/// `id` is the rowid.
fn has_table(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let table = "select count(*) from pragma_table_list where schema = 'main' and name = 'event' collate nocase \
         and type = 'table' and wr = 0";
    let computed = "select count(*) from pragma_table_xinfo('event', 'main') where hidden <> 0";
    let keys = "select count(*), sum(name = 'id' collate nocase and type = 'integer' collate nocase) \
         from pragma_table_xinfo('event', 'main') where pk > 0";
    let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let rowid = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
    Ok(number(table)? == 1 && number(computed)? == 0 && connection.query_row(keys, [], rowid)? == (1, Some(1)))
}

impl Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.lines.position() == self.lines.get_ref().len() as u64 {
            self.next()?;
        }
        self.lines.read(buffer)
    }
}
