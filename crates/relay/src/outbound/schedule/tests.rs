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

/// The names of one domain lead to another's machine, and fill up the places there.
#[test]
fn domains_take_turns_in_a_network() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    let mut enter = |host: &str, n: u64| {
        let now = now + Duration::from_millis(n);
        add(&mut schedule, host, now)?;
        let sending = schedule.waiting.pop().expect("it waits");
        schedule.hosts.begin(&sending.target, now);
        schedule.looked_up(sending, Some(at("6.6.6.6")), now)
    };
    for n in 0..NETWORK_WAITING_MAX {
        enter(&format!("a{n}.evil.example"), n as u64).expect("a place");
    }
    assert_eq!(enter("one-more.evil.example", 200), Err(End::Dropped));
    enter("relay.good.example", 300).expect("a place of the other domain");
    let later = now + Duration::from_millis(400);
    let hosts: Vec<String> = std::iter::from_fn(|| schedule.next(later)).map(|(it, _)| it.target.host).collect();
    assert_eq!(hosts, ["a0.evil.example", "relay.good.example"]);
}

/// A server that speaks, but answers no event, does not rest: the path may be a stranger's invention.
#[test]
fn a_server_that_speaks_does_not_rest() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    for (answer, rests) in [
        (Failed::Refused(String::new()), false),
        (Failed::Unanswered(String::new()), false),
        (Failed::Unreachable(String::new()), true),
    ] {
        add(&mut schedule, "host", now).expect("a place");
        let mut sending = schedule.waiting.pop().expect("it waits");
        if schedule.hosts.begin(&sending.target, now) == Step::LookUp {
            schedule.looked_up(sending, Some(at("6.6.6.6")), now).expect("a place");
            sending = schedule.waiting.pop().expect("it waits");
            schedule.hosts.begin(&sending.target, now);
        }
        let _ = schedule.answered(sending, &at("6.6.6.6"), &Err(answer), now);
        schedule.waiting.clear();
        assert_eq!(schedule.hosts.pause(&target("host"), now).is_some(), rests);
    }
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
