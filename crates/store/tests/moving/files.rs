//! Exports as files: broken off and resumed, cut, tampered with.

use std::{
    io::{self, Cursor, Read, Write},
    sync::{Arc, Mutex, OnceLock},
};

use nostr_store::{
    RecordName, Store as _,
    memory::Memory,
    moving::{
        Done, ExportError, FileContent, ImportError, ImportOptions, Imported, Moving, Report, export, import, resume,
    },
    suite::{
        moving::{LARGE, dump, fill},
        world::{START, Subject, World, event},
    },
};

use super::{
    foreign::foreign_rules,
    stores::{Sort, TestStore},
};

/// A time at which some events have expired.
const NOW: u64 = START + 60;
/// Events that make several pages.
const NOTES: usize = 2_300;

/// A store with records of every sort, and its export.
struct Filled {
    store: Arc<Memory>,
    text: Vec<u8>,
}

/// One store for all tests, because signing takes time.
async fn filled() -> &'static Filled {
    static FILLED: OnceLock<Filled> = OnceLock::new();
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _making = MAKING.lock().await;
    if let Some(filled) = FILLED.get() {
        return filled;
    }
    let store = Arc::new(Memory::new());
    let mut world = World::new(Subject { store: Arc::clone(&store) as _, keep: Box::new(()) });
    fill(&mut world).await;
    let mut notes = Vec::new();
    for n in 0..NOTES {
        notes.push(world.admitted(&event(1, &format!("one of many, {n}")), "writer").await);
    }
    world.save(notes).await;
    let mut text = Vec::new();
    export(&*store, &mut text, None, None, "9.9.9", NOW, |_| ()).await.expect("an export");
    FILLED.get_or_init(|| Filled { store, text })
}

/// A writer that fails after `left` bytes.
struct Breaks {
    out: Vec<u8>,
    left: usize,
}

impl Write for Breaks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("no more room"));
        }
        let taken = bytes.len().min(self.left);
        self.out.extend_from_slice(&bytes[..taken]);
        self.left -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that fails at its end.
struct Stalls(Cursor<Vec<u8>>);

impl Read for Stalls {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::Error::other("the disk is gone")),
            read => Ok(read),
        }
    }
}

fn options(done: Option<Done>) -> ImportOptions {
    ImportOptions {
        threads: 2,
        skip_bad: false,
        done,
        key: None,
        foreign: foreign_rules(),
        events: false,
        trust: true,
        check_orders: |_| Ok(()),
    }
}

fn skipping() -> ImportOptions {
    ImportOptions { skip_bad: true, ..options(None) }
}

async fn imported(
    store: &dyn Moving,
    text: impl Into<Vec<u8>>,
    options: ImportOptions,
) -> (Report, Result<(), ImportError>) {
    import(store, Box::new(Cursor::new(text.into())), options, || NOW, |_| ()).await
}

fn total(report: &Report) -> u64 {
    report.records.values().flat_map(|it| it.values()).sum()
}

/// The text with the line of this number, from 1, changed.
fn with_line(text: &[u8], number: usize, change: impl FnOnce(&str) -> String) -> Vec<u8> {
    let mut lines: Vec<String> = String::from_utf8_lossy(text).lines().map(str::to_owned).collect();
    lines[number - 1] = change(&lines[number - 1]);
    (lines.join("\n") + "\n").into_bytes()
}

/// Numbers of the lines with this beginning.
fn numbers(text: &[u8], beginning: &str) -> Vec<usize> {
    let text = String::from_utf8_lossy(text);
    (1..).zip(text.lines()).filter(|(_, line)| line.starts_with(beginning)).map(|(number, _)| number).collect()
}

#[tokio::test]
async fn an_export_is_lines_and_reads_back() {
    let Filled { store, text } = filled().await;
    let lines: Vec<&str> = std::str::from_utf8(text).expect("text").lines().collect();
    assert!(lines[0].starts_with(r#"{"rnostr_export":{"format":1,"version":"9.9.9","exported_at":1795370831,"#));
    assert!(lines[lines.len() - 1].starts_with(r#"{"end":{"lines":"#));
    assert!(lines.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let to = TestStore::new(Sort::Embedded).expect("a place");
    let to = to.open().await;
    let places = Mutex::new(Vec::new());
    let written = |report: &Report| places.lock().expect("no panic").push(report.bytes);
    let (report, ended) = import(&*to, Box::new(Cursor::new(text.clone())), options(None), || NOW, written).await;
    ended.expect("an import");
    assert_eq!(dump(&*to, LARGE, NOW).await, dump(&**store, LARGE, NOW).await);
    assert_eq!(total(&report) as usize, dump(&*to, LARGE, NOW).await.len());
    assert!(report.records.values().all(|it| it.keys().eq([&Imported::New])), "{:?}", report.records);
    let places = places.into_inner().expect("no panic");
    assert!(places.is_sorted() && places.len() > 5 && places.last() == Some(&(text.len() as u64)), "{places:?}");
}

/// An export that was interrupted at any place goes on to the same file.
#[tokio::test]
async fn an_export_that_was_broken_off_goes_on() {
    let Filled { store, text } = filled().await;
    goes_on(&**store, text, 30).await;
}

/// The same for a store whose places are more than a number.
#[cfg(feature = "firestore-tests")]
#[tokio::test]
async fn an_export_of_firestore_that_was_broken_off_goes_on() {
    let Filled { store, text } = filled().await;
    let Some(place) = TestStore::new(Sort::Firestore) else { return };
    let from = place.open().await;
    imported(&*from, &text[..], options(None)).await.1.expect("an import");
    let mut text = Vec::new();
    export(&*from, &mut text, None, None, "9.9.9", NOW, |_| ()).await.expect("an export");
    assert_eq!(dump(&*from, LARGE, NOW).await, dump(&**store, LARGE, NOW).await);
    goes_on(&*from, &text, 6).await;
    // Another process has another head of the log.
    let mut file = text[..text.len() * 2 / 3].to_vec();
    let FileContent::Part(begun) = resume(&file[..], None).expect("an export") else { panic!("not begun") };
    file.truncate(usize::try_from(begun.bytes()).expect("small"));
    let other = place.open().await;
    assert!(other.head() > from.head());
    export(&*other, &mut file, Some(begun), None, "9.9.9", NOW, |_| ()).await.expect("the rest");
    assert!(file == text);
}

/// Interrupts an export of `text` at `places` places, and at some special ones.
async fn goes_on(store: &dyn Moving, text: &[u8], places: usize) {
    let ends: Vec<usize> = text.iter().enumerate().filter(|(_, c)| **c == b'\n').map(|(at, _)| at + 1).collect();
    let some = (0..places).map(|n| text.len() * n / places);
    let around = [ends[0] - 3, ends[0], ends[1], ends[1] + 1, ends[ends.len() - 2], text.len() - 1];
    for left in some.chain(around) {
        let mut out = Breaks { out: Vec::new(), left };
        let broken = export(store, &mut out, None, None, "9.9.9", NOW, |_| ()).await;
        assert!(matches!(broken, Err(ExportError::Write(_))), "{left}");
        let mut file = out.out;
        let begun = match resume(&file[..], None).expect("an export") {
            FileContent::Nothing => None,
            FileContent::Part(begun) => Some(begun),
            FileContent::Whole(_) => panic!("{left}"),
        };
        file.truncate(begun.as_ref().map_or(0, |begun| usize::try_from(begun.bytes()).expect("small")));
        let is_mark = |end: &usize| {
            text[..*end - 1].rsplit(|c| *c == b'\n').next().is_some_and(|line| line.starts_with(b"{\"mark\""))
        };
        let last_mark = ends.iter().filter(|end| **end <= left).rfind(|end| is_mark(end)).copied();
        assert_eq!(file.len(), last_mark.unwrap_or(0), "{left}: it goes on from where it was");
        export(store, &mut file, begun, None, "9.9.9", NOW, |_| ()).await.expect("the rest");
        assert!(file == text, "{left}");
        assert!(matches!(resume(&file[..], None), Ok(FileContent::Whole(counts)) if counts["event"] as usize > NOTES));
    }
}

#[tokio::test]
async fn an_export_goes_on_in_its_own_file_and_from_its_own_store_alone() {
    let Filled { text, .. } = filled().await;
    assert!(matches!(resume(&b"[server]\nport = 1\n"[..], None), Err(ExportError::File(_))));
    assert!(matches!(resume(&b"[server]"[..], None), Err(ExportError::File(_))));
    assert!(matches!(resume(&b""[..], None), Ok(FileContent::Nothing)));
    assert!(matches!(resume(&b"{\"rnostr_ex"[..], None), Ok(FileContent::Nothing)));
    let number = numbers(text, r#"{"group""#)[0];
    let changed = with_line(text, number, |line| line.replace("\"seq\":", "\"seq\":1"));
    assert!(matches!(resume(&changed[..], None), Err(ExportError::File(_))), "another hand was in it");
    let half = text.len() / 2;
    let FileContent::Part(begun) = resume(&text[..half], None).expect("an export") else { panic!("not begun") };
    let other = export(&Memory::new(), &mut Vec::new(), Some(begun), None, "9.9.9", NOW, |_| ()).await;
    assert!(matches!(other, Err(ExportError::File(text)) if text.contains("another store")));
}

#[tokio::test]
async fn an_import_that_was_broken_off_goes_on() {
    let Filled { store, text } = filled().await;
    let whole = dump(&**store, LARGE, NOW).await;
    for part in [2, 5, 8, 9] {
        let place = TestStore::new(Sort::Embedded).expect("a place");
        let to = place.open().await;
        let input = Stalls(Cursor::new(text[..text.len() * part / 10].to_vec()));
        let (report, broken) = import(&*to, Box::new(input), options(None), || NOW, |_| ()).await;
        assert!(matches!(broken, Err(ImportError::Read(_))), "{part}");
        let done = report.done.clone().expect("some pages");
        let done = Done::parse(&done.to_json()).expect("it reads back");
        let before = total(&report);
        assert!(before > 0);
        drop(to);
        let to = place.open().await;
        let (report, ended) = imported(&*to, &text[..], options(Some(done.clone()))).await;
        ended.expect("the rest");
        let has_events = report.passed_over > 0;
        assert!(has_events || part < 8, "what is in already is passed over");
        assert_eq!(total(&report) as usize, if has_events { whole.len() - before as usize } else { whole.len() });
        assert_eq!(dump(&*to, LARGE, NOW).await, whole, "{part}");
        // The old note is used once more.
        let (report, ended) = imported(&*to, &text[..], options(Some(done))).await;
        ended.expect("an import");
        assert!(report.records.values().all(|it| it.keys().eq([&Imported::Unchanged])), "{:?}", report.records);
    }
}

/// The note of a finished part counts for its file and its store only.
#[tokio::test]
async fn a_note_of_another_file_or_store_is_not_believed() {
    let Filled { store, text } = filled().await;
    let to = Memory::new();
    let (report, _) = imported(&to, &text[..text.len() * 9 / 10], options(None)).await;
    let done = report.done.expect("some pages");
    let (_, other) =
        imported(&to, with_line(text, 3, |line| line.replace('0', "1")), options(Some(done.clone()))).await;
    assert!(matches!(other, Err(ImportError::OtherFile)), "{other:?}");
    let (_, short) = imported(&to, &text[..text.len() / 10], options(Some(done.clone()))).await;
    assert!(matches!(short, Err(ImportError::OtherFile)), "{short:?}");
    let empty = Memory::new();
    let (report, ended) = imported(&empty, &text[..], options(Some(done))).await;
    ended.expect("an import");
    assert_eq!(report.passed_over, 0);
    assert_eq!(dump(&empty, LARGE, NOW).await, dump(&**store, LARGE, NOW).await);
}

#[tokio::test]
async fn a_cut_file_is_noticed_and_what_was_read_is_kept() {
    let Filled { store, text } = filled().await;
    let last = text[..text.len() - 1].iter().rposition(|c| *c == b'\n').expect("lines") + 1;
    let lines = numbers(text, "{").len() as u64;
    for (cut, whole_lines) in [(last, lines - 1), (last + 9, lines - 1), (text.len() - 2, lines - 1)] {
        let to = Memory::new();
        let (report, ended) = imported(&to, &text[..cut], options(None)).await;
        assert!(matches!(ended, Err(ImportError::Cut { lines }) if lines == whole_lines), "{cut}: {ended:?}");
        assert!(total(&report) > 2_000 && to.stats().await.expect("stats").events >= 2_000);
        imported(&to, &text[..], options(report.done)).await.1.expect("the whole file");
        assert_eq!(dump(&to, LARGE, NOW).await, dump(&**store, LARGE, NOW).await);
    }
    // The last line needs no line end.
    imported(&Memory::new(), &text[..text.len() - 1], options(None)).await.1.expect("all is there");
    assert!(matches!(imported(&Memory::new(), "", options(None)).await.1, Err(ImportError::NoExport(_))));
}

#[tokio::test]
async fn a_line_that_was_tampered_with_is_refused() {
    let Filled { text, .. } = filled().await;
    let events = numbers(text, r#"{"event""#);
    let bad = events[1_500];
    let sig = |line: &str| {
        let at = line.find("\"sig\":\"").expect("a signature") + 7;
        let digit = if &line[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &line[..at], &line[at + 1..])
    };
    let content = |line: &str| line.replace("one of many", "one of some");
    let stamp = |line: &str| line.replace("\"received_at\":", "\"received\":");
    let kind = |line: &str| line.replace(r#"{"event":"#, r#"{"evert":"#);
    for (changed, reason) in [
        (with_line(text, bad, sig), "signature does not verify"),
        (with_line(text, bad, content), "id does not match"),
        (with_line(text, bad, stamp), "unknown field `received`"),
        (with_line(text, bad, kind), "unknown variant `evert`"),
        (with_line(text, bad, |_| "{".to_owned()), "EOF"),
    ] {
        let to = Memory::new();
        let (report, ended) = imported(&to, &changed[..], options(None)).await;
        let Err(ImportError::Line { number, reason: why }) = ended else { panic!("{reason}: {ended:?}") };
        assert!(number as usize == bad && why.contains(reason), "{number} {bad} {why}");
        let done = report.done.expect("pages before").lines as usize;
        let there = to.stats().await.expect("stats").events as usize;
        assert!(done < bad && there == events.iter().filter(|number| **number <= done).count(), "no half pages");

        let to = Memory::new();
        let (report, ended) = imported(&to, &changed[..], skipping()).await;
        ended.expect("it goes on");
        assert_eq!(report.bad_lines, 1);
        assert!(report.bad[0].0 as usize == bad && report.bad[0].1.contains(reason));
        assert!(report.damaged.is_some_and(|(first, last)| (first..=last).contains(&(bad as u64))));
        assert_eq!(to.stats().await.expect("stats").events as usize, events.len() - 1);
    }
}

/// Checksums protect the records that have no signature.
#[tokio::test]
async fn a_group_that_was_tampered_with_is_refused() {
    let Filled { text, .. } = filled().await;
    let number = numbers(text, r#"{"group""#)[0];
    let changed = with_line(text, number, |line| line.replace("\"seq\":9", "\"seq\":8"));
    assert!(changed != *text);
    let to = Memory::new();
    let (_, ended) = imported(&to, &changed[..], options(None)).await;
    let Err(ImportError::Damaged { first, last }) = ended else { panic!("{ended:?}") };
    assert!((first..=last).contains(&(number as u64)));
    let stats = to.stats().await.expect("stats");
    assert_eq!((stats.groups, stats.events), (0, 0));
    let without = with_line(text, number, |_| r#"{"unlisted":"x"}"#.to_owned());
    assert!(matches!(imported(&to, &without[..], options(None)).await.1, Err(ImportError::Damaged { .. })));
    // Skipping them is refused too: nothing would vouch for them, and messages would be left without their group.
    for file in [&changed, &without, &with_line(text, number, |_| "{\"group\":".to_owned())] {
        let (_, ended) = imported(&to, &file[..], skipping()).await;
        let Err(ImportError::Unsigned { first, last }) = ended else { panic!("{ended:?}") };
        assert!((first..=last).contains(&(number as u64)));
        let stats = to.stats().await.expect("stats");
        assert_eq!((stats.groups, stats.events), (0, 0));
    }
}

/// The operator's orders move with the events, and never take the place of others.
#[tokio::test]
async fn orders_move_into_a_store_that_has_none() {
    const ORDERS: &[u8] = br#"{"lists":{"banned_keys":{"00":"spam"}},"name":"A name"}"#;
    const NAME: RecordName = RecordName::Management;
    let from = Memory::new();
    assert!(from.put_record(NAME, 0, ORDERS.to_vec()).await.expect("it works"));
    let mut text = Vec::new();
    let records = export(&from, &mut text, None, None, "9.9.9", NOW, |_| ()).await.expect("an export");
    assert_eq!(records.get("orders"), Some(&1));
    assert!(text.starts_with(br#"{"rnostr_export":{"format":3,"#), "an older release says that it cannot read it");
    assert_eq!(numbers(&text, r#"{"orders":{"#), [2]);
    assert!(matches!(resume(&text[..], None), Ok(FileContent::Whole(resumed)) if resumed == records));
    let to = Memory::new();
    let outcome = async |to: &Memory, text: &[u8]| {
        let (report, ended) = imported(to, text, options(None)).await;
        ended.expect("it is whole");
        report.records["orders"].clone()
    };
    assert_eq!(outcome(&to, &text).await, [(Imported::New, 1)].into());
    let stored = to.record(NAME, 0).await.expect("it works").expect("a record");
    assert_eq!((stored.version, &stored.value[..]), (1, ORDERS));
    assert_eq!(outcome(&to, &text).await, [(Imported::Unchanged, 1)].into());
    let other = Memory::new();
    assert!(other.put_record(NAME, 0, b"{}".to_vec()).await.expect("it works"));
    assert_eq!(outcome(&other, &text).await, [(Imported::Kept, 1)].into());
    // Orders carry no signature.
    let changed = with_line(&text, 2, |line| line.replace("spam", "spa "));
    let to = Memory::new();
    let (_, ended) = imported(&to, changed, skipping()).await;
    assert!(matches!(ended, Err(ImportError::Unsigned { .. })), "{ended:?}");
    assert_eq!(to.record(NAME, 0).await.expect("it works"), None);
}

#[tokio::test]
async fn what_is_no_export_is_refused() {
    let Filled { text, .. } = filled().await;
    let refused = async |text: &[u8]| {
        let ended = imported(&Memory::new(), text, skipping()).await.1;
        ended.expect_err("it is refused").to_string()
    };
    assert!(refused(b"hello\n").await.contains("no export of rnostr"));
    assert!(refused(b"{\"id\":\"00\",\"kind\":1}\n").await.contains("no export of rnostr"));
    let newer = with_line(text, 1, |line| line.replace("\"format\":1", "\"format\":4"));
    assert!(refused(&newer).await.contains("format 4"), "{}", refused(&newer).await);
    let twice = [&text[..], &text[..]].concat();
    let (_, ended) = imported(&Memory::new(), twice, options(None)).await;
    assert!(matches!(ended, Err(ImportError::Line { reason, .. }) if reason.contains("behind the line")));
    let event = r#"{"event":{"received_at":1,"signed":{}}}"#;
    let unsigned = with_line(text, 3, |_| event.to_owned());
    assert!(matches!(
        imported(&Memory::new(), unsigned, options(None)).await.1,
        Err(ImportError::Line { number: 3, .. })
    ));
}
