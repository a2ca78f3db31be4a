//! The rules by which events and records are stored, once for every store but the oracle.
//!
//! [`event::Decider`] decides. It looks up what is stored and applies its changes through [`lookup::Lookup`] and
//! [`lookup::Apply`]. The embedded store answers and writes in its open transaction. A store that many processes share
//! saves a batch in three steps, under whatever keeps others from changing the same things meanwhile:
//!
//! 1. [`facts::Wanted`] says which facts deciding takes, and the store loads them as [`facts::Facts`].
//! 2. [`batch::decide`] decides the batch on the facts, and collects the changes.
//! 3. The store writes the changes.
//!
//! Records of an export go the same way, by [`Wanted::by_records`](facts::Wanted::by_records) and [`restore::decide`].

pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod claim;
mod collect;
pub(crate) mod event;
pub(crate) mod facts;
mod group;
pub(crate) mod hiding;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod lookup;
pub(crate) mod receipt;
mod removal;
pub(crate) mod restore;
pub(crate) mod service;
pub(crate) mod stock;

use std::convert::Infallible;

use nostr_extensions::{Audience, Query};
use nostr_protocol::{EventRef, Kind};
use sha2::{Digest as _, Sha256};

use crate::{
    Part,
    index::{each_prefix, prefix},
    plan::{Plan, Planned},
};

/// Seconds for which an ephemeral event stays in the log for other processes.
pub(crate) const EPHEMERAL_SECS: u64 = 60;

/// Flag of a deletion that names an event that is not public, and is for its author alone.
pub(crate) const AUTHOR_ONLY: i16 = 1;
/// Flag of an event in the log that feeds live delivery, which no query finds.
pub(crate) const LOG_ONLY: i16 = 2;
/// Flag of an event that touched groups which its kind does not name. The store says beside it which; where it does
/// not, followers of the log forget every group.
pub(crate) const TOUCHES_GROUPS: i16 = 4;
/// Flag of a commit, which stays when the key that signed it vanishes, for reads that leave the content out.
pub(crate) const COMMIT: i16 = 16;
/// Flag of an event that is in the log for [`EPHEMERAL_SECS`] and is not stored.
pub(crate) const EPHEMERAL: i16 = 8;

/// Kind of a log entry without an event. Nobody can publish this kind, so no subscription waits for it.
pub(crate) const MARK_KIND: Kind = Kind::AUTH;

/// A number for a prefix of the index, so that all prefixes have one short form. A query of one of two prefixes that
/// share a number also looks at the events of the other.
pub(crate) fn number_of(prefix: &[u8]) -> i64 {
    let digest = Sha256::digest(prefix);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// The numbers of all prefixes under which an event is found, each once.
pub(crate) fn prefixes(event: EventRef<'_>, audience: &Audience) -> Vec<i64> {
    let mut numbers = Vec::new();
    let Ok(()) = each_prefix(event, audience, |prefix| {
        numbers.push(number_of(&prefix));
        Ok::<(), Infallible>(())
    });
    if *audience == Audience::Everyone {
        numbers.push(number_of(&prefix::author(&event.pubkey())));
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Numbers of prefixes under which all events lie that fit the query and lie in the part.
pub(crate) fn plan(query: &Query, part: Part) -> Vec<i64> {
    let numbers = Plan::of(query).places(part).map(|place| match place {
        Planned::Range(prefix) => number_of(&prefix),
        Planned::Author(author) => number_of(&prefix::author(author)),
    });
    let mut numbers: Vec<i64> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
