//! The shortest story of a violation: steps are left out, many at a time and then fewer, while the same invariant is
//! violated.

use std::process::ExitCode;

use crate::{options::Options, run, sweep};

/// Finds steps that can be left out, and tells the story of the others.
pub fn story(options: &Options) -> ExitCode {
    let Some(whole) = sweep::run(options, options.seed) else { return ExitCode::FAILURE };
    let Some((invariant, _)) = whole.violations.first().cloned() else {
        println!("seed {} violates nothing", options.seed);
        return ExitCode::SUCCESS;
    };
    let steps = whole.steps as usize;
    let mut options = Options { jobs: 1, ..options.clone() };
    let mut kept: Vec<bool> = vec![true; steps];
    let mut width = steps.div_ceil(2).max(1);
    loop {
        let mut from = 0;
        while from < steps {
            let to = (from + width).min(steps);
            if kept[from..to].contains(&true) {
                let mut tried = kept.clone();
                tried[from..to].fill(false);
                options.without = ranges(&tried);
                let outcome = sweep::run(&options, options.seed);
                let violates = outcome.is_some_and(|it| it.violations.iter().any(|(name, _)| *name == invariant));
                if violates {
                    kept = tried;
                }
            }
            from = to;
        }
        if width == 1 {
            break;
        }
        width = width.div_ceil(2);
    }
    options.without = ranges(&kept);
    let left: usize = kept.iter().filter(|is_kept| **is_kept).count();
    let without: Vec<String> = options.without.iter().map(|(from, to)| format!("{from}-{to}")).collect();
    println!("{left} of {steps} steps violate {invariant}: --seed {} --without {}", options.seed, without.join(","));
    options.tells = true;
    run::one(&options)
}

/// The steps that are left out, as ranges.
fn ranges(kept: &[bool]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (number, _) in kept.iter().enumerate().filter(|(_, is_kept)| !**is_kept) {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == number => *to = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}
