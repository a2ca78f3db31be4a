//! The end of the log as the follower knows it, so that a pass costs two small questions and not the last seconds again.
//!
//! A document may come to light among those that were taken in before it ([`super::follow`]). So who follows asks for
//! what was taken in since the newest that it knows, and for *how many* there are among the seconds before: where that
//! is as many as it knows, it knows them all.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::firestore::{
    Inner,
    documents::{commits::CommitLog, query},
    log::follow::{LAG_SECS, LOG_DOCUMENTS_MAX, LogRead},
    wire::{
        clock::{Micros, SEC},
        fail::Fail,
    },
};

/// Most documents that are remembered.
const TAIL_DOCUMENTS_MAX: usize = 20_000;

/// Documents of the log by when they were taken in, and by name; whole where nobody was given their entries yet.
#[derive(Debug)]
struct TailState {
    logs: BTreeMap<(Micros, String), Option<CommitLog>>,
    /// All that were taken in from here on are known, as of the last read.
    from: Micros,
    /// Entries were given of all that was committed by then.
    given: Micros,
}

/// What a process knows of the end of the log; none while somebody reads on.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Option<TailState>>);

impl Inner {
    /// The log's documents that were committed after `since`, by what is known already; `None` where it does not serve.
    pub(crate) async fn logs_by_tail(&self, since: Micros) -> Result<Option<LogRead>, Fail> {
        let Some(mut known) = self.tail.0.lock().take() else { return Ok(None) };
        let from = since.saturating_sub(LAG_SECS * SEC);
        if known.from > from || known.given > since {
            // Somebody else is further back; who follows comes again.
            *self.tail.0.lock() = Some(known);
            return Ok(None);
        }
        let newest = known.logs.last_key_value().map_or(from, |((at, _), _)| *at).max(from);
        let (found, count) = tokio::try_join!(
            self.client.query(query::log_from(&self.names, newest, None, LOG_DOCUMENTS_MAX)),
            async {
                if newest == from {
                    return Ok((0, Micros::MAX));
                }
                self.client.count(query::log_between(&self.names, from, Some(newest))).await
            },
        )?;
        let (count, counted_at) = count;
        let before = known.logs.range((from, String::new())..(newest, String::new())).count() as u64;
        if before != count || found.documents.len() >= LOG_DOCUMENTS_MAX {
            return Ok(None);
        }
        for document in &found.documents {
            let log = CommitLog::read(document)?;
            known.logs.entry((log.at, log.name.clone())).or_insert(Some(log));
        }
        let read_at = found.read_at.min(counted_at);
        let part = LogRead { logs: known.logs.values().flatten().cloned().collect(), known_to: read_at, read_at };
        self.remember(known);
        Ok(Some(part))
    }

    /// Takes in what was read in full, but for the entries of what was given by `given`.
    pub(crate) fn remember_part(&self, part: &LogRead, from: Micros, given: Micros) {
        let logs = part.logs.iter().map(|log| ((log.at, log.name.clone()), Some(log.clone()))).collect();
        self.remember(TailState { logs, from, given });
    }

    fn remember(&self, known: TailState) {
        if known.logs.len() <= TAIL_DOCUMENTS_MAX {
            *self.tail.0.lock() = Some(known);
        }
    }

    /// Entries were given of what was committed by `to`: they are needed no more, and what is old is not either.
    pub(crate) fn given(&self, to: Micros) {
        let mut tail = self.tail.0.lock();
        let Some(known) = tail.as_mut() else { return };
        known.given = known.given.max(to);
        known.from = known.from.max(to.saturating_sub(2 * LAG_SECS * SEC));
        let from = known.from;
        known.logs = known.logs.split_off(&(from, String::new()));
        for log in known.logs.values_mut() {
            if log.as_ref().is_some_and(|log| log.time <= to) {
                *log = None;
            }
        }
    }
}
