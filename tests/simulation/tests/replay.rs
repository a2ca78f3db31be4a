//! A seed goes the same way each time, and a run that violates nothing ends well.

use std::process::Command;

fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rnostr-simulation")).args(arguments).output();
    let output = output.expect("the simulation runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_seed_goes_the_same_way_three_times() {
    for seed in ["1", "2", "3"] {
        let (is_same, text) = run(&["--repeat", "--seed", seed]);
        assert!(is_same, "{text}");
    }
}

#[test]
fn a_story_is_told_without_some_of_its_steps() {
    let (is_well, text) = run(&["--seed", "4", "--without", "5-20"]);
    assert!(is_well, "{text}");
    assert!(text.contains("step 0: admin sends a roster") && text.contains("all is well from here on"), "{text}");
    let (_, whole) = run(&["--seed", "4", "--quiet"]);
    assert!(!whole.contains("step 0"), "{whole}");
    assert_ne!(text.lines().last(), whole.lines().last(), "fewer steps lead elsewhere");
}
