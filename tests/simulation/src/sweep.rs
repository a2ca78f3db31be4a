//! Many simulations, each in a process of its own: counters in statics of the process begin anew, and a run that does
//! not end can be ended.

use std::{
    collections::BTreeSet,
    io::{Read as _, Seek as _},
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{options::Options, outcome::Outcome};

/// Longest time that one simulation takes, of this machine's time.
const RUN_SECS_MAX: u64 = 120;
/// Time between two looks at the processes.
const LOOK_MS: u64 = 2;

/// A simulation under way.
struct Running {
    seed: u64,
    child: Child,
    output: std::fs::File,
    began: Instant,
}

/// Runs seeds, at most `jobs` of them at one time, and hands each outcome over; `None` for one that broke off. It ends
/// early when `take` says so.
pub fn each(options: &Options, seeds: impl Iterator<Item = u64>, mut take: impl FnMut(u64, Option<Outcome>) -> bool) {
    let mut seeds = seeds.fuse();
    let mut running: Vec<Running> = Vec::new();
    let mut goes_on = true;
    loop {
        while goes_on && running.len() < options.jobs {
            let Some(seed) = seeds.next() else { break };
            running.push(start(options, seed));
        }
        if running.is_empty() {
            return;
        }
        let mut still = Vec::new();
        for mut it in running {
            let is_late = it.began.elapsed() > Duration::from_secs(RUN_SECS_MAX);
            if is_late || !goes_on {
                let _ = it.child.kill();
            }
            match it.child.try_wait() {
                Ok(Some(_)) if goes_on => goes_on = take(it.seed, ended(&mut it.output)),
                Ok(Some(_)) => {}
                _ => still.push(it),
            }
        }
        running = still;
        sleep(Duration::from_millis(LOOK_MS));
    }
}

/// Runs one seed, without some steps.
pub fn run(options: &Options, seed: u64) -> Option<Outcome> {
    let mut outcome = None;
    each(options, std::iter::once(seed), |_, it| {
        outcome = it;
        true
    });
    outcome
}

fn start(options: &Options, seed: u64) -> Running {
    let output = temporary();
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(["--quiet", "--seed", &seed.to_string()]);
    if !options.without.is_empty() {
        let ranges: Vec<String> = options.without.iter().map(|(from, to)| format!("{from}-{to}")).collect();
        command.args(["--without", &ranges.join(",")]);
    }
    if let Some(mutation) = &options.mutation {
        command.args(["--mutation", mutation]);
    }
    let written = output.try_clone().expect("a second descriptor");
    let told = output.try_clone().expect("a third descriptor");
    let child = command.stdin(Stdio::null()).stdout(written).stderr(told).spawn();
    Running { seed, child: child.expect("this program starts again"), output, began: Instant::now() }
}

/// A file without a name, which is gone with its descriptors.
fn temporary() -> std::fs::File {
    let path = std::env::temp_dir().join(format!("rnostr-simulation-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path).expect("a temporary file");
    let _ = std::fs::remove_file(&path);
    file
}

fn ended(output: &mut std::fs::File) -> Option<Outcome> {
    let mut text = String::new();
    output.rewind().ok()?;
    output.read_to_string(&mut text).ok()?;
    let outcome = Outcome::read(&text);
    if outcome.is_none() {
        eprintln!("{text}");
    }
    outcome
}

/// Runs so many seeds, and counts what they reached.
pub fn all(options: &Options, count: u64) -> ExitCode {
    let (mut passed, mut failed) = (0_u64, 0_u64);
    let mut sums = Outcome::default();
    let mut states = BTreeSet::new();
    each(options, options.seed..options.seed + count, |seed, outcome| {
        let Some(outcome) = outcome else {
            println!("seed {seed} broke off; run it by --seed {seed}");
            failed += 1;
            return true;
        };
        if outcome.violations.is_empty() {
            passed += 1;
        } else {
            failed += 1;
            println!("seed {seed}; its shortest story: --shrink --seed {seed}");
            outcome.violations.iter().for_each(|(invariant, text)| println!("  {invariant}: {text}"));
        }
        sums.steps += outcome.steps;
        sums.commits += outcome.commits;
        sums.messages += outcome.messages;
        sums.due += outcome.due;
        sums.read += outcome.read;
        states.extend(outcome.states);
        true
    });
    let Outcome { steps, commits, messages, due, read, .. } = sums;
    println!(
        "reached: {steps} steps, {commits} commits, {messages} messages, {} states of groups; held against the model: \
         {due} events that readers had to get, {read} that they got",
        states.len()
    );
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed three times, and compares all that happened.
pub fn repeat(options: &Options) -> ExitCode {
    let outcomes: Vec<Option<Outcome>> = (0..3).map(|_| run(options, options.seed)).collect();
    let is_same = outcomes.iter().all(|outcome| outcome.is_some() && *outcome == outcomes[0]);
    let hashes: Vec<&str> = outcomes.iter().map(|it| it.as_ref().map_or("broke off", |it| it.hash.as_str())).collect();
    println!("seed {}: {}", options.seed, hashes.join(", "));
    println!("{} passed, {} failed", u8::from(is_same), u8::from(!is_same));
    if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
