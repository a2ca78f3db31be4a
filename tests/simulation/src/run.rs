//! One simulation in this process.

use std::{collections::BTreeSet, process::ExitCode, thread};

use nostr_relay::observe::metrics::Recorder;

use crate::{
    check::Check,
    event::Keys,
    options::Options,
    outcome::Outcome,
    plan::{ADMIN, PEOPLE, Plan},
    seam,
    world::World,
};

/// Most texts of violations that an outcome holds.
const TEXTS_MAX: usize = 6;

/// Runs the seed of the options, and writes its story and its outcome.
pub fn one(options: &Options) -> ExitCode {
    #[cfg(feature = "mutations")]
    if let Some(name) = &options.mutation {
        nostr_protocol::mutation::choose(name);
    }
    // The recorder's library measures the processor's own counter at its first use, by as many readings of the clock as
    // that takes.
    drop(Recorder::new());
    let options = options.clone();
    let ended = thread::spawn(move || {
        seam::enter(options.seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(simulate(&options))
    });
    let Ok(outcome) = ended.join() else { return ExitCode::FAILURE };
    for (invariant, text) in &outcome.violations {
        println!("VIOLATED {invariant}: {text}");
    }
    println!("{}", outcome.line());
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn simulate(options: &Options) -> Outcome {
    let mut plan = Plan::of(options.seed);
    let is_left_out = |number: usize| options.without.iter().any(|(from, to)| (*from..=*to).contains(&number));
    let steps = plan.steps.len() as u64;
    let mut number = 0;
    plan.steps.retain(|_| {
        number += 1;
        !is_left_out(number - 1)
    });
    let setup = plan.setup;
    let mut world = World::start(plan, options.tells).await;
    world.play().await;
    let record = world.stop().await;
    let record = record.lock().expect("no panic while it is held");
    for line in record.story.iter().flatten() {
        println!("{line}");
    }
    let log = record.log.lock().expect("no panic while it is held");
    let check = Check::all(&record, &log, setup, &Keys::of(PEOPLE[ADMIN]).hex);
    let violations = check.violations().iter().take(TEXTS_MAX);
    let states: BTreeSet<u64> = check.states().collect();
    Outcome {
        seed: options.seed,
        hash: record.hash(),
        violations: violations.map(|it| (it.invariant.to_owned(), it.text.clone())).collect(),
        steps,
        commits: log.len() as u64,
        messages: record.frames,
        due: check.looked_at.0,
        read: check.looked_at.1,
        states: states.into_iter().collect(),
    }
}
