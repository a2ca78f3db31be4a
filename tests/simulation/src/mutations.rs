//! The proof that the simulation notices a broken relay: each mutation is switched on by itself, and seeds are run
//! until one of them violates an invariant.

use std::process::ExitCode;

use crate::{options::Options, sweep};

/// The mutations. Each name stands in a `mutation!` of the relay.
const ALL: [&str; 33] = [
    // The decision about reading.
    "gate-members",
    "gate-recipients",
    "gate-admin",
    "expiry",
    // Admission, and what the committing transaction checks again.
    "admit-author",
    "save-sender",
    "roster-signer",
    "roster-seq",
    "roster-replace",
    "commit-order",
    "deletion-owner",
    "deletion-effect",
    "vanish-events",
    "vanish-membership",
    "claim-twice",
    "sweep-early",
    // The cache of groups.
    "cache-forgets-nothing",
    "cache-every-group",
    "cache-overtaken",
    // The follower of the log, and requests that wait for it.
    "follow-order",
    "follow-fetch",
    "follow-skips-failed",
    "follow-hands-on-early",
    "follow-reads-late",
    "fresh-without-pass",
    "fresh-old-pass",
    // The hand-over between the archive and live delivery.
    "handoff-gap",
    "handoff-overlap",
    "auth-routes",
    // Answers, rates and memory.
    "ok-without-commit",
    "ok-lost",
    "rate-one-address",
    "memory-kept",
];

/// Looks for a seed that notices each mutation, among the first `count`.
pub fn all(options: &Options, count: u64) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for name in ALL {
        if options.mutation.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let options = Options { mutation: Some(name.to_owned()), ..options.clone() };
        let mut noticed = None;
        let mut runs = 0;
        sweep::each(&options, options.seed..options.seed + count, |seed, outcome| {
            runs += 1;
            noticed = match outcome {
                None => Some((seed, "the run broke off".to_owned())),
                Some(outcome) => {
                    outcome.violations.first().map(|(invariant, text)| (seed, format!("{invariant}: {text}")))
                }
            };
            noticed.is_none()
        });
        match noticed {
            Some((seed, text)) => {
                passed += 1;
                println!("{name}: noticed by seed {seed}, after {runs} runs, {text}");
            }
            None => {
                failed += 1;
                println!("{name}: NOT noticed in {runs} runs");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
