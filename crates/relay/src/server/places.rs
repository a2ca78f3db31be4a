//! Places for the connections of each address, so that one address leaves room for the others.
//!
//! Source: docs/rules.md, "Rate limits" 9.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::rate_limit::{AddressBlock, Width};

/// Number of addresses whose places a /48 of IPv6 has.
const WIDEST_FACTOR: u32 = 4;

/// The connections that are open, by the blocks of their addresses. The map has at most two entries a connection.
#[derive(Debug)]
pub(super) struct Places {
    /// Most connections of one address of IPv4, or of a /64; 0 means no limit.
    address_max: u32,
    taken: Mutex<HashMap<AddressBlock, u32>>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    block: AddressBlock,
}

impl Places {
    /// Places for at most `address_max` connections of one address; 0 means no limit.
    pub(super) fn new(address_max: u32) -> Arc<Self> {
        Arc::new(Self { address_max, taken: Mutex::default() })
    }

    /// Takes a place; `None` where the address, or the /48 around it, has none left.
    pub(super) fn take(self: &Arc<Self>, block: AddressBlock) -> Option<Place> {
        let mut taken = self.taken.lock();
        let has_room = |(block, max)| taken.get(&block).copied().unwrap_or(0) < max;
        if self.address_max > 0 && !self.bounded(block).all(has_room) {
            return None;
        }
        for (block, _) in self.bounded(block) {
            *taken.entry(block).or_default() += 1;
        }
        drop(taken);
        Some(Place { places: Arc::clone(self), block })
    }

    /// The blocks of an address that have a bound, each with its bound.
    fn bounded(&self, block: AddressBlock) -> impl Iterator<Item = (AddressBlock, u32)> {
        let address_max = self.address_max;
        block.all().filter_map(move |(width, block)| match width {
            Width::Narrow => Some((block, address_max)),
            Width::Wide => None,
            Width::Widest => Some((block, address_max.saturating_mul(WIDEST_FACTOR))),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        for (block, _) in self.places.bounded(self.block) {
            if let Some(count) = taken.get_mut(&block) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(&block);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: &str) -> AddressBlock {
        AddressBlock::of(address.parse().expect("an address"))
    }

    #[test]
    fn an_address_has_so_many_places() {
        let places = Places::new(2);
        let mut held: Vec<_> = (0..2).map(|_| places.take(block("192.0.2.1")).expect("a place")).collect();
        assert!(places.take(block("192.0.2.1")).is_none());
        assert!(places.take(block("192.0.2.2")).is_some(), "another address");
        held.pop();
        held.push(places.take(block("192.0.2.1")).expect("its place is free again"));
        held.clear();
        assert!(places.taken.lock().is_empty(), "nothing is kept of an address without connections");
    }

    #[test]
    fn a_48_has_the_places_of_four_addresses() {
        let places = Places::new(2);
        let address = |n: u16| block(&format!("2001:db8:1:{n:x}::1"));
        let held: Vec<_> = (0..9).filter_map(|n| places.take(address(n))).collect();
        assert_eq!(held.len(), 8);
        assert!(places.take(block("2001:db8:2::1")).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let places = Places::new(0);
        let held: Vec<_> = (0..5_000).filter_map(|_| places.take(block("192.0.2.1"))).collect();
        assert_eq!(held.len(), 5_000);
    }
}
