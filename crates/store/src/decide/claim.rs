//! Which KeyPackages a claim takes.
//!
//! Source: decisions, "KeyPackages" 1 and 4.

use std::collections::HashSet;

use nostr_protocol::EventId;

use crate::Cursor;

/// One KeyPackage event of an owner.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) cursor: Cursor,
    pub(crate) id: EventId,
    pub(crate) content_hash: [u8; 32],
    pub(crate) last_resort: bool,
}

/// What a claim comes to.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// The events that are given, in their order.
    pub(crate) given: Vec<Cursor>,
    /// The hashes of what is used up.
    pub(crate) used: Vec<[u8; 32]>,
    /// The events that go: what is used up, with its twins.
    pub(crate) gone: Vec<(Cursor, EventId)>,
}

/// Takes up to `packages_max` of what an owner has, which is all that has not expired, oldest first: twins count once,
/// what is of last resort comes after all that is not and stays, and so does the last one left.
pub(crate) fn claim(owned: &[Owned], packages_max: usize) -> Claim {
    let mut contents = HashSet::new();
    let mut distinct: Vec<&Owned> = owned.iter().filter(|it| contents.insert(it.content_hash)).collect();
    let mut left = distinct.len();
    distinct.sort_by_key(|it| it.last_resort);
    let mut claim = Claim::default();
    for package in distinct.into_iter().take(packages_max) {
        claim.given.push(package.cursor);
        if package.last_resort || left == 1 {
            continue;
        }
        left -= 1;
        claim.used.push(package.content_hash);
        let twins = owned.iter().filter(|twin| twin.content_hash == package.content_hash);
        claim.gone.extend(twins.map(|twin| (twin.cursor, twin.id)));
    }
    claim
}
