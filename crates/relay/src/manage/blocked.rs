//! Addresses whose clients are refused.
//!
//! Source: docs/rules.md, "Management" 7. A client of IPv6 has a network of 64 bits and uses any address in it, so the
//! network stands for the client.

use std::{collections::HashSet, fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most bits that a range of IPv6 has.
const CLIENT_BITS: u8 = 64;
/// Bits before the address of IPv4 in a mapped one.
const MAPPED_BITS: u8 = 96;

/// An address or a range, as an admin blocks it: an address of IPv4, or the network of a client of IPv6, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange(IpNet);

impl FromStr for AddressRange {
    type Err = String;

    /// Widens an address of IPv6, and a range of fewer addresses, to its 64 bits. An address of IPv4 that is written as
    /// one of IPv6 is one of IPv4, and so is a range.
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        let range: IpNet = address
            .or_else(|_| text.parse())
            .map_err(|_| "not an address or a range; write 192.0.2.1, or 2001:db8::/48".to_owned())?;
        let range = match range {
            IpNet::V4(range) => Some(IpNet::V4(range)),
            IpNet::V6(range) => match range.addr().to_ipv4_mapped() {
                Some(mapped) if range.prefix_len() >= MAPPED_BITS => {
                    Ipv4Net::new(mapped, range.prefix_len() - MAPPED_BITS).ok().map(IpNet::V4)
                }
                _ => network(range.addr().into(), range.prefix_len()),
            },
        };
        range.map(|range| Self(range.trunc())).ok_or_else(|| "this range has too many bits".to_owned())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AddressRange {
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether this is one client and no larger range.
    pub(super) const fn is_one_client(&self) -> bool {
        match self.0 {
            IpNet::V4(range) => range.prefix_len() == range.max_prefix_len(),
            IpNet::V6(range) => range.prefix_len() == CLIENT_BITS,
        }
    }
}

/// The network of an address, of at most [`CLIENT_BITS`].
fn network(address: IpAddr, bits: u8) -> Option<IpNet> {
    match address {
        IpAddr::V4(_) => Some(IpNet::from(address)),
        IpAddr::V6(address) => Ipv6Net::new(address, bits.min(CLIENT_BITS)).ok().map(|range| IpNet::V6(range.trunc())),
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocked {
    clients: HashSet<IpNet>,
    ranges: Vec<AddressRange>,
}

impl FromIterator<AddressRange> for Blocked {
    fn from_iter<T: IntoIterator<Item = AddressRange>>(all: T) -> Self {
        let mut blocked = Self::default();
        for range in all {
            if range.is_one_client() {
                blocked.clients.insert(range.0);
            } else {
                blocked.ranges.push(range);
            }
        }
        blocked
    }
}

impl Blocked {
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let client = network(address.to_canonical(), CLIENT_BITS);
        client.is_some_and(|client| self.clients.contains(&client)) || self.ranges.iter().any(|it| it.holds(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> String {
        text.parse::<AddressRange>().expect("a range").to_string()
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        for text in ["2001:db8:0:7::1", "2001:db8:0:7:a:b:c:d/128", "2001:db8:0:7::/80", "2001:db8:0:7::1/64"] {
            assert_eq!(range(text), "2001:db8:0:7::/64", "{text}");
        }
        assert_eq!(range("2001:db8:1:7::1/48"), "2001:db8:1::/48");
    }

    #[test]
    fn a_mapped_address_is_one_of_ipv4() {
        assert_eq!(range("::ffff:192.0.2.1"), "192.0.2.1/32");
        assert_eq!(range("::ffff:192.0.2.1/128"), "192.0.2.1/32");
        assert_eq!(range("::ffff:192.0.2.0/120"), "192.0.2.0/24");
        assert_eq!(range("::ffff:0.0.0.0/96"), "0.0.0.0/0");
        assert_eq!(range("192.0.2.9/24"), "192.0.2.0/24");
        for text in ["", "example.com", "192.0.2.0/33", "2001:db8::/129"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn clients_and_ranges_are_blocked() {
        let all = ["192.0.2.1", "::ffff:198.51.100.0/120", "2001:db8::1", "2001:db8:7::/48"];
        let blocked: Blocked = all.iter().map(|it| it.parse::<AddressRange>().expect("a range")).collect();
        let holds = |address: &str| blocked.holds(address.parse().expect("an address"));
        for held in ["192.0.2.1", "::ffff:192.0.2.1", "198.51.100.77", "2001:db8::ffff:1", "2001:db8:7:8::9"] {
            assert!(holds(held), "{held}");
        }
        for free in ["192.0.2.2", "198.51.101.1", "2001:db8:0:1::1", "2001:db8:8::1"] {
            assert!(!holds(free), "{free}");
        }
    }
}
