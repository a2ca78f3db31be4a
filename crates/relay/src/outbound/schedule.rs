//! The requests that wait to be sent to a host, each until its host may be connected to.
//!
//! A request holds nothing but its place here while its host rests or is busy. The places are shared by domain and by
//! network, because the hosts are named by anyone.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nostr_protocol::Event;

use super::{
    address::Target,
    connection::Failed,
    hosts::{Hosts, Step},
};

/// Most requests that wait for their hosts, each counted once for each of its relays.
pub(super) const WAITING_MAX: usize = 1_024;
/// Most of them whose hosts are of one domain.
pub(super) const SITE_WAITING_MAX: usize = 128;
/// Most of them whose hosts' names lead into one network.
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
        for network in self.hosts.networks(&sending.target, now) {
            let leads_there = |other: &&Sending| self.hosts.networks(&other.target, now).any(|it| it == network);
            if self.waiting.iter().filter(leads_there).count() >= NETWORK_WAITING_MAX {
                return Err(End::Dropped);
            }
        }
        self.waiting.push(sending);
        Ok(())
    }

    /// Ends the requests whose hosts rest, or are busy, until it is too late.
    pub(super) fn end_late(&mut self, now: Instant) -> Vec<End> {
        let mut ends = Vec::new();
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

    /// Begins the next step of a request whose host is open. Hosts that have not failed come first.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Sending, Step)> {
        let hosts = &self.hosts;
        let open = self.waiting.iter().enumerate().filter(|(_, it)| it.due <= now && hosts.is_open(&it.target, now));
        let (place, _) = open.min_by_key(|(_, it)| (hosts.failures(&it.target) > 0, it.due))?;
        let sending = self.waiting.swap_remove(place);
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
            Err(Failed::Unreachable(_)) => self.retry(sending, now),
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
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    fn target(host: &str) -> Target {
        Target::parse(&format!("ws://{host}:80")).expect("a target")
    }

    fn add(schedule: &mut Schedule, host: &str, now: Instant) -> Result<(), End> {
        schedule.add(target(host), EventBuilder::new(447).event(&keypair("system")), now)
    }

    fn at(address: &str) -> Vec<SocketAddr> {
        vec![SocketAddr::new(address.parse().expect("an address"), 80)]
    }

    #[test]
    fn a_request_is_tried_three_times() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        add(&mut schedule, "dead", now).expect("a place");
        let begun = now;
        for tries in 1..=TRIES_MAX {
            let (sending, step) = schedule.next(now).expect("it is due");
            assert_eq!(step, Step::LookUp);
            let went_on = schedule.looked_up(sending, None, now);
            if tries == TRIES_MAX {
                assert_eq!(went_on, Err(End::Unreachable));
                break;
            }
            went_on.expect("a place");
            assert!(schedule.next(now).is_none() && schedule.end_late(now).is_empty());
            now = schedule.wakes(now).expect("it waits");
        }
        assert_eq!((now - begun).as_secs(), 55);
        // The host now rests for 16 s, and a further request may wait for it. One for an hour's rest may not.
        add(&mut schedule, "dead", now).expect("a place");
        assert!(schedule.end_late(now).is_empty());
        for _ in 0..9 {
            schedule.hosts.looked_up(&target("dead"), None, now);
        }
        assert_eq!(schedule.end_late(now), [End::Unreachable]);
    }

    #[test]
    fn requests_are_bounded_by_domain_and_by_network() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for n in 0..SITE_WAITING_MAX {
            add(&mut schedule, &format!("a{n}.evil.example"), now).expect("a place");
        }
        assert_eq!(add(&mut schedule, "one-more.evil.example", now), Err(End::Dropped));
        let mut ends = Vec::new();
        for n in 0..SITE_WAITING_MAX {
            add(&mut schedule, &format!("evil{n}.example.n{n}"), now).expect("a place");
            let by_name = schedule.waiting.pop().expect("it waits");
            schedule.hosts.begin(&by_name.target, now);
            ends.extend(schedule.looked_up(by_name, Some(at("6.6.6.6")), now).err());
        }
        assert_eq!(ends, []);
        add(&mut schedule, "good.example", now).expect("a place");
        let more = schedule.waiting.iter().position(|it| it.target.host == "good.example").expect("it waits");
        let more = schedule.waiting.swap_remove(more);
        schedule.hosts.begin(&more.target, now);
        assert_eq!(schedule.looked_up(more, Some(at("6.6.6.6")), now), Err(End::Dropped));
    }

    /// A host that has failed waits for the ones that have not.
    #[test]
    fn hosts_that_answer_come_first() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.hosts.begin(&target("dead"), now);
        schedule.hosts.looked_up(&target("dead"), None, now);
        let later = now + Duration::from_secs(5);
        add(&mut schedule, "dead", now).expect("a place");
        add(&mut schedule, "alive", later).expect("a place");
        let order: Vec<String> = std::iter::from_fn(|| schedule.next(later)).map(|(it, _)| it.target.host).collect();
        assert_eq!(order, ["alive", "dead"]);
    }
}
