//! The rule by which a claim takes KeyPackages, in every store but the oracle.
//!
//! Source: docs/rules.md, "KeyPackages" 1 and "Consumption on read".

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

/// The outcome of a claim.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// The events that are given, in their order.
    pub(crate) given: Vec<Cursor>,
    /// The content hashes of the KeyPackages that are used up.
    pub(crate) used: Vec<[u8; 32]>,
    /// The events that are removed: all of the owner's events with the bytes of a KeyPackage that is used up.
    pub(crate) gone: Vec<(Cursor, EventId)>,
}

/// Takes up to `packages_max` of an owner's KeyPackages. `owned` holds them oldest first, without expired ones. Events
/// with the same bytes (twins) count once. A KeyPackage of last resort comes after all others and stays, and so does
/// the last one left.
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
