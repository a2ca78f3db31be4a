//! The log behind a cursor.
//!
//! The order of the log is the commit time, but no query goes by it: a document's own time cannot be asked for, and the
//! field that the service sets (`at`) is the time at which it took the request in, in milliseconds and up to the whole
//! duration of the call earlier; on the emulator one in twenty of concurrent commits stood in the other order. So who
//! follows reads from [`LAG_SECS`] before its cursor on, by `at`, and goes by the times at which the documents were
//! committed. A read sees every commit up to its read time, and none after it can have a lesser time, so the read time is
//! how far the follower knows the log.
//!
//! The log is kept for [`LOG_KEPT_SECS`]. Who comes from further back is given one entry, at the end of what is gone, that
//! touches every group: what it knew of groups it has to forget, and what was sent in between it reads in the archive.

use nostr_extensions::gate::Touches;
use nostr_protocol::{EventId, Kind};

use crate::{
    Cursor, LogEntry, LogPage,
    decide::EPHEMERAL_SECS,
    firestore::{
        Inner,
        documents::{commits::CommitLog, events::StoredEvent, query},
        log::locations::EventLocation,
        wire::{
            client::CALL_SECS_MAX,
            clock::{self, Micros, SEC, through, time_of},
            fail::Fail,
            value::{self, ReadFields as _},
        },
    },
};

/// How much later than it was taken in a commit may have its time, in seconds: a call has ended by then, or never will.
pub(crate) const LAG_SECS: u64 = 3 * CALL_SECS_MAX;
/// How much ahead the clock may be by which `at` is set, in seconds.
pub(crate) const SKEW_SECS: u64 = 1;
/// How long the log is kept, in seconds.
pub(crate) const LOG_KEPT_SECS: u64 = 3_600;
/// Most documents of the log that one query reads.
pub(crate) const LOG_DOCUMENTS_MAX: usize = 100;
/// Most such queries of one call.
const LOG_QUERIES_MAX: usize = 100;
/// Where so many bytes of entries were read, what is known by then is given first.
const LOG_BYTES_MAX: usize = 16 << 20;
/// A part of the log's documents.
#[derive(Debug)]
pub(crate) struct LogRead {
    pub(crate) logs: Vec<CommitLog>,
    /// All that was committed by then is among them.
    pub(crate) known_to: Micros,
    pub(crate) read_at: Micros,
}

impl Inner {
    /// See [`crate::Store::after`].
    pub(crate) async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, Fail> {
        let entries_max = entries_max.max(1);
        self.client.settle().await;
        let part = match self.logs_by_tail(time_of(cursor)).await? {
            Some(part) => part,
            None => self.logs_behind(cursor, entries_max).await?,
        };
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut cursor = cursor;
        let mut has_gap = false;
        if let Some(gone) = self.gone_behind(cursor, part.read_at).await? {
            cursor = gone.cursor;
            has_gap = true;
            entries.push(gone);
        }
        let known_to = through(part.known_to).max(cursor);
        for log in &part.logs {
            let is_late = part.read_at.saturating_sub(log.time) > EPHEMERAL_SECS * SEC;
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
            // Which keys vanished is not said by entries, here and in an import.
            self.learn_vanished().await?;
        }
        entries.sort_by_key(|entry| entry.cursor);
        self.tell_apart(&part, &mut entries).await?;
        let mut page = LogPage { entries, through: known_to, is_head: part.known_to == part.read_at };
        if page.entries.len() > entries_max {
            // What shares a place goes together.
            let last = page.entries[entries_max - 1].cursor;
            page.entries.retain(|entry| entry.cursor <= last);
            (page.through, page.is_head) = (last, false);
        }
        if let Some(last) = page.entries.last() {
            self.advance(last.cursor);
        }
        // Of the last microsecond there may be more to give.
        self.given(time_of(page.through).saturating_sub(1));
        Ok(page)
    }

    /// Two commits of one microsecond may have chosen the same places. What shares a place is fetched here, where it is
    /// known which event is whose: nobody can ask for it by its place.
    async fn tell_apart(&self, part: &LogRead, entries: &mut [LogEntry]) -> Result<(), Fail> {
        let shared = |entries: &[LogEntry], n: usize| {
            let cursor = entries[n].cursor;
            (n > 0 && entries[n - 1].cursor == cursor) || entries.get(n + 1).is_some_and(|next| next.cursor == cursor)
        };
        let alike: Vec<usize> =
            (0..entries.len()).filter(|n| entries[*n].sealed.is_none() && shared(entries, *n)).collect();
        if alike.is_empty() {
            return Ok(());
        }
        let logged = || part.logs.iter().flat_map(CommitLog::places);
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
            let stored = got.get(&self.names.event(&id)).map(StoredEvent::read).transpose()?;
            let stored = stored.filter(|it| it.cursor == entry.cursor && !hidden.hides(it.event.view()));
            match stored {
                Some(stored) => entry.sealed = Some(stored.seal()),
                // It is gone, and concerns nobody any more.
                None => entry.routes.clear(),
            }
        }
        Ok(())
    }

    /// The log's documents from a little before `cursor` on, until they hold so many entries behind it.
    async fn logs_behind(&self, cursor: Cursor, entries_max: usize) -> Result<LogRead, Fail> {
        let from = time_of(cursor).saturating_sub(LAG_SECS * SEC);
        let mut part = LogRead { logs: Vec::new(), known_to: 0, read_at: 0 };
        let mut bytes = 0;
        for n in 0..LOG_QUERIES_MAX {
            let last = part.logs.last().map(|last| (last.at, self.names.log(&last.name)));
            let behind = last.as_ref().map(|(at, name)| (*at, name.as_str()));
            let found = self.client.query(query::log_from(&self.names, from, behind, LOG_DOCUMENTS_MAX)).await?;
            if n == 0 {
                part.read_at = found.read_at;
            }
            let is_all = found.documents.len() < LOG_DOCUMENTS_MAX;
            for document in &found.documents {
                let mut log = CommitLog::read(document)?;
                if log.time < time_of(cursor) {
                    // It was given before, and may be large.
                    log.entries = Vec::new();
                } else {
                    bytes += document.bytes("entries").map_or(0, |entries| entries.len());
                }
                part.logs.push(log);
            }
            // What was not read was taken in later than what was, and committed later still. What was committed after
            // the first read may be missing among what the first read gave.
            let to =
                part.logs.last().filter(|_| !is_all).map_or(Micros::MAX, |log| log.at.saturating_sub(SKEW_SECS * SEC));
            part.known_to = to.min(part.read_at);
            let known = part.logs.iter().filter(|log| log.time <= part.known_to);
            let entries = known.flat_map(CommitLog::places).filter(|(place, _)| *place > cursor).count();
            if is_all {
                self.remember_part(&part, from, time_of(cursor).saturating_sub(1));
            }
            if is_all || entries > entries_max || (entries > 0 && bytes > LOG_BYTES_MAX) {
                break;
            }
        }
        Ok(part)
    }

    /// What to say to who comes from before the log begins.
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

    /// Removes some of what is older than the log is kept, and says before that it is gone; how many documents went.
    pub(crate) async fn sweep_log(&self, read_at: Micros, documents_max: usize) -> Result<usize, Fail> {
        let before = read_at.saturating_sub((LOG_KEPT_SECS + LAG_SECS) * SEC);
        let old = self.client.query(query::log_before(&self.names, before, documents_max)).await?.documents;
        let count = old.len();
        if count == 0 {
            return Ok(0);
        }
        // What was taken in before was committed before that.
        let swept = value::raise(self.names.meta("log"), "swept", before + LAG_SECS * SEC);
        self.client.commit(vec![swept], None).await?;
        let deletes = old.into_iter().map(|document| value::delete(document.name)).collect();
        self.client.commit(deletes, None).await?;
        Ok(count)
    }
}

const _: () = assert!(clock::PLACES > 500, "a commit's events have a place each");
