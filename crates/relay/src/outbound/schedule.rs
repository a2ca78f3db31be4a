//! The requests that wait to be sent to a host, each until its host may be connected to.
//!
//! A request holds nothing but its place here while its host rests or is busy. The places are shared by domain and by
//! network, because the hosts are named by anyone.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use nostr_protocol::Event;

use super::{
    address::{Network, Target},
    connection::Failed,
    hosts::{Hosts, Step},
};

/// Most requests that wait for their hosts, each counted once for each of its relays.
pub(super) const WAITING_MAX: usize = 1_024;
/// Most of them whose hosts are of one domain.
pub(super) const SITE_WAITING_MAX: usize = 128;
/// Most of them whose hosts' names lead to one port of a network.
pub(super) const NETWORK_WAITING_MAX: usize = 128;
/// Most tries at one relay.
const TRIES_MAX: u32 = 3;
/// Pause before the second try, in seconds; each further one is ten times as long.
const RETRY_SECS: u64 = 5;
/// Longest time from a request to its last try, in seconds.
const REQUEST_SECS_MAX: u64 = 120;

/// A request for one relay.
pub(super) struct Sending {
    pub(super) target: Target,
    pub(super) event: Event,
    tries: u32,
    due: Instant,
    until: Instant,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Sent,
    /// The other relay does not take it.
    Refused,
    /// The other relay cannot be reached, or does not answer.
    Unreachable,
    /// It found no place to wait, or its host no connection.
    Dropped,
}

impl End {
    /// The label in the metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Dropped => "dropped",
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Schedule {
    waiting: Vec<Sending>,
    hosts: Hosts,
    /// The turn in which a domain had a step last, of the domains that wait.
    turns: HashMap<String, u64>,
    turn: u64,
    /// The requests that lost their places to others since they were asked for.
    displaced: Vec<End>,
}

impl Schedule {
    /// Takes a request for a relay, or ends it.
    pub(super) fn add(&mut self, target: Target, event: Event, now: Instant) -> Result<(), End> {
        let until = now + Duration::from_secs(REQUEST_SECS_MAX);
        self.wait(Sending { target, event, tries: 0, due: now, until }, now)
    }

    fn wait(&mut self, sending: Sending, now: Instant) -> Result<(), End> {
        let site = sending.target.site();
        let of_site = self.waiting.iter().filter(|other| other.target.site() == site).count();
        if self.waiting.len() >= WAITING_MAX || of_site >= SITE_WAITING_MAX {
            return Err(End::Dropped);
        }
        let networks: Vec<Network> = self.hosts.networks(&sending.target, now).collect();
        for network in networks {
            self.make_room(site, network, now)?;
        }
        self.waiting.push(sending);
        Ok(())
    }

    /// Finds a place in a network for a request of this domain. Anyone can have names lead to somebody else's machine,
    /// so in a full network the newest request of the domain that has the most places gives way to one that has fewer.
    fn make_room(&mut self, site: &str, network: Network, now: Instant) -> Result<(), End> {
        let mut by_site: HashMap<&str, (usize, usize)> = HashMap::new();
        let mut taken = 0;
        for (place, other) in self.waiting.iter().enumerate() {
            if self.hosts.networks(&other.target, now).any(|it| it == network) {
                taken += 1;
                let (count, newest) = by_site.entry(other.target.site()).or_insert((0, place));
                *count += 1;
                if other.until >= self.waiting[*newest].until {
                    *newest = place;
                }
            }
        }
        if taken < NETWORK_WAITING_MAX {
            return Ok(());
        }
        let own = by_site.get(site).map_or(0, |(count, _)| *count);
        let most = by_site.values().max().copied();
        let (_, newest) = most.filter(|(count, _)| *count > own + 1).ok_or(End::Dropped)?;
        self.waiting.swap_remove(newest);
        self.displaced.push(End::Dropped);
        Ok(())
    }

    /// Ends the requests whose hosts rest, or are busy, until it is too late.
    pub(super) fn end_late(&mut self, now: Instant) -> Vec<End> {
        let mut ends = std::mem::take(&mut self.displaced);
        let hosts = &self.hosts;
        self.waiting.retain_mut(|sending| {
            if let Some(pause) = hosts.pause(&sending.target, now) {
                sending.due = sending.due.max(pause);
            }
            let is_late = now >= sending.until || sending.due > sending.until;
            if is_late {
                let has_failed = hosts.failures(&sending.target) > 0;
                ends.push(if has_failed { End::Unreachable } else { End::Dropped });
            }
            !is_late
        });
        ends
    }

    /// Begins the next step of a request whose host is open. Hosts that have not failed come first, and domains take
    /// turns: the names of one, which may all lead to somebody else's machine, do not stand before another's.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Sending, Step)> {
        let hosts = &self.hosts;
        let open = self.waiting.iter().enumerate().filter(|(_, it)| it.due <= now && hosts.is_open(&it.target, now));
        let turn_of = |it: &Sending| self.turns.get(it.target.site()).copied().unwrap_or_default();
        let (place, _) = open.min_by_key(|(_, it)| (hosts.failures(&it.target) > 0, turn_of(it), it.due))?;
        if self.turns.len() >= WAITING_MAX {
            let waiting: HashSet<&str> = self.waiting.iter().map(|it| it.target.site()).collect();
            self.turns.retain(|site, _| waiting.contains(site.as_str()));
        }
        let sending = self.waiting.swap_remove(place);
        self.turn += 1;
        self.turns.insert(sending.target.site().to_owned(), self.turn);
        let step = self.hosts.begin(&sending.target, now);
        Some((sending, step))
    }

    /// The time at which a request is due or too late, if nothing else happens.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        self.waiting.iter().map(|it| if it.due > now { it.due.min(it.until) } else { it.until }).min()
    }

    /// Goes on after a look-up.
    pub(super) fn looked_up(
        &mut self,
        sending: Sending,
        found: Option<Vec<SocketAddr>>,
        now: Instant,
    ) -> Result<(), End> {
        let is_found = found.is_some();
        self.hosts.looked_up(&sending.target, found, now);
        if is_found { self.wait(sending, now) } else { self.retry(sending, now) }
    }

    /// Goes on after a connection to these addresses.
    pub(super) fn answered(
        &mut self,
        sending: Sending,
        addresses: &[SocketAddr],
        answer: &Result<(), Failed>,
        now: Instant,
    ) -> Result<(), End> {
        let has_answered = !matches!(answer, Err(Failed::Unreachable(_)));
        self.hosts.ended(&sending.target, addresses, has_answered, now);
        match answer {
            Ok(()) => Err(End::Sent),
            // Another try would be answered alike.
            Err(Failed::Refused(_)) => Err(End::Refused),
            Err(Failed::Unanswered(_) | Failed::Unreachable(_)) => self.retry(sending, now),
        }
    }

    fn retry(&mut self, mut sending: Sending, now: Instant) -> Result<(), End> {
        sending.tries += 1;
        if sending.tries >= TRIES_MAX {
            return Err(End::Unreachable);
        }
        sending.due = now + Duration::from_secs(RETRY_SECS * 10_u64.pow(sending.tries - 1));
        self.wait(sending, now)
    }
}

#[cfg(test)]
mod tests;
