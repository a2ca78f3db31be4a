//! The plan of a simulation: its set-up and its steps, drawn from the seed alone. What a step leads to is the relay's
//! doing; the plan does not depend on it, so that steps can be left out.

use std::fmt;

use crate::chance::Chance;

/// People with a key each. The last one is hostile, the one before it has the relay's admin key.
pub const PEOPLE: [&str; 6] = ["alice", "bob", "carol", "dave", "admin", "mallory"];
/// Index of the admin among [`PEOPLE`].
pub const ADMIN: usize = 4;
/// Index of the hostile client among [`PEOPLE`].
pub const MALLORY: usize = 5;
/// Groups of rosters; one more is unlisted.
pub const GROUPS: usize = 3;
/// Filters that a client may subscribe to, see [`crate::world::World::filter`].
pub const FILTERS: usize = 9;

/// The set-up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub instances: usize,
    /// Seconds by which each instance's machine is ahead of the store; negative if it is behind.
    pub skews: [i64; 3],
    /// Delay of the network, in milliseconds.
    pub net_ms: (u64, u64),
    /// Delay of each journey to the store, in milliseconds.
    pub store_ms: (u64, u64),
    pub has_archive: bool,
    pub is_strict: bool,
    /// Whether the store decides by the code of the shared stores, and not as the oracle does.
    pub decides_as_shared: bool,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    pub at_ms: u64,
    pub what: What,
}

/// See [`Step`]. `who` is an index of [`PEOPLE`], `nth` one of the events so far.
#[derive(Clone, Debug)]
pub enum What {
    Note {
        who: usize,
        expires_in_secs: u64,
    },
    Article {
        who: usize,
        d: u64,
    },
    Package {
        who: usize,
    },
    Direct {
        who: usize,
        to: usize,
    },
    Noise {
        who: usize,
        to: usize,
    },
    Wrap {
        who: usize,
        to: usize,
        is_ephemeral: bool,
    },
    Message {
        who: usize,
        group: usize,
    },
    Commit {
        who: usize,
        group: usize,
    },
    /// `signer` signs it and `who` sends it.
    Roster {
        who: usize,
        signer: usize,
        group: usize,
        op: &'static str,
        keys: Vec<usize>,
        seq_ahead: u64,
    },
    Delete {
        who: usize,
        nth: u64,
    },
    Vanish {
        who: usize,
    },
    Again {
        who: usize,
        nth: u64,
    },
    Subscribe {
        who: usize,
        filter: usize,
    },
    Unsubscribe {
        who: usize,
    },
    Ask {
        who: usize,
        verb: &'static str,
        filter: usize,
    },
    Claim {
        who: usize,
        owner: usize,
        instance: usize,
    },
    /// Catches up by REST: on a group's messages, or on its inbox where `group` is [`GROUPS`].
    List {
        who: usize,
        group: usize,
        instance: usize,
    },
    Auth {
        who: usize,
        key: usize,
    },
    Leave {
        who: usize,
    },
    Flood {
        count: u64,
        instance: usize,
    },
    Fault {
        instance: usize,
        fault: Fault,
        for_ms: u64,
    },
    Cut {
        who: usize,
    },
    Stall {
        who: usize,
        for_ms: u64,
    },
}

/// A fault of an instance, or of its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Slow,
    Down,
    Failing,
    LosingAnswers,
    FailingLog,
    /// Reads of events by their places and of groups are slow, and some fail.
    Reads,
    Deaf,
    Doubling,
    /// It stops in order, and starts again.
    Stop,
    /// It is gone at once, and another one starts.
    Crash,
}

const FAULTS: [Fault; 11] = [
    Fault::Reads,
    Fault::Reads,
    Fault::Slow,
    Fault::Down,
    Fault::Failing,
    Fault::LosingAnswers,
    Fault::FailingLog,
    Fault::Deaf,
    Fault::Doubling,
    Fault::Stop,
    Fault::Crash,
];

/// A simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub setup: Setup,
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "plan");
        let slow = chance.is(30);
        let skew = |chance: &mut Chance| chance.below(9).cast_signed() - 4;
        let setup = Setup {
            instances: chance.between(1, 3) as usize,
            skews: [skew(&mut chance), skew(&mut chance), skew(&mut chance)],
            net_ms: if slow { (1, 120) } else { (1, 8) },
            store_ms: if chance.is(30) { (1, 60) } else { (0, 4) },
            has_archive: chance.is(75),
            is_strict: chance.is(50),
            decides_as_shared: chance.is(70),
        };
        let is_faulty = chance.is(70);
        let count = chance.between(40, 130);
        let mut at_ms = 0;
        let mut steps = Vec::new();
        for group in 0..2 {
            let keys = (0..3).filter(|_| chance.is(75)).chain([0]).collect();
            let what = What::Roster { who: ADMIN, signer: ADMIN, group, op: "bootstrap", keys, seq_ahead: 1 };
            steps.push(Step { at_ms, what });
        }
        at_ms += 200;
        for who in 0..ADMIN {
            if chance.is(80) {
                let filter = chance.index(FILTERS);
                steps.push(Step { at_ms, what: What::Subscribe { who, filter } });
            }
        }
        for _ in 0..count {
            // Steps come in bursts, with rests between them in which the relay comes to the head of its log.
            at_ms += if chance.is(60) { chance.below(30) } else { chance.below(900) };
            if chance.is(6) {
                race(&mut chance, at_ms, &mut steps);
                if is_faulty && chance.is(40) {
                    let instance = chance.index(setup.instances);
                    let what = What::Fault { instance, fault: Fault::Reads, for_ms: chance.between(500, 3_000) };
                    steps.push(Step { at_ms, what });
                }
            }
            if chance.is(4) {
                prove(&mut chance, at_ms, &mut steps);
            }
            let what = draw(&mut chance, setup.instances, is_faulty);
            steps.push(Step { at_ms, what });
        }
        steps.sort_by_key(|step| step.at_ms);
        Self { seed, setup, steps }
    }
}

/// A member is removed or added while it writes and others subscribe: several instances learn of it in their time.
fn race(chance: &mut Chance, at_ms: u64, steps: &mut Vec<Step>) {
    let (who, group) = (chance.index(ADMIN), chance.index(2));
    let op = if chance.is(70) { "remove" } else { "add" };
    let roster = What::Roster { who: ADMIN, signer: ADMIN, group, op, keys: vec![who], seq_ahead: 1 };
    let mut push = |chance: &mut Chance, what| steps.push(Step { at_ms: at_ms + chance.below(60), what });
    push(chance, roster);
    for _ in 0..chance.between(2, 5) {
        push(chance, What::Message { who, group });
    }
    for _ in 0..chance.below(3) {
        let (who, filter) = (chance.index(ADMIN), *chance.of(&[0, 1, 6]));
        push(chance, What::Subscribe { who, filter });
    }
}

/// A subscriber proves a further key, to which something comes then.
fn prove(chance: &mut Chance, at_ms: u64, steps: &mut Vec<Step>) {
    let (who, key) = (chance.index(ADMIN), chance.index(ADMIN));
    let filter = *chance.of(&[0, 1, 8]);
    steps.push(Step { at_ms, what: What::Subscribe { who, filter } });
    steps.push(Step { at_ms: at_ms + chance.between(100, 400), what: What::Auth { who, key } });
    let what = What::Wrap { who: chance.index(ADMIN), to: key, is_ephemeral: chance.is(30) };
    steps.push(Step { at_ms: at_ms + chance.between(600, 1_500), what });
}

fn draw(chance: &mut Chance, instances: usize, is_faulty: bool) -> What {
    let who = chance.index(ADMIN);
    let to = chance.index(ADMIN);
    let group = chance.index(GROUPS);
    let instance = chance.index(instances);
    match chance.below(100) {
        0..4 => What::Note {
            who,
            expires_in_secs: match chance.below(4) {
                0 => 0,
                1 => chance.between(60, 100),
                _ => chance.between(2, 15),
            },
        },
        4..6 => What::Article { who, d: chance.below(2) },
        6..12 => What::Package { who },
        12..14 => What::Direct { who, to },
        14..17 => What::Noise { who, to },
        17..22 => What::Wrap { who, to, is_ephemeral: chance.is(25) },
        22..42 => What::Message { who, group },
        42..47 => What::Commit { who, group: chance.index(2) },
        47..60 => {
            let op = *chance.of(&["add", "remove", "remove", "add", "replace", "promote", "demote", "bootstrap"]);
            let keys = (0..=chance.below(2)).map(|_| chance.index(ADMIN)).collect();
            let who = if chance.is(75) { ADMIN } else { who };
            // Some senders hand on what another key has signed.
            let signer = if chance.is(8) { ADMIN } else { who };
            let seq_ahead = if chance.is(80) { 1 } else { 0 };
            What::Roster { who, signer, group: chance.index(2), op, keys, seq_ahead }
        }
        60..63 => What::Delete { who, nth: chance.below(1 << 20) },
        63 => {
            if chance.is(30) {
                What::Vanish { who }
            } else {
                What::Note { who, expires_in_secs: 0 }
            }
        }
        64..66 => What::Again { who, nth: chance.below(1 << 20) },
        66..74 => What::Subscribe { who, filter: chance.index(FILTERS) },
        74..76 => What::Unsubscribe { who },
        76..79 => {
            let verb = if chance.is(50) { "COUNT" } else { "NEG-OPEN" };
            What::Ask { who, verb, filter: chance.index(FILTERS) }
        }
        79..83 => What::Claim { who, owner: to, instance },
        83..86 => What::List { who, group: chance.index(GROUPS + 1), instance },
        86..89 => What::Auth { who, key: to },
        89 if chance.is(50) => What::Leave { who },
        89 => What::Flood { count: chance.between(50, 500), instance },
        _ if !is_faulty => What::Message { who, group },
        90..97 => {
            let fault = *chance.of(&FAULTS);
            What::Fault { instance, fault, for_ms: chance.between(200, 6_000) }
        }
        97..99 => What::Cut { who },
        _ => What::Stall { who, for_ms: chance.between(500, 5_000) },
    }
}

fn name(who: usize) -> &'static str {
    PEOPLE[who]
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note { who, expires_in_secs: 0 } => write!(f, "{} writes a note", name(*who)),
            Self::Note { who, expires_in_secs } => {
                write!(f, "{} writes a note that expires in {expires_in_secs} s", name(*who))
            }
            Self::Article { who, d } => write!(f, "{} writes article {d}", name(*who)),
            Self::Package { who } => write!(f, "{} publishes a KeyPackage", name(*who)),
            Self::Direct { who, to } => write!(f, "{} sends a direct message to {}", name(*who), name(*to)),
            Self::Noise { who, to } => write!(f, "{} sends a Noise message to {}", name(*who), name(*to)),
            Self::Wrap { who, to, is_ephemeral } => {
                let sort = if *is_ephemeral { "an ephemeral gift wrap" } else { "a gift wrap" };
                write!(f, "{} sends {sort} to {}", name(*who), name(*to))
            }
            Self::Message { who, group } => write!(f, "{} writes to group {group}", name(*who)),
            Self::Commit { who, group } => write!(f, "{} commits in group {group}", name(*who)),
            Self::Roster { who, signer, group, op, keys, seq_ahead } => {
                let by = if who == signer { String::new() } else { format!(", signed by {}", name(*signer)) };
                let keys: Vec<&str> = keys.iter().map(|key| name(*key)).collect();
                let seq = if *seq_ahead == 0 { ", with the last seq again" } else { "" };
                write!(f, "{} sends a roster of group {group}: {op} {}{seq}{by}", name(*who), keys.join(", "))
            }
            Self::Delete { who, nth } => write!(f, "{} deletes event {nth} (modulo)", name(*who)),
            Self::Vanish { who } => write!(f, "{} vanishes", name(*who)),
            Self::Again { who, nth } => write!(f, "{} publishes event {nth} (modulo) again", name(*who)),
            Self::Subscribe { who, filter } => write!(f, "{} subscribes to filter {filter}", name(*who)),
            Self::Unsubscribe { who } => write!(f, "{} ends a subscription", name(*who)),
            Self::Ask { who, verb, filter } => write!(f, "{} asks {verb} by filter {filter}", name(*who)),
            Self::Claim { who, owner, instance } => {
                write!(f, "{} claims a KeyPackage of {} at instance {instance}", name(*who), name(*owner))
            }
            Self::List { who, group: GROUPS, instance } => {
                write!(f, "{} catches up on its inbox at instance {instance}", name(*who))
            }
            Self::List { who, group, instance } => {
                write!(f, "{} catches up on group {group} at instance {instance}", name(*who))
            }
            Self::Auth { who, key } => write!(f, "{} proves the key of {} too", name(*who), name(*key)),
            Self::Leave { who } => write!(f, "{} leaves", name(*who)),
            Self::Flood { count, instance } => write!(f, "mallory floods instance {instance} with {count} messages"),
            Self::Fault { instance, fault, for_ms } => {
                write!(f, "fault at instance {instance} for {for_ms} ms: {fault:?}")
            }
            Self::Cut { who } => write!(f, "the connection of {} breaks", name(*who)),
            Self::Stall { who, for_ms } => write!(f, "nothing reaches {} for {for_ms} ms", name(*who)),
        }
    }
}
