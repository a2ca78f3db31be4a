//! What stores have in common that many processes share.
//!
//! Such a store saves a batch in three steps, under whatever keeps others from changing the same things meanwhile:
//! [`facts::Wanted`] says what has to be known, the store loads it as [`facts::Facts`], and [`batch::decide`] says what
//! becomes of each event and what is to be written. The rules stand there, once; a store only reads and writes. Records
//! of an export go in the same way, by [`Wanted::by_records`](facts::Wanted::by_records) and [`restore::decide`].

pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod claim;
pub(crate) mod facts;
pub(crate) mod hiding;
pub(crate) mod restore;

use std::convert::Infallible;

use nostr_extensions::{Audience, Query};
use nostr_protocol::{EventRef, Kind};
use sha2::{Digest as _, Sha256};

use crate::index::{self, each_prefix, prefix};

/// How long an ephemeral event stays in the log for other processes.
pub(crate) const EPHEMERAL_SECS: u64 = 60;

/// A deletion that names what is not public.
pub(crate) const AUTHOR_ONLY: i16 = 1;
/// In the log that feeds live delivery, and found by no query.
pub(crate) const LOG_ONLY: i16 = 2;
/// It took events out of the log that had changed groups, so that whoever follows the log has to forget every group.
pub(crate) const TOUCHES_GROUPS: i16 = 4;
/// In the log for [`EPHEMERAL_SECS`], and stored for nobody.
pub(crate) const EPHEMERAL: i16 = 8;

/// The kind that an entry of the log without an event is given: nobody publishes it, so nobody waits for it.
pub(crate) const MARK_KIND: Kind = Kind::AUTH;

/// A prefix of the index as a number, so that all have one short form. Prefixes that share one cost a look at events
/// that do not fit.
pub(crate) fn number_of(prefix: &[u8]) -> i64 {
    let digest = Sha256::digest(prefix);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// The numbers of all prefixes under which an event is found, each once.
pub(crate) fn prefixes(event: EventRef<'_>, audience: &Audience) -> Vec<i64> {
    let mut numbers = Vec::new();
    let all = each_prefix(event, audience, |prefix| {
        numbers.push(number_of(&prefix));
        Ok::<(), Infallible>(())
    });
    match all {
        Ok(()) => {}
        Err(never) => match never {},
    }
    if *audience == Audience::Everyone {
        numbers.push(number_of(&prefix::author(&event.pubkey())));
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The numbers of the prefixes under one of which every event lies that fits the query.
pub(crate) fn plan(query: &Query) -> Vec<i64> {
    let planned = index::plan(query, |author, ranges_max, ranges| {
        let fits = ranges.len() < ranges_max;
        ranges.push(prefix::author(author));
        Ok::<bool, Infallible>(fits)
    });
    let mut numbers: Vec<i64> = match planned {
        Ok(ranges) => ranges.iter().map(|range| number_of(range)).collect(),
        Err(never) => match never {},
    };
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
