//! The hosts of other relays, by origin and by network: the connections that each has, and its pause after a failure.
//!
//! Anyone may name a host in a list, also somebody else's with a port on which nothing listens. So a pause holds for
//! one origin: scheme, host and port. Each has one connection at one time, all that lead to one port of a network share
//! a few, and the look-ups under one domain follow one another: a machine with a thousand names takes up as much as one
//! with a single name.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::address::{Network, Target, network};

/// Most hosts that are remembered; each further one takes the place of the host whose pause ends first.
pub(super) const HOSTS_MAX: usize = 1_024;
/// Most connections to other relays at one time.
pub(super) const CONNECTIONS_MAX: usize = 32;
/// Most connections to one port of a network at one time: of one address of IPv4, or of a /48 of IPv6.
pub(super) const NETWORK_CONNECTIONS_MAX: usize = 2;
/// Most look-ups of names at one time, which are one at most for each domain.
pub(super) const LOOK_UPS_MAX: usize = 16;
/// Time for which the addresses of a host are remembered, in seconds.
const ADDRESSES_SECS: u64 = 60;
/// Pause after the first failure of a host, in seconds; each further one doubles it.
const PAUSE_SECS: u64 = 4;
/// Longest pause after a failure, in seconds.
const PAUSE_SECS_MAX: u64 = 3_600;

#[derive(Debug, Default)]
struct Host {
    is_busy: bool,
    failures: u32,
    until: Option<Instant>,
    addresses: Option<(Vec<SocketAddr>, Instant)>,
}

impl Host {
    fn addresses(&self, now: Instant) -> Option<&[SocketAddr]> {
        let (addresses, found) = self.addresses.as_ref()?;
        (now.saturating_duration_since(*found).as_secs() < ADDRESSES_SECS).then_some(addresses)
    }
}

/// The next step towards a host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    LookUp,
    Connect(Vec<SocketAddr>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_origin: HashMap<String, Host>,
    connections: HashMap<Network, usize>,
    connected: usize,
    looked_up_sites: HashSet<String>,
}

impl Hosts {
    /// The end of the host's pause, if it is still to come.
    pub(super) fn pause(&self, target: &Target, now: Instant) -> Option<Instant> {
        self.by_origin.get(&target.origin)?.until.filter(|until| *until > now)
    }

    /// The failures of the host since it answered the last time.
    pub(super) fn failures(&self, target: &Target) -> u32 {
        self.by_origin.get(&target.origin).map_or(0, |host| host.failures)
    }

    /// The networks that the host's name led into, while that is known.
    pub(super) fn networks(&self, target: &Target, now: Instant) -> impl Iterator<Item = Network> {
        let addresses = self.by_origin.get(&target.origin).and_then(|host| host.addresses(now)).unwrap_or_default();
        addresses.iter().map(network)
    }

    /// Whether the host may be looked up, or connected to, now.
    pub(super) fn is_open(&self, target: &Target, now: Instant) -> bool {
        let host = self.by_origin.get(&target.origin);
        if host.is_some_and(|host| host.is_busy || host.until.is_some_and(|until| until > now)) {
            return false;
        }
        match host.and_then(|host| host.addresses(now)) {
            Some(addresses) => {
                let used = |address: &SocketAddr| self.connections.get(&network(address)).copied().unwrap_or(0);
                self.connected < CONNECTIONS_MAX && addresses.iter().all(|it| used(it) < NETWORK_CONNECTIONS_MAX)
            }
            None => self.looked_up_sites.len() < LOOK_UPS_MAX && !self.looked_up_sites.contains(target.site()),
        }
    }

    /// Begins the next step towards a host that is open.
    pub(super) fn begin(&mut self, target: &Target, now: Instant) -> Step {
        if self.by_origin.len() >= HOSTS_MAX && !self.by_origin.contains_key(&target.origin) {
            let idle = self.by_origin.iter().filter(|(_, host)| !host.is_busy);
            let first = idle.min_by_key(|(_, host)| host.until).map(|(origin, _)| origin.clone());
            first.and_then(|origin| self.by_origin.remove(&origin));
        }
        let host = self.by_origin.entry(target.origin.clone()).or_default();
        host.is_busy = true;
        let Some(addresses) = host.addresses(now).map(<[_]>::to_vec) else {
            self.looked_up_sites.insert(target.site().to_owned());
            return Step::LookUp;
        };
        self.connected += 1;
        for address in &addresses {
            *self.connections.entry(network(address)).or_default() += 1;
        }
        Step::Connect(addresses)
    }

    /// Ends a look-up.
    pub(super) fn looked_up(&mut self, target: &Target, found: Option<Vec<SocketAddr>>, now: Instant) {
        self.looked_up_sites.remove(target.site());
        let Some(host) = self.by_origin.get_mut(&target.origin) else { return };
        host.is_busy = false;
        match found {
            Some(addresses) => host.addresses = Some((addresses, now)),
            None => self.failed(target, now),
        }
    }

    /// Ends a connection to these addresses.
    pub(super) fn ended(&mut self, target: &Target, addresses: &[SocketAddr], answered: bool, now: Instant) {
        self.connected = self.connected.saturating_sub(1);
        for address in addresses {
            let network = network(address);
            if let Some(used) = self.connections.get_mut(&network) {
                *used -= 1;
                if *used == 0 {
                    self.connections.remove(&network);
                }
            }
        }
        if let Some(host) = self.by_origin.get_mut(&target.origin) {
            host.is_busy = false;
            if answered {
                (host.failures, host.until) = (0, None);
                return;
            }
        }
        self.failed(target, now);
    }

    fn failed(&mut self, target: &Target, now: Instant) {
        if let Some(host) = self.by_origin.get_mut(&target.origin) {
            let secs = (PAUSE_SECS << host.failures.min(16)).min(PAUSE_SECS_MAX);
            host.failures = host.failures.saturating_add(1);
            host.until = now.checked_add(Duration::from_secs(secs));
            host.addresses = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str) -> Target {
        Target::parse(&format!("ws://{host}:80")).expect("a target")
    }

    fn at(address: &str) -> Vec<SocketAddr> {
        vec![SocketAddr::new(address.parse().expect("an address"), 80)]
    }

    /// Looks the host up, and connects if it is open then.
    fn connect(hosts: &mut Hosts, host: &str, address: &str, now: Instant) -> bool {
        let target = target(host);
        assert_eq!(hosts.begin(&target, now), Step::LookUp);
        hosts.looked_up(&target, Some(at(address)), now);
        hosts.is_open(&target, now) && hosts.begin(&target, now) == Step::Connect(at(address))
    }

    #[test]
    fn a_host_has_one_connection_and_rests_after_a_failure() {
        let (mut hosts, now, a) = (Hosts::default(), Instant::now(), target("a"));
        assert!(connect(&mut hosts, "a", "1.1.1.1", now));
        assert!(!hosts.is_open(&a, now) && hosts.is_open(&target("b"), now));
        hosts.ended(&a, &at("1.1.1.1"), true, now);
        assert!(hosts.is_open(&a, now));
        hosts.begin(&a, now);
        hosts.ended(&a, &at("1.1.1.1"), false, now);
        let pause = hosts.pause(&a, now).expect("it rests");
        assert!(!hosts.is_open(&a, now) && hosts.is_open(&a, pause));
        assert!(hosts.connections.is_empty() && hosts.connected == 0);
    }

    /// A list that names a port on which nothing listens, or the wrong scheme, stops nothing but itself.
    #[test]
    fn another_port_of_a_host_does_not_rest_with_it() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        let of = |url: &str| Target::parse(url).expect("a target");
        let closed = [of("wss://relay.example:9"), of("ws://relay.example:443")];
        for closed in &closed {
            hosts.begin(closed, now);
            hosts.looked_up(closed, Some(at("1.1.1.1")), now);
            hosts.begin(closed, now);
            hosts.ended(closed, &at("1.1.1.1"), false, now);
            assert!(!hosts.is_open(closed, now));
        }
        let open = of("wss://relay.example/path");
        assert!(hosts.is_open(&open, now) && hosts.failures(&open) == 0 && hosts.pause(&open, now).is_none());
    }

    #[test]
    fn all_names_of_one_network_share_its_connections() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        for n in 0..NETWORK_CONNECTIONS_MAX {
            assert!(connect(&mut hosts, &format!("a{n}"), &format!("2001:4860:1:{n}::1"), now));
        }
        assert!(!connect(&mut hosts, "more", "2001:4860:1:f::1", now));
        assert!(connect(&mut hosts, "other", "2001:4860:2::1", now));
        hosts.ended(&target("a0"), &at("2001:4860:1::1"), true, now);
        assert!(hosts.is_open(&target("more"), now));
    }

    #[test]
    fn look_ups_under_one_domain_follow_one_another() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        hosts.begin(&target("a.evil.example"), now);
        assert!(!hosts.is_open(&target("b.evil.example"), now) && hosts.is_open(&target("good.example"), now));
        hosts.looked_up(&target("a.evil.example"), None, now);
        assert!(hosts.is_open(&target("b.evil.example"), now) && !hosts.is_open(&target("a.evil.example"), now));
    }

    /// Failed hosts do not keep others out of the memory of hosts.
    #[test]
    fn hosts_are_bounded() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        for n in 0..2 * HOSTS_MAX {
            let target = target(&format!("host{n}"));
            assert!(hosts.is_open(&target, now), "{n}");
            hosts.begin(&target, now);
            hosts.looked_up(&target, None, now);
        }
        assert_eq!(hosts.by_origin.len(), HOSTS_MAX);
    }
}
