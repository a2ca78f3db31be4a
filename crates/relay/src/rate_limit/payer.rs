//! The party that pays for a client's work: a key that nobody can make for free, else the client's address.
//!
//! Source: docs/rules.md, "Rate limits" 2, 10 and 12.

use std::net::{IpAddr, Ipv6Addr};

use nostr_protocol::PublicKey;

/// A range of addresses that pays as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AddressBlock {
    network: IpAddr,
    /// Length of the range's prefix.
    bits: u8,
}

/// The width of a block: each wider block has room for the clients of several narrower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One address of IPv4, or a /64 of IPv6: the network of a household or of a telephone.
    Narrow,
    /// A /56 of IPv6: the networks that a provider gives to one customer.
    Wide,
    /// A /48 of IPv6: the networks of a site.
    Widest,
}

/// Number of narrow blocks whose rates a /56 has.
const WIDE_FACTOR: u32 = 4;
/// Number of narrow blocks whose rates a /48 has.
const WIDEST_FACTOR: u32 = 16;
/// Prefix of the block by which newcomers of IPv4 share, where a map has no room for more buckets.
const COARSE_BITS_V4: u8 = 16;
/// Prefix of the same block of IPv6.
const COARSE_BITS_V6: u8 = 32;

impl Width {
    /// Number of narrow blocks whose rates a block of this width has.
    pub(crate) const fn factor(self) -> u32 {
        match self {
            Self::Narrow => 1,
            Self::Wide => WIDE_FACTOR,
            Self::Widest => WIDEST_FACTOR,
        }
    }
}

impl AddressBlock {
    /// The narrow block of an address. An IPv6 address that stands for one of IPv4 is that one.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self { network: address, bits: 32 },
            address @ IpAddr::V6(_) => Self::cut(address, 64),
        }
    }

    /// The block and the wider ones around it, all of which pay at once.
    pub(crate) fn all(self) -> impl Iterator<Item = (Width, Self)> + Clone {
        let wider = [(Width::Wide, 56), (Width::Widest, 48)];
        let wider = wider.into_iter().filter(move |_| self.network.is_ipv6());
        let wider = wider.map(move |(width, bits)| (width, Self::cut(self.network, bits)));
        std::iter::once((Width::Narrow, self)).chain(wider)
    }

    /// The widest block that pays: the address of IPv4, the /48 of IPv6. Turns are shared by it, so that a site has one
    /// turn however many networks it has.
    pub(crate) fn widest(self) -> Self {
        if self.network.is_ipv6() { Self::cut(self.network, 48) } else { self }
    }

    /// The block by which newcomers share where a map has no room for more buckets.
    pub(super) fn coarse(self) -> Self {
        Self::cut(self.network, if self.network.is_ipv6() { COARSE_BITS_V6 } else { COARSE_BITS_V4 })
    }

    /// The block of the first `bits` of an address.
    fn cut(address: IpAddr, bits: u8) -> Self {
        let network = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Self { network, bits }
    }
}

/// The party that pays for a connection's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Payer {
    /// A key that nobody can make for free, which pays alone, from every address.
    Key(PublicKey),
    /// The address, for everybody else.
    Address(AddressBlock),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: &str) -> AddressBlock {
        AddressBlock::of(address.parse().expect("an address"))
    }

    #[test]
    fn an_address_of_ipv4_is_a_block_of_its_own() {
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
        assert_eq!(block("::ffff:192.0.2.1"), block("192.0.2.1"));
        assert_eq!(block("192.0.2.1").all().count(), 1);
        assert_eq!(block("192.0.2.1").widest(), block("192.0.2.1"));
        assert_eq!(block("192.0.2.1").coarse(), block("192.0.9.9").coarse());
        assert_ne!(block("192.0.2.1").coarse(), block("192.1.2.1").coarse());
    }

    #[test]
    fn an_address_of_ipv6_is_in_three_blocks() {
        let at =
            |address: &str, width: Width| block(address).all().find(|(it, _)| *it == width).map(|(_, block)| block);
        for (width, same, other) in [
            (Width::Narrow, "2001:db8:1:1203::9", "2001:db8:1:1204::1"),
            (Width::Wide, "2001:db8:1:12ff::1", "2001:db8:1:1303::1"),
            (Width::Widest, "2001:db8:1:ffff::1", "2001:db8:2:1203::1"),
        ] {
            assert_eq!(at("2001:db8:1:1203::1", width), at(same, width), "{width:?}");
            assert_ne!(at("2001:db8:1:1203::1", width), at(other, width), "{width:?}");
        }
        assert_eq!(block("2001:db8:1:1203::1").widest(), block("2001:db8:1:ffff::1").widest());
        assert_eq!(block("2001:db8:1::1").coarse(), block("2001:db8:ffff::1").coarse());
    }
}
