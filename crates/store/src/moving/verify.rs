//! Parallel reader of an export's lines: one thread reads, the others parse lines and check signatures. The lines come
//! out in the order of the file.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread,
};

use nostr_extensions::ForeignRules;
use nostr_protocol::UnixSecs;
use tokio::sync::{mpsc, oneshot};

use super::{
    import::{Done, ImportError, ImportOptions},
    line::{self, END, Format, Line, MARK},
    lines::{Count, Lines, Raw},
};

/// Most lines of a chunk, which one thread parses at a time.
const CHUNK_LINES_MAX: usize = 64;
/// A chunk gets no further line when its lines reach this many bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Most chunks that have been read and not yet imported, for each thread.
const CHUNKS_AHEAD_MAX: usize = 16;

/// A line with its number and its parsed content.
pub(super) struct ReadLine {
    /// The line's number, from 1.
    pub(super) number: u64,
    /// The line's length.
    pub(super) bytes: usize,
    /// The content, or its fault.
    pub(super) line: Result<Line, String>,
    /// Counts without and with this line: for a mark, for the end, and for the last line of a chunk of events.
    pub(super) around: Around,
    /// The format of the file.
    pub(super) format: Format,
}

type Around = Option<(Count, Count)>;
type RawLine = (u64, Raw, Around);

/// Parsed lines that a thread will hand over, in the order of the file.
type Chunk = oneshot::Receiver<Vec<ReadLine>>;

/// The next item of the reader.
pub(super) enum Next {
    /// Some lines.
    Lines(Vec<ReadLine>),
    /// The end of the file, with its number of whole lines.
    Ended(u64),
}

enum Queued {
    Chunk(Chunk),
    Ended(Result<u64, ImportError>),
}

struct Job {
    lines: Vec<RawLine>,
    format: Format,
    answer: oneshot::Sender<Vec<ReadLine>>,
}

/// Lines in their order, verified ahead of the import.
pub(super) struct VerifiedLines {
    queue: mpsc::Receiver<Queued>,
}

impl VerifiedLines {
    /// Starts one thread that reads the input, and `threads` that verify. Lines that are `done` are skipped. Events of
    /// another relay count as received at `now`.
    pub(super) fn new(
        input: Box<dyn Read + Send>,
        options: &ImportOptions,
        done: Option<Done>,
        now: UnixSecs,
    ) -> Result<Self, ImportError> {
        let threads = options.threads.max(1);
        let ahead = threads * CHUNKS_AHEAD_MAX;
        let (ordered, queue) = mpsc::channel(ahead);
        let (jobs, waiting) = sync_channel::<Job>(ahead);
        let waiting = Arc::new(Mutex::new(waiting));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(work).map_err(ImportError::Read)
        };
        for _ in 0..threads {
            let (waiting, rules) = (Arc::clone(&waiting), Arc::clone(&options.foreign));
            let work = move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { lines, format, answer }) = next else { break };
                    // The receiver is gone when the import has ended, and then nobody needs the answer.
                    let _ = answer.send(lines.into_iter().map(|line| read(line, format, &rules, now)).collect());
                }
            };
            spawn("import-verify", Box::new(work))?;
        }
        let count = Count::new(options.key.as_ref());
        let known = options.events.then_some(Format::Events);
        let lines = Lines::new(input);
        let format = known.unwrap_or(Format::Export);
        let mut reader = LineReader { lines, count, known, format, chunk: Vec::new(), bytes: 0, done };
        let work = move || {
            let mut send = |lines, format| {
                let (answer, answered) = oneshot::channel();
                let job = Job { lines, format, answer };
                ordered.blocking_send(Queued::Chunk(answered)).is_ok() && jobs.send(job).is_ok()
            };
            let ended = reader.run(&mut send);
            let _ = ordered.blocking_send(Queued::Ended(ended));
        };
        spawn("import-read", Box::new(work))?;
        Ok(Self { queue })
    }

    pub(super) async fn next(&mut self) -> Result<Next, ImportError> {
        let lost = || ImportError::Read(std::io::Error::other("a thread of the import has ended"));
        match self.queue.recv().await.ok_or_else(lost)? {
            Queued::Chunk(chunk) => Ok(Next::Lines(chunk.await.map_err(|_| lost())?)),
            Queued::Ended(ended) => ended.map(Next::Ended),
        }
    }
}

fn read((number, raw, around): RawLine, format: Format, rules: &ForeignRules, now: UnixSecs) -> ReadLine {
    let line = match format {
        Format::Export => line::read(raw.content()),
        Format::Events => line::read_event(raw.content(), rules, now),
    };
    ReadLine { number, bytes: raw.text.len(), line, around, format }
}

struct LineReader {
    lines: Lines<Box<dyn Read + Send>>,
    count: Count,
    /// The format, if the caller knows it.
    known: Option<Format>,
    format: Format,
    chunk: Vec<RawLine>,
    bytes: usize,
    done: Option<Done>,
}

impl LineReader {
    /// Reads to the end, or until the import has ended, and returns the number of whole lines.
    fn run(&mut self, send: &mut impl FnMut(Vec<RawLine>, Format) -> bool) -> Result<u64, ImportError> {
        while let Some(raw) = self.lines.next().map_err(ImportError::Read)? {
            let number = self.count.lines + 1;
            if number == 1 {
                self.format = self.known.unwrap_or_else(|| Format::of(raw.content()));
            }
            let is_export = self.format == Format::Export;
            let ends = is_export && raw.content().starts_with(END);
            // A line without its line feed is cut off, unless it is the whole last line of the export. An event proves
            // itself that it is whole.
            let stands = raw.is_whole() || !is_export || (ends && line::read(raw.content()).is_ok());
            if !stands {
                break;
            }
            let fills = self.chunk.len() + 1 >= CHUNK_LINES_MAX || self.bytes + raw.text.len() >= CHUNK_BYTES_MAX;
            let closes = if is_export { ends || raw.content().starts_with(MARK) } else { fills };
            let before = closes.then(|| self.count.clone());
            self.count.add(&raw.text, 1);
            let around = before.map(|before| (before, self.count.clone()));
            if let Some(done) = self.done.as_ref().filter(|done| number <= done.lines) {
                if number == done.lines && done.checksum != self.count.checksum() {
                    return Err(ImportError::OtherFile);
                }
                // The import checks the format in the first line even when the line is done.
                if number > 1 {
                    continue;
                }
            }
            self.bytes += raw.text.len();
            self.chunk.push((number, raw, around));
            if (fills || closes) && !self.flush(send) {
                break;
            }
        }
        if self.done.as_ref().is_some_and(|done| done.lines > self.count.lines) {
            return Err(ImportError::OtherFile);
        }
        self.flush(send);
        Ok(self.count.lines)
    }

    fn flush(&mut self, send: &mut impl FnMut(Vec<RawLine>, Format) -> bool) -> bool {
        self.bytes = 0;
        self.chunk.is_empty() || send(std::mem::take(&mut self.chunk), self.format)
    }
}
