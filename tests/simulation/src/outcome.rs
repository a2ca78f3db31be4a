//! The outcome of one simulation, as one line that its process writes and another one reads.

use serde_json::{Value, json};

/// The beginning of the line.
const PREFIX: &str = "outcome ";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// A hash of all that happened.
    pub hash: String,
    /// Violated invariants with their first texts.
    pub violations: Vec<(String, String)>,
    /// Steps of the plan.
    pub steps: u64,
    pub commits: u64,
    /// Messages that clients sent or got.
    pub messages: u64,
    /// Events that readers had to get.
    pub due: u64,
    /// Events that readers got and that were held against the rules.
    pub read: u64,
    /// Hashes of the states of groups that were reached.
    pub states: Vec<u64>,
}

impl Outcome {
    pub fn line(&self) -> String {
        let Self { seed, hash, violations, steps, commits, messages, due, read, states } = self;
        let outcome = json!({
            "seed": seed, "hash": hash, "violations": violations, "steps": steps, "commits": commits,
            "messages": messages, "due": due, "read": read, "states": states,
        });
        format!("{PREFIX}{outcome}")
    }

    /// Reads the output of a process, if it came to its end.
    pub fn read(output: &str) -> Option<Self> {
        let line = output.lines().rev().find_map(|line| line.strip_prefix(PREFIX))?;
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |name: &str| value[name].as_u64().unwrap_or(0);
        Some(Self {
            seed: number("seed"),
            hash: value["hash"].as_str()?.to_owned(),
            violations: serde_json::from_value(value["violations"].clone()).ok()?,
            steps: number("steps"),
            commits: number("commits"),
            messages: number("messages"),
            due: number("due"),
            read: number("read"),
            states: serde_json::from_value(value["states"].clone()).ok()?,
        })
    }
}
