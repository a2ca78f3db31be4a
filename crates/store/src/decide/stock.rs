//! The rule by which a KeyPackage enters its owner's stock, in every store but the oracle.
//!
//! Source: docs/rules.md, "KeyPackages" 1, 7 and 8. Anyone who kept a signed KeyPackage may publish it again, so the
//! order of the stock is the one that its owner signed, and never the order of receipt: what is sent again is old, and
//! pushes out nothing that is newer.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap};

use nostr_extensions::mls_gateway::{group::Refusal, key_package::DirectoryEntry};
use nostr_protocol::{EventId, UnixSecs};

use super::lookup::{OWNED_MAX, OwnedPackage};

/// Most KeyPackages of last resort that an owner keeps.
pub(crate) const LAST_RESORT_MAX: usize = 32;
/// Most events that hold the bytes of one KeyPackage.
pub(crate) const TWINS_MAX: usize = 8;
/// Most KeyPackages of an owner, those of last resort not counted, that a relay may let it keep: with those, and all
/// their twins, a decision still sees every event that the owner has.
pub const KEY_PACKAGES_KEPT_MAX: usize = OWNED_MAX / TWINS_MAX - LAST_RESORT_MAX;
/// Most KeyPackages that give way to one. There are more only where the operator lowered the bound, and the next ones
/// go on.
const LEAVING_MAX: usize = 32;

/// The place of an event among its owner's: the oldest has the lowest. NIP-01's order, backwards.
pub(crate) type Rank = (UnixSecs, Reverse<EventId>);

/// The events that give way to a KeyPackage.
#[derive(Debug)]
pub(super) struct GivingWay<A> {
    pub(super) events: Vec<OwnedPackage<A>>,
    /// The content hashes of those of last resort among them. They may have been given, so they never come back.
    pub(super) spent: Vec<[u8; 32]>,
}

/// The line of the directory for a KeyPackage. A twin of one that was given as the owner's last is of last resort too.
pub(super) fn line_of<'e, A>(entry: &'e DirectoryEntry, owned: &[OwnedPackage<A>]) -> Cow<'e, DirectoryEntry> {
    let mut twins = owned.iter().filter(|it| it.content_hash == entry.content_hash);
    if entry.last_resort || !twins.any(|twin| twin.last_resort) {
        return Cow::Borrowed(entry);
    }
    Cow::Owned(DirectoryEntry { last_resort: true, ..entry.clone() })
}

/// The events that give way to the KeyPackage of `entry`, whose event has this rank, among those of its owner.
///
/// # Errors
/// [`Refusal::StockIsNewer`] if as many as are kept are newer.
pub(super) fn make_room<A: Copy>(
    entry: &DirectoryEntry,
    rank: Rank,
    owned: &[OwnedPackage<A>],
    kept_max: usize,
) -> Result<GivingWay<A>, Refusal> {
    let twins: Vec<&OwnedPackage<A>> = owned.iter().filter(|it| it.content_hash == entry.content_hash).collect();
    if !twins.is_empty() {
        let ranked = twins.iter().map(|it| (it.rank(), **it)).collect();
        return Ok(GivingWay { events: giving_way(ranked, rank, TWINS_MAX)?, spent: Vec::new() });
    }
    // The newest event of a KeyPackage says how old the KeyPackage is.
    let mut ranks: HashMap<[u8; 32], Rank> = HashMap::new();
    for package in owned.iter().filter(|it| it.last_resort == entry.last_resort) {
        let newest = ranks.entry(package.content_hash).or_insert_with(|| package.rank());
        *newest = package.rank().max(*newest);
    }
    let most = if entry.last_resort { LAST_RESORT_MAX } else { kept_max };
    let ranked = ranks.into_iter().map(|(content_hash, rank)| (rank, content_hash)).collect();
    let gone = giving_way(ranked, rank, most)?;
    let events = owned.iter().filter(|it| gone.contains(&it.content_hash)).copied().collect();
    Ok(GivingWay { events, spent: if entry.last_resort { gone } else { Vec::new() } })
}

/// The oldest, which give way to a new one of this rank, so that `most` stay with it.
fn giving_way<T>(mut ranked: Vec<(Rank, T)>, new: Rank, most: usize) -> Result<Vec<T>, Refusal> {
    let most = most.max(1);
    if ranked.iter().filter(|(rank, _)| *rank > new).count() >= most {
        return Err(Refusal::StockIsNewer);
    }
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    let too_many = (ranked.len() + 1).saturating_sub(most);
    Ok(ranked.into_iter().take(too_many.min(LEAVING_MAX)).map(|(_, it)| it).collect())
}
