use std::cell::{Cell, RefCell};

use heed::{Env, WithTls};
use nostr_extensions::{NostrGroupId, Query, Scope, Stamp, admit::NEVER};
use nostr_protocol::{Event, Filter, Kind, testing::EventBuilder, testing::keypair};

use super::*;
use crate::{
    PageBounds, Part, Receipt, Received, ReceivedBounds, Recipient,
    embedded::{Options, env::open_env, hot::Hot, received, received::List, scan, scan::Scan, vanished::Vanishing},
};

/// A store of messages to one group, with its writer.
struct Messages {
    env: Env<WithTls>,
    tables: Tables,
    recent: Recent,
    progress: RefCell<Progress>,
    hot: Hot,
    last: Cell<Cursor>,
    _directory: tempfile::TempDir,
}

const PAGE: PageBounds =
    PageBounds { part: Part::WHOLE, events_max: usize::MAX, bytes_max: usize::MAX, entries_max: usize::MAX };
const LIST: ReceivedBounds = ReceivedBounds { events_max: usize::MAX, bytes_max: usize::MAX, entries_max: usize::MAX };

fn group() -> NostrGroupId {
    NostrGroupId::parse("grp").expect("an id")
}

fn query() -> Query {
    let filter = Filter { kinds: Some(vec![Kind::GROUP_MESSAGE]), ..Filter::default() };
    Query { filter, scope: Scope { groups: vec![group()], ..Scope::default() } }
}

fn list() -> Received {
    Received { to: Recipient::Group(group()), kinds: vec![Kind::GROUP_MESSAGE] }
}

/// The message of a number, whose time is the number.
fn message(n: u64) -> Event {
    EventBuilder::new(445).tag(&["h", "grp"]).at(n).event(&keypair("alice"))
}

impl Messages {
    /// A store that keeps at most `most` ids and rows in memory.
    fn new(most: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let env = open_env(directory.path(), &Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store");
        let most = Most { ids: most, rows: most };
        let (recent, progress) = Recent::recover(&tables, &env.read_txn().expect("a reader"), most).expect("nothing");
        let (progress, last) = (RefCell::new(progress), Cell::new(0));
        Self { env, tables, recent, progress, hot: Hot::default(), last, _directory: directory }
    }

    fn change(&self, change: impl FnOnce(&mut RwTxn<'_>, &mut Changes<'_>)) {
        let mut recent = Changes::new(&self.recent, &self.progress.borrow());
        let mut txn = self.env.write_txn().expect("a writer");
        change(&mut txn, &mut recent);
        recent.write_overflow(&self.tables, &mut txn, self.last.get()).expect("they are written");
        let progress = recent.commit(txn).expect("a commit");
        self.progress.replace(progress);
    }

    /// Puts the messages of these numbers in one transaction.
    fn put(&self, numbers: impl IntoIterator<Item = u64>) {
        self.change(|txn, recent| {
            for n in numbers {
                self.last.set(self.last.get() + 1);
                let stamp = Stamp { cursor: self.last.get(), received_at: 1, expires_at: NEVER, author_only: false };
                self.tables.put_event(txn, &message(n), stamp, 0, recent, &mut Vec::new()).expect("it is put");
            }
        });
    }

    fn remove(&self, cursor: Cursor) {
        self.change(|txn, recent| {
            self.tables.remove_event(txn, recent, cursor, 100).expect("it is removed");
        });
    }

    /// The messages by time, newest first, and by receipt, as a reader sees them that took its rows from memory before
    /// `meanwhile`, and its snapshot behind it.
    fn read_over(&self, meanwhile: impl FnOnce()) -> (Vec<u64>, Vec<Cursor>) {
        let (query, list, vanishing) = (&query(), &list(), &Vanishing::default());
        let by_time = scan::Before::take(&self.recent, query, Part::WHOLE);
        let by_receipt = received::Before::take(&self.recent.rows, list);
        meanwhile();
        let (tables, hot, up_to) = (&self.tables, &self.hot, self.last.get());
        let txn = self.env.read_txn().expect("a reader");
        let scan = Scan { tables, vanishing, hot, query, before: by_time, from: None, up_to, bounds: PAGE, now: 1 };
        let page = scan.run(&txn).expect("a page");
        let from = Receipt::default();
        let list = List { tables, vanishing, hot, query: list, from, up_to, bounds: LIST, now: 1, before: by_receipt };
        let received = list.run(&txn).expect("a list");
        (
            page.events.iter().map(|sealed| sealed.position().created_at).collect(),
            received.events.iter().map(|sealed| sealed.cursor()).collect(),
        )
    }

    fn written(&self) -> u64 {
        let txn = self.env.read_txn().expect("a reader");
        self.tables.index.len(&txn).expect("a number") + self.tables.received.len(&txn).expect("a number")
    }
}

#[test]
fn rows_are_found_in_memory_in_the_tables_and_in_both() {
    for most in [0, 1, 5, 1_000] {
        let messages = Messages::new(most);
        for n in 1..=40 {
            messages.put([1_000 - n]);
        }
        assert_eq!(messages.written() == 0, most == 1_000);
        let all = ((960..1_000).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
        let found = messages.read_over(|| {});
        assert_eq!((found.0.into_iter().rev().collect::<Vec<_>>(), found.1), all);
        // The next process has the rows of the log in memory, beside those in the tables.
        let txn = messages.env.read_txn().expect("a reader");
        let (recent, progress) =
            Recent::recover(&messages.tables, &txn, Most { ids: most, rows: most }).expect("the rows");
        drop(txn);
        let next = Messages { recent, progress: RefCell::new(progress), ..messages };
        let found = next.read_over(|| {});
        assert_eq!((found.0.into_iter().rev().collect::<Vec<_>>(), found.1), all);
    }
}

/// The rows leave memory between the moment when a reader takes them and its snapshot.
#[test]
fn rows_that_are_written_meanwhile_are_found_once() {
    let messages = Messages::new(8);
    messages.put(1..=4);
    assert_eq!(messages.written(), 0);
    let found = messages.read_over(|| messages.put([5]));
    assert_eq!(messages.written(), 10);
    assert_eq!(found, (vec![5, 4, 3, 2, 1], vec![1, 2, 3, 4, 5]));
}

/// The cache of events does not know that an event is gone.
#[test]
fn an_event_that_is_removed_meanwhile_is_not_shown() {
    let messages = Messages::new(1_000);
    messages.put(1..=3);
    assert_eq!(messages.read_over(|| {}), (vec![3, 2, 1], vec![1, 2, 3]));
    assert_eq!(messages.read_over(|| messages.remove(2)), (vec![3, 1], vec![1, 3]));
    assert_eq!(messages.read_over(|| {}), (vec![3, 1], vec![1, 3]));
}

/// One list grows beyond the rows of a shard, in the order in which each row moves all others.
#[test]
fn a_long_list_is_written_in_parts() {
    let messages = Messages::new(1 << 20);
    let last = 20_000;
    let mut most = 0;
    for first in (0..last).step_by(500) {
        messages.put((first..first + 500).map(|n| last - n));
        most = most.max(messages.recent.rows.len());
    }
    assert!(messages.written() > last, "{}", messages.written());
    assert!(most <= 3_500, "{most} rows in memory");
    let found = messages.read_over(|| {});
    assert_eq!(found.0, (1..=last).rev().collect::<Vec<_>>());
    assert_eq!(found.1, (1..=last).collect::<Vec<_>>());
}

/// A key that memory has no room for goes into its table at once, and is taken out of it.
#[test]
fn a_long_key_is_written_at_once() {
    let messages = Messages::new(1_000);
    let key = [b'K'; 60];
    messages.change(|txn, recent| recent.rows.put(&messages.tables, txn, rows::Kept::Index, &key).expect("it is put"));
    assert_eq!((messages.written(), messages.recent.rows.len()), (1, 0));
    messages.change(|txn, recent| recent.rows.delete(&messages.tables, txn, rows::Kept::Index, &key).expect("it goes"));
    assert_eq!(messages.written(), 0);
}

/// Few rows come to most shards, and a start must not read the whole log for their sake.
#[test]
fn no_shard_is_left_behind() {
    let messages = Messages::new(1 << 20);
    messages.put([1]);
    messages.last.set(messages.last.get() + rows::UNWRITTEN_EVENTS_MAX);
    for n in 2..5 {
        messages.put([n]);
    }
    let Progress { rows: (written, _), .. } = messages.progress.borrow().clone();
    assert!(written.least() > rows::UNWRITTEN_EVENTS_MAX, "{}", written.least());
    assert_eq!(messages.read_over(|| {}).1.len(), 4);
}

/// A prefix leads to the shard of all its keys, whatever stands behind it.
#[test]
fn a_prefix_has_the_shard_of_its_keys() {
    let key = nostr_protocol::testing::key("alice");
    let (kind, public) = (Kind::GROUP_MESSAGE, crate::index::prefix::everything_public());
    let prefixes = [
        crate::index::prefix::group(&group(), kind),
        crate::index::prefix::reader(&key, kind),
        crate::index::prefix::author(&key),
        crate::index::prefix::author_kind(&key, kind),
        crate::index::prefix::tag(b't', "value"),
        crate::index::prefix::kind(kind),
        crate::index::prefix::all_rosters(),
        public,
    ];
    for prefix in prefixes {
        for behind in [[0; 15], [0xff; 15]] {
            assert_eq!(rows::shard_of(&prefix), rows::shard_of(&prefix.with(&behind)), "{:?}", prefix[0] as char);
        }
    }
}

/// A row that says up to which cursor all is written is believed by its checksum alone.
#[test]
fn a_damaged_progress_is_an_error() {
    let messages = Messages::new(0);
    messages.put([1]);
    let mut txn = messages.env.write_txn().expect("a writer");
    let mut row = messages.tables.meta.get(&txn, ROWS_WRITTEN).expect("a table").expect("a row").to_vec();
    row[2] ^= 1;
    messages.tables.meta.put(&mut txn, ROWS_WRITTEN, &row).expect("it is put");
    txn.commit().expect("a commit");
    let txn = messages.env.read_txn().expect("a reader");
    assert!(Recent::recover(&messages.tables, &txn, Most { ids: 0, rows: 0 }).is_err());
}
