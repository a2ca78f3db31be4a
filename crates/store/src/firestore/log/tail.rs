//! The end of the log as this process knows it, so that a read costs two small queries and not the last seconds again.
//!
//! A slow commit's document may appear among documents that the service received before ([`super::follow`]). So a read
//! asks for the documents since the newest known one, and for the *number* of documents in the seconds before. If that
//! number equals the known documents, none is missing.

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

/// Documents of the log by the time of receipt and name; `None` stands for a document whose entries were given.
#[derive(Debug)]
struct TailState {
    logs: BTreeMap<(Micros, String), Option<CommitLog>>,
    /// All documents received from this time on are known, as of the last read.
    from: Micros,
    /// The entries of all commits up to this time were given.
    given: Micros,
}

/// The known end of the log; `None` while a call uses it.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Option<TailState>>);

impl Inner {
    /// Documents of commits after `since`, by the known end of the log; `None` if it does not suffice.
    pub(crate) async fn logs_by_tail(&self, since: Micros) -> Result<Option<LogRead>, Fail> {
        let Some(mut known) = self.tail.0.lock().take() else { return Ok(None) };
        let from = since.saturating_sub(LAG_SECS * SEC);
        if known.from > from || known.given > since {
            // Another caller is further back. The known end stays for the follower.
            *self.tail.0.lock() = Some(known);
            return Ok(None);
        }
        let newest = known.logs.last_key_value().map_or(from, |((at, _), _)| *at).max(from);
        let before = known.logs.range((from, String::new())..(newest, String::new())).count() as u64;
        let (found, count) = tokio::try_join!(
            self.client.query(query::log_from(&self.names, newest, None, LOG_DOCUMENTS_MAX)),
            async {
                if newest == from {
                    return Ok((0, Micros::MAX));
                }
                // One more tells that another entry has come.
                self.client.count(query::log_between(&self.names, from, Some(newest)), before + 1).await
            },
        )?;
        let (count, counted_at) = count;
        if before != count || found.documents.len() >= LOG_DOCUMENTS_MAX {
            return Ok(None);
        }
        for document in &found.documents {
            let log = CommitLog::read(document)?;
            known.logs.entry((log.at, log.name.clone())).or_insert(Some(log));
        }
        let read_at = found.read_at.min(counted_at);
        let read = LogRead { logs: known.logs.values().flatten().cloned().collect(), known_to: read_at, read_at };
        self.remember(known);
        Ok(Some(read))
    }

    /// Takes over a complete read. The entries of commits up to `given` were given.
    pub(crate) fn remember_part(&self, read: &LogRead, from: Micros, given: Micros) {
        let logs = read.logs.iter().map(|log| ((log.at, log.name.clone()), Some(log.clone()))).collect();
        self.remember(TailState { logs, from, given });
    }

    fn remember(&self, known: TailState) {
        if known.logs.len() <= TAIL_DOCUMENTS_MAX {
            *self.tail.0.lock() = Some(known);
        }
    }

    /// Forgets the entries of commits up to `to`, which were given, and documents that are old.
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
