//! Events of the other relay on their way into the store: those that were asked for go through the import's checks, and
//! all others are counted.

use std::{io::Cursor, sync::Arc};

use nostr_extensions::ForeignRules;
use nostr_protocol::{Kind, Unverified, tag::name};
use nostr_relay::manage::check_orders;
use nostr_store::moving::{ImportOptions, Imported, Moving, Report, import};

use super::{
    super::moving::{now, progress::Progress},
    connection::Trouble,
    local::Item,
    window::{Asked, Window},
};

/// Most reasons of bad events that the report keeps.
const BAD_SHOWN_MAX: usize = 10;

/// See the module.
pub(super) struct Intake<'a> {
    store: &'a dyn Moving,
    rules: Arc<ForeignRules>,
    threads: usize,
    progress: Progress,
    /// Events that the relay sent.
    pub(super) received: u64,
    /// The outcomes so far.
    pub(super) report: Report,
}

impl<'a> Intake<'a> {
    pub(super) fn new(store: &'a dyn Moving, rules: ForeignRules) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let progress = Progress::new("events", None);
        Self { store, rules: Arc::new(rules), threads, progress, received: 0, report: Report::default() }
    }

    /// Stores those of an answer's events that were asked for in this part of time. Returns the time and id of each of
    /// these, whether or not the rules of this relay take it.
    pub(super) async fn take(
        &mut self,
        events: Vec<String>,
        asked: &Asked,
        window: Window,
    ) -> Result<Vec<Item>, Trouble> {
        self.received += events.len() as u64;
        let (mut fitting, mut lines) = (Vec::with_capacity(events.len()), Vec::new());
        for json in events {
            let parsed = match Unverified::parse(json.as_bytes()) {
                Ok(parsed) => parsed,
                Err(error) => {
                    self.bad(error.to_string());
                    continue;
                }
            };
            let event = parsed.event();
            if !asked.fits(event, window) {
                self.pass_over("not what was asked for");
                continue;
            }
            fitting.push((event.created_at(), *event.id().as_bytes()));
            if event.tags().named(name::PROTECTED).next().is_some() {
                self.pass_over("protected: its author alone publishes it (NIP-70)");
                continue;
            }
            // A member may trust that its relay's messages came from members, and an id that carried a message is
            // unlisted for good. So the operator must have asked for messages of groups.
            if event.kind() == Kind::GROUP_MESSAGE && !asked.names(Kind::GROUP_MESSAGE) {
                self.pass_over("group messages, for which --filter does not ask by \"kinds\":[445]");
                continue;
            }
            // The text as it was sent, because the event does not hold its signature apart.
            lines.extend_from_slice(&event.json());
            lines.push(b'\n');
        }
        self.store(lines).await?;
        let stored = self.report.records.values().filter_map(|outcomes| outcomes.get(&Imported::New)).sum();
        self.progress.at(self.received, stored);
        Ok(fitting)
    }

    async fn store(&mut self, lines: Vec<u8>) -> Result<(), Trouble> {
        if lines.is_empty() {
            return Ok(());
        }
        let options = ImportOptions {
            threads: self.threads,
            skip_bad: true,
            done: None,
            key: None,
            foreign: Arc::clone(&self.rules),
            events: true,
            trust: false,
            check_orders,
        };
        let (report, imported) = import(self.store, Box::new(Cursor::new(lines)), options, now, |_| ()).await;
        self.add(report);
        imported.map_err(|error| Trouble(error.to_string()))
    }

    fn add(&mut self, report: Report) {
        for (sort, outcomes) in report.records {
            for (outcome, count) in outcomes {
                *self.report.records.entry(sort).or_default().entry(outcome).or_default() += count;
            }
        }
        for (reason, count) in report.not_taken {
            self.count(reason, count);
        }
        self.report.bad_lines += report.bad_lines;
        let room = BAD_SHOWN_MAX.saturating_sub(self.report.bad.len());
        self.report.bad.extend(report.bad.into_iter().take(room));
    }

    fn pass_over(&mut self, reason: &str) {
        self.count(reason.to_owned(), 1);
    }

    /// Counts events that are passed over. An import tells a bounded number of reasons apart, and the text of each is
    /// this relay's own.
    fn count(&mut self, reason: String, count: u64) {
        *self.report.not_taken.entry(reason).or_default() += count;
    }

    fn bad(&mut self, reason: String) {
        self.report.bad_lines += 1;
        if self.report.bad.len() < BAD_SHOWN_MAX {
            self.report.bad.push((self.received, reason));
        }
    }

    /// Removes the progress display.
    pub(super) fn end(&self) {
        self.progress.end();
    }
}
