//! Entries of the log after a cursor.
//!
//! The order of the log is the commit time, but no query can use it. Queries use `at`, the time at which the service
//! received the commit: it has milliseconds and precedes the commit time by up to the duration of the call. On the
//! emulator, one in twenty of concurrent commits stood in the other order. So a read goes like this:
//!
//! 1. It asks for documents with `at` from [`LAG_SECS`] before the cursor on.
//! 2. It orders them by commit time, and drops those up to the cursor.
//! 3. It is complete up to its read time: a read sees every commit up to then, and later commits have later
//!    times.
//!
//! The log is kept for [`LOG_KEPT_SECS`]. A follower from further back gets one entry at the end of the missing part,
//! which touches every group, so that it forgets its cached groups. It is not given the missed events: clients find
//! them in the archive.

use nostr_extensions::gate::Touches;
use nostr_protocol::{EventId, Kind};

use crate::{
    Cursor, LogEntry, LogPage,
    decide::EPHEMERAL_SECS,
    firestore::{
        Inner,
        documents::{commits::CommitLog, events::EventDocument, query},
        log::locations::EventLocation,
        wire::{
            client::CALL_SECS_MAX,
            clock::{self, Micros, SEC, through, time_of},
            fail::Fail,
            value::{self, ReadFields as _},
        },
    },
};

/// Longest time between `at` and the commit time, in seconds. A call has ended by then, or never will.
pub(crate) const LAG_SECS: u64 = 3 * CALL_SECS_MAX;
/// Most seconds by which the clock that sets `at` may be ahead.
pub(crate) const SKEW_SECS: u64 = 1;
/// Lifetime of the log, in seconds.
pub(crate) const LOG_KEPT_SECS: u64 = 3_600;
/// Most documents of the log that one query reads.
pub(crate) const LOG_DOCUMENTS_MAX: usize = 100;
/// Most such queries of one call.
const LOG_QUERIES_MAX: usize = 100;
/// Bytes of entries after which a call gives the entries that it is sure of.
const LOG_BYTES_MAX: usize = 16 << 20;

/// Documents of the log that were read for one call.
#[derive(Debug)]
pub(crate) struct LogRead {
    pub(crate) logs: Vec<CommitLog>,
    /// Every commit up to this time is among them.
    pub(crate) known_to: Micros,
    pub(crate) read_at: Micros,
}

impl Inner {
    /// See [`crate::Store::after`].
    pub(crate) async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, Fail> {
        self.is_same_database().await?;
        let entries_max = entries_max.max(1);
        self.client.settle().await;
        let read = match self.logs_by_tail(time_of(cursor)).await? {
            Some(read) => read,
            None => self.logs_behind(cursor, entries_max).await?,
        };
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut cursor = cursor;
        let mut has_gap = false;
        if let Some(gone) = self.gone_behind(cursor, read.read_at).await? {
            cursor = gone.cursor;
            has_gap = true;
            entries.push(gone);
        }
        let known_to = through(read.known_to).max(cursor);
        for log in &read.logs {
            let is_late = read.read_at.saturating_sub(log.time) > EPHEMERAL_SECS * SEC;
            for (place, logged) in log.places().filter(|(place, _)| *place > cursor && *place <= known_to) {
                if let Some((key, until)) = logged.vanished {
                    self.hiding.learn(&[(key, until)], log.time);
                }
                has_gap |= logged.is_mark();
                if logged.ephemeral.is_none() || !is_late {
                    self.locations.remember(place, EventLocation::of(logged));
                    entries.push(logged.entry(place));
                }
            }
        }
        if has_gap {
            // Neither a gap nor an import's entry names the keys that vanished.
            self.learn_vanished().await?;
        }
        entries.sort_by_key(|entry| entry.cursor);
        self.tell_apart(&read, &mut entries).await?;
        let is_head = read.known_to == read.read_at;
        let mut page = LogPage { entries, through: known_to, is_head, read_at_ms: Some(read.read_at / 1_000) };
        if page.entries.len() > entries_max {
            // Entries that share a cursor stay on one page.
            let last = page.entries[entries_max - 1].cursor;
            page.entries.retain(|entry| entry.cursor <= last);
            (page.through, page.is_head) = (last, false);
        }
        if let Some(last) = page.entries.last() {
            self.advance(last.cursor);
        }
        // The last microsecond may have more entries.
        self.given(time_of(page.through).saturating_sub(1));
        Ok(page)
    }

    /// Fetches the events of entries that share a cursor, because their cursor does not tell them apart. Two commits of
    /// one microsecond may have chosen the same places.
    async fn tell_apart(&self, read: &LogRead, entries: &mut [LogEntry]) -> Result<(), Fail> {
        let shared = |entries: &[LogEntry], n: usize| {
            let cursor = entries[n].cursor;
            (n > 0 && entries[n - 1].cursor == cursor) || entries.get(n + 1).is_some_and(|next| next.cursor == cursor)
        };
        let alike: Vec<usize> =
            (0..entries.len()).filter(|n| entries[*n].sealed.is_none() && shared(entries, *n)).collect();
        if alike.is_empty() {
            return Ok(());
        }
        let logged = || read.logs.iter().flat_map(CommitLog::places);
        let mut ids: Vec<(Cursor, EventId)> = Vec::new();
        for (place, logged) in logged().filter(|(_, logged)| logged.ephemeral.is_none()) {
            if alike.iter().any(|n| entries[*n].cursor == place) && !ids.contains(&(place, logged.id)) {
                ids.push((place, logged.id));
            }
        }
        let hidden = self.hiding.now();
        let got = self.client.get(ids.iter().map(|(_, id)| self.names.event(id)).collect(), None).await?;
        for n in alike {
            let entry = &mut entries[n];
            let Some(at) = ids.iter().position(|(place, _)| *place == entry.cursor) else { continue };
            let (_, id) = ids.remove(at);
            let stored = got.get(&self.names.event(&id)).map(EventDocument::read).transpose()?;
            let stored = stored.filter(|it| it.cursor == entry.cursor && !hidden.hides(it.event.view()));
            match stored {
                Some(stored) => entry.sealed = Some(stored.seal()),
                // The event is gone and concerns nobody.
                None => entry.routes.clear(),
            }
        }
        Ok(())
    }

    /// Documents of the log from a little before `cursor` on, until they hold `entries_max` entries after it.
    async fn logs_behind(&self, cursor: Cursor, entries_max: usize) -> Result<LogRead, Fail> {
        let from = time_of(cursor).saturating_sub(LAG_SECS * SEC);
        let mut read = LogRead { logs: Vec::new(), known_to: 0, read_at: 0 };
        let mut bytes = 0;
        for n in 0..LOG_QUERIES_MAX {
            let last = read.logs.last().map(|last| (last.at, self.names.log(&last.name)));
            let behind = last.as_ref().map(|(at, name)| (*at, name.as_str()));
            let found = self.client.query(query::log_from(&self.names, from, behind, LOG_DOCUMENTS_MAX)).await?;
            if n == 0 {
                read.read_at = found.read_at;
            }
            let is_all = found.documents.len() < LOG_DOCUMENTS_MAX;
            for document in &found.documents {
                let mut log = CommitLog::read(document)?;
                if log.time < time_of(cursor) {
                    // These entries were given before and may be large.
                    log.entries = Vec::new();
                } else {
                    bytes += document.bytes("entries").map_or(0, |entries| entries.len());
                }
                read.logs.push(log);
            }
            // A document beyond this query has a later `at`, and a later commit time still. A commit after the first
            // read may be missing from that read's documents.
            let to =
                read.logs.last().filter(|_| !is_all).map_or(Micros::MAX, |log| log.at.saturating_sub(SKEW_SECS * SEC));
            read.known_to = to.min(read.read_at);
            let known = read.logs.iter().filter(|log| log.time <= read.known_to);
            let entries = known.flat_map(CommitLog::places).filter(|(place, _)| *place > cursor).count();
            if is_all {
                self.remember_part(&read, from, time_of(cursor).saturating_sub(1));
            }
            if is_all || entries > entries_max || (entries > 0 && bytes > LOG_BYTES_MAX) {
                break;
            }
        }
        Ok(read)
    }

    /// The entry for a follower from before the beginning of the log; `None` for any other.
    async fn gone_behind(&self, cursor: Cursor, read_at: Micros) -> Result<Option<LogEntry>, Fail> {
        let since = time_of(cursor);
        if since >= read_at.saturating_sub((LOG_KEPT_SECS - LAG_SECS) * SEC) {
            return Ok(None);
        }
        let name = self.names.meta("log");
        let got = self.client.get(vec![name.clone()], None).await?;
        let swept = got.get(&name).and_then(|document| document.secs("swept")).unwrap_or(0);
        if since >= swept {
            return Ok(None);
        }
        Ok(Some(LogEntry {
            cursor: through(swept),
            kind: Kind::VANISH,
            touches: Touches::EveryGroup,
            group: None,
            routes: Vec::new(),
            sealed: None,
        }))
    }

    /// Removes at most `documents_max` documents older than the log's lifetime, and returns their number. It first
    /// writes the time up to which the log is gone.
    pub(crate) async fn sweep_log(&self, read_at: Micros, documents_max: usize) -> Result<usize, Fail> {
        let before = read_at.saturating_sub((LOG_KEPT_SECS + LAG_SECS) * SEC);
        let old = self.client.query(query::log_before(&self.names, before, documents_max)).await?.documents;
        let count = old.len();
        if count == 0 {
            return Ok(0);
        }
        // A document with `at` before this time was committed at most [`LAG_SECS`] later.
        let swept = value::raise(self.names.meta("log"), "swept", before + LAG_SECS * SEC);
        self.client.commit(vec![swept], None).await?;
        let deletes = old.into_iter().map(|document| value::delete(document.name)).collect();
        self.client.commit(deletes, None).await?;
        Ok(count)
    }
}

const _: () = assert!(clock::PLACES > 500, "a commit's events have a place each");
