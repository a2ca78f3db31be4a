//! KeyPackages of late whose bytes or tags were at fault, for the operator: in memory, on this instance.
//!
//! A fault is noted once the signature holds, so that nobody fills the list in another key's name.

use std::collections::VecDeque;

use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};
use parking_lot::Mutex;
use serde::Serialize;

use super::door::Operator;
use crate::rest::{Answer, Problem};

/// KeyPackages that are remembered, the newest ones.
const REFUSED_MAX: usize = 200;
/// Most of one owner's, so that one key does not push out all others.
const REFUSED_OF_OWNER_MAX: usize = 10;
/// Most bytes of a fault.
const FAULT_BYTES_MAX: usize = 256;

struct Noted {
    at: UnixSecs,
    owner: PublicKey,
    id: EventId,
    reason: String,
    is_refused: bool,
}

/// See the module. The oldest comes first.
#[derive(Default)]
pub(crate) struct RefusedPackages(Mutex<VecDeque<Noted>>);

impl RefusedPackages {
    /// Notes a fault of a KeyPackage, and whether the relay refused it for the fault.
    pub(crate) fn note(&self, event: &Event, fault: &str, is_refused: bool, at: UnixSecs) {
        let (owner, id) = (event.pubkey(), event.id());
        let reason = fault[..fault.floor_char_boundary(FAULT_BYTES_MAX)].to_owned();
        let mut noted = self.0.lock();
        // The same event, sent again, is one.
        noted.retain(|it| it.id != id);
        if noted.iter().filter(|it| it.owner == owner).count() >= REFUSED_OF_OWNER_MAX
            && let Some(oldest) = noted.iter().position(|it| it.owner == owner)
        {
            noted.remove(oldest);
        }
        if noted.len() >= REFUSED_MAX {
            noted.pop_front();
        }
        noted.push_back(Noted { at, owner, id, reason, is_refused });
    }
}

#[derive(Serialize)]
struct RefusedAnswer {
    /// The newest first.
    refused: Vec<RefusedEntry>,
}

#[derive(Serialize)]
struct RefusedEntry {
    /// Unix seconds.
    at: UnixSecs,
    owner: String,
    npub: String,
    event_id: String,
    reason: String,
    /// False for a fault that was let pass (`verify_keypackages = "log"`).
    refused: bool,
}

/// The faults of KeyPackages that this instance saw.
pub(super) async fn refused(Operator(visit): Operator) -> Result<Answer, Problem> {
    let entry = |it: &Noted| RefusedEntry {
        at: it.at,
        owner: it.owner.to_hex(),
        npub: it.owner.to_npub(),
        event_id: it.id.to_hex(),
        reason: it.reason.clone(),
        refused: it.is_refused,
    };
    let refused: Vec<RefusedEntry> = visit.app().console.refused.0.lock().iter().rev().map(entry).collect();
    visit.holding().grow(refused.len() * (size_of::<RefusedEntry>() + FAULT_BYTES_MAX));
    Answer::json(&visit, &RefusedAnswer { refused }).await
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    #[test]
    fn the_newest_are_kept_and_one_owner_pushes_nobody_out() {
        let refused = RefusedPackages::default();
        let note = |owner: &str, n: usize| {
            let event = EventBuilder::new(443).content(n.to_string()).event(&keypair(owner));
            refused.note(&event, &"ü".repeat(FAULT_BYTES_MAX), true, n as u64);
        };
        note("bob", 0);
        for n in 0..3 * REFUSED_MAX {
            note("alice", n);
        }
        note("alice", 3 * REFUSED_MAX - 1);
        let noted = refused.0.lock();
        assert_eq!(noted.len(), 1 + REFUSED_OF_OWNER_MAX);
        assert!(noted.iter().all(|it| it.reason.len() <= FAULT_BYTES_MAX));
        assert_eq!((noted[0].at, noted[10].at), (0, 3 * REFUSED_MAX as u64 - 1));
        drop(noted);
        for n in 0..2 * REFUSED_MAX {
            note(&format!("owner {n}"), n);
        }
        assert_eq!(refused.0.lock().len(), REFUSED_MAX);
    }
}
