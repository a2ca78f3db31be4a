//! Addresses of other relays, and those that are not dialled.
//!
//! A list of relays is a client's text: without a check it would have the relay connect to services of its own network.
//! The check is made of the address that is dialled, after the name was looked up, so that no name leads around it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    time::{Duration, Instant},
};

/// Longest time after which the answer to a look-up of a name still counts, in seconds.
const LOOK_UP_SECS_MAX: u64 = 5;
/// Most bytes of a relay's URL.
const URL_BYTES_MAX: usize = 1_024;
/// Most addresses of a host that are dialled.
pub(super) const ADDRESSES_MAX: usize = 2;

/// A relay to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) url: String,
    /// The host without brackets and without a dot at its end, in lower case.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_secure: bool,
    /// Scheme, host and port, which tell one server from another.
    pub(super) origin: String,
}

impl Target {
    /// Reads a `ws` or `wss` URL without a user's name.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let url = url.trim();
        if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = url.split_once("://")?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return None;
        }
        let default_port = if is_secure { 443 } else { 80 };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, port.strip_prefix(':'))
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let origin = format!("{}://{host}:{port}", if is_secure { "wss" } else { "ws" });
        (!host.is_empty() && port != 0).then(|| Self { url: url.to_owned(), host, port, is_secure, origin })
    }

    /// The last two labels of the host's name: whoever has a domain has all names under it.
    pub(super) fn site(&self) -> &str {
        let mut dots = self.host.rmatch_indices('.').skip(1);
        dots.next().map_or(&self.host, |(dot, _)| &self.host[dot + 1..])
    }

    /// The addresses of the host that may be dialled. Ends when the system's look-up ends, also if that is too late, so
    /// that the caller counts each look-up for as long as it takes up a thread.
    ///
    /// # Errors
    /// In words, if the name is not known, or leads to no address that may be dialled.
    pub(super) async fn resolve(&self, allows_private: bool) -> Result<Vec<SocketAddr>, String> {
        let (name, port, begun) = (self.host.clone(), self.port, Instant::now());
        let looking = tokio::task::spawn_blocking(move || (name.as_str(), port).to_socket_addrs());
        let found = looking.await.map_err(|error| error.to_string())?;
        if begun.elapsed() > Duration::from_secs(LOOK_UP_SECS_MAX) {
            return Err("its name was not looked up in time".to_owned());
        }
        let found = found.map_err(|error| format!("its name is not known: {error}"))?;
        let mut addresses: Vec<SocketAddr> = found.filter(|it| allows_private || is_public(it.ip())).collect();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() { Err("its name leads to no public address".to_owned()) } else { Ok(addresses) }
    }
}

/// A network, an address of IPv4 or a /48 of IPv6, and a port there.
pub(super) type Network = (IpAddr, u16);

/// The network whose share a connection to this address takes. A name that leads to somebody else's machine takes no
/// share of that machine's other ports.
pub(super) fn network(address: &SocketAddr) -> Network {
    let network = match address.ip().to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
        address => address,
    };
    (network, address.port())
}

/// Whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            let segments = address.segments();
            // Addresses that carry one of IPv4: mapped, translated (NAT64) and 6to4.
            let inner = match segments {
                [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x2002, a, b, ..] => Some((a, b)),
                _ => None,
            };
            if let Some((a, b)) = inner {
                let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
                return is_public_v4(Ipv4Addr::new(a, b, c, d));
            }
            // All that is handed out lies in 2000::/3; within it are places for documents and experiments.
            segments[0] & 0xe000 == 0x2000
                && !matches!(segments, [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..])
                && !matches!(segments, [0x2001, 0..=0x1ff, ..])
        }
    }
}

const fn is_public_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || octets[0] == 0
        || octets[0] >= 240
        || matches!(octets, [100, 64..=127, ..] | [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_relays_are_read() {
        let of = |url: &str| Target::parse(url).map(|it| (it.host, it.port, it.is_secure));
        assert_eq!(of("wss://Relay.Example"), Some(("relay.example".to_owned(), 443, true)));
        assert_eq!(of("ws://relay.example:8080/path"), Some(("relay.example".to_owned(), 8080, false)));
        assert_eq!(of("wss://[2606:4700::1]:444/"), Some(("2606:4700::1".to_owned(), 444, true)));
        assert_eq!(of("wss://relay.example."), of("wss://relay.example"));
        let long = format!("wss://{}", "a".repeat(2_000));
        for bad in [
            "",
            "relay.example",
            "http://a",
            "wss://",
            "wss://a@b",
            "wss://a:0",
            "wss://a:x",
            "wss://[a]",
            "wss://a b",
            "wss://a\u{0}",
            &long,
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_domain_and_a_network_hold_all_that_their_owner_can_make() {
        let site = |url: &str| Target::parse(url).expect("a target").site().to_owned();
        assert_eq!(site("wss://a.b.example.org"), "example.org");
        assert_eq!(site("wss://example.org"), "example.org");
        assert_eq!(site("wss://localhost"), "localhost");
        let network = |address: &str| {
            let (network, port) = network(&address.parse().expect("an address"));
            format!("{network} {port}")
        };
        assert_eq!(network("[::ffff:1.2.3.4]:80"), "1.2.3.4 80");
        assert_eq!(network("1.2.3.4:443"), "1.2.3.4 443");
        assert_eq!(network("[2001:4860:1:2::3]:80"), "2001:4860:1:: 80");
    }

    #[test]
    fn addresses_of_ones_own_network_are_not_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "240.0.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:0:1::",
            "::127.0.0.1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(address.parse().expect("an address")), "{address}");
        }
        for address in
            ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(is_public(address.parse().expect("an address")), "{address}");
        }
    }
}
