//! The client's address that a connection counts for.
//!
//! Source: docs/rules.md, "Rate limits" 10: the peer's, or the right-most untrusted one of X-Forwarded-For when the
//! peer is trusted.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The client's address: `peer`, or the one that the trusted hops in front of the relay name.
///
/// `forwarded_for` are the request's X-Forwarded-For headers in their order. Each hop writes the address that it saw at
/// the end, so everything left of the right-most untrusted address may be invented. On Cloud Run (`peer_is_trusted`)
/// the peer is the front end, and trusted by any address.
pub(crate) fn client_address<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    trusted_proxies: &[IpNet],
    peer_is_trusted: bool,
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted_proxies.iter().any(|range| range.contains(&address));
    let mut client = peer.to_canonical();
    if !peer_is_trusted && !is_trusted(client) {
        return client;
    }
    for hop in forwarded_for.rev().flat_map(|header| header.rsplit(',')) {
        // A trusted hop writes an address, so anything else ends the chain of trust.
        let Some(address) = parse(hop.trim()) else { break };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// An address, with or without a port, IPv6 in brackets or without.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[&str], trusted: &[&str], peer_is_trusted: bool) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|range| range.parse().expect("a range")).collect();
        let peer = peer.parse().expect("an address");
        client_address(peer, headers.iter().copied(), &trusted, peer_is_trusted).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("203.0.113.5", &["198.51.100.1"], &[], false), "203.0.113.5");
        assert_eq!(client("203.0.113.5", &["198.51.100.1"], &["10.0.0.0/8"], false), "203.0.113.5");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.1, 10.0.0.2"], &trusted, false), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["6.6.6.6", "198.51.100.1,10.0.0.2"], &trusted, false), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &trusted, false), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[], &trusted, false), "10.0.0.1");
    }

    #[test]
    fn on_cloud_run_the_last_hop_is_believed() {
        assert_eq!(client("169.254.1.1", &["6.6.6.6, 198.51.100.1"], &[], true), "198.51.100.1");
        assert_eq!(client("169.254.1.1", &["198.51.100.1, 35.191.0.1"], &["35.191.0.0/16"], true), "198.51.100.1");
    }

    #[test]
    fn ports_and_brackets_are_read_and_nonsense_ends_the_chain() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &["198.51.100.1:4711"], &trusted, false), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"], &trusted, false), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"], &trusted, false), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], &trusted, false), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""], &trusted, false), "10.0.0.1");
    }
}
