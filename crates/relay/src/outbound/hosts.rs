//! The hosts of other relays: each has one connection at one time, and is left alone for a while after a failure.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Most hosts that are remembered.
const HOSTS_MAX: usize = 1_024;
/// Pause after the first failure of a host, in seconds; each further one doubles it.
const PAUSE_SECS: u64 = 4;
/// Longest pause after a failure, in seconds.
const PAUSE_SECS_MAX: u64 = 3_600;

#[derive(Debug, Default)]
struct Host {
    is_busy: bool,
    failures: u32,
    until: Option<Instant>,
}

impl Host {
    fn is_open(&self) -> bool {
        !self.is_busy && self.until.is_none_or(|until| until <= Instant::now())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<HashMap<String, Host>>);

/// A connection to a host, from before it is dialled.
pub(super) struct Visit {
    hosts: Arc<Hosts>,
    name: String,
}

impl Hosts {
    /// Begins a connection; `None` while the host is busy or left alone, or while no further host can be remembered.
    pub(super) fn visit(self: &Arc<Self>, name: &str) -> Option<Visit> {
        let mut hosts = self.0.lock();
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(name) {
            hosts.retain(|_, host| !host.is_open());
        }
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(name) {
            return None;
        }
        let host = hosts.entry(name.to_owned()).or_default();
        if !host.is_open() {
            return None;
        }
        host.is_busy = true;
        Some(Visit { hosts: Arc::clone(self), name: name.to_owned() })
    }
}

impl Visit {
    /// The host answered.
    pub(super) fn succeeded(self) {
        self.hosts.0.lock().remove(&self.name);
    }

    /// The host did not answer.
    pub(super) fn failed(self) {
        let mut hosts = self.hosts.0.lock();
        if let Some(host) = hosts.get_mut(&self.name) {
            let secs = (PAUSE_SECS << host.failures.min(16)).min(PAUSE_SECS_MAX);
            host.failures = host.failures.saturating_add(1);
            host.until = Instant::now().checked_add(Duration::from_secs(secs));
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(host) = self.hosts.0.lock().get_mut(&self.name) {
            host.is_busy = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_connection_and_rests_after_a_failure() {
        let hosts = Arc::new(Hosts::default());
        let first = hosts.visit("a").expect("it is free");
        assert!(hosts.visit("a").is_none() && hosts.visit("b").is_some());
        first.succeeded();
        let second = hosts.visit("a").expect("it is free again");
        second.failed();
        assert!(hosts.visit("a").is_none(), "it rests");
        assert!(hosts.visit("b").is_some(), "a visit that was dropped leaves no mark");
    }

    #[test]
    fn hosts_are_bounded() {
        let hosts = Arc::new(Hosts::default());
        let visits: Vec<Visit> = (0..HOSTS_MAX).filter_map(|n| hosts.visit(&n.to_string())).collect();
        assert_eq!(visits.len(), HOSTS_MAX);
        assert!(hosts.visit("one more").is_none());
        drop(visits);
        assert!(hosts.visit("one more").is_some());
    }
}
