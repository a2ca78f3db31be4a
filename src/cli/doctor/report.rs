//! The steps of an examination and their outcomes, as lines for a person and as JSON for a script.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use super::advice::Advice;

/// The outcome of a step.
enum Outcome {
    /// The relay did as it should.
    Passed,
    /// The relay's configuration does not offer this.
    Off,
    /// The relay did not.
    Failed,
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Off => "off",
            Self::Failed => "failed",
        }
    }
}

struct Entry {
    step: &'static str,
    outcome: Outcome,
    says: String,
    advice: Advice,
}

/// See the module.
pub(super) struct Report {
    url: String,
    /// Whether each step is printed when it is done.
    prints: bool,
    entries: Vec<Entry>,
}

impl Report {
    pub(super) fn new(url: &str, prints: bool) -> Self {
        Self { url: url.to_owned(), prints, entries: Vec::new() }
    }

    /// Notes a step at which the relay did as the rule says.
    pub(super) fn passed(&mut self, step: &'static str, says: impl Into<String>, rule: &'static str) {
        self.add(step, Outcome::Passed, says.into(), Advice { rule, line: None });
    }

    /// Notes a step that the relay's configuration does not offer.
    pub(super) fn off(&mut self, step: &'static str, says: impl Into<String>, advice: Advice) {
        self.add(step, Outcome::Off, says.into(), advice);
    }

    /// Notes a step that failed.
    pub(super) fn failed(&mut self, step: &'static str, says: impl Into<String>, advice: Advice) {
        self.add(step, Outcome::Failed, says.into(), advice);
    }

    /// Notes that a part ended before its last step, for another reason than an answer of the relay.
    pub(super) fn cut_off(&mut self, part: &'static str, why: &str) {
        self.add(part, Outcome::Failed, why.to_owned(), Advice::of_connection(why));
    }

    fn add(&mut self, step: &'static str, outcome: Outcome, says: String, advice: Advice) {
        let entry = Entry { step, outcome, says, advice };
        if self.prints {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = io::stdout().lock().write_all(entry.lines().as_bytes());
        }
        self.entries.push(entry);
    }

    /// Number of steps.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of steps that failed.
    pub(super) fn failures(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Failed)).count()
    }

    /// One JSON object with all steps.
    pub(super) fn json(&self) -> String {
        let steps: Vec<Value> = self.entries.iter().map(Entry::json).collect();
        format!("{:#}\n", json!({"url": self.url, "passed": self.failures() == 0, "steps": steps}))
    }
}

impl Entry {
    fn lines(&self) -> String {
        let mut lines = format!("{:<7} {}: {}\n", self.outcome.name(), self.step, self.says);
        if !matches!(self.outcome, Outcome::Passed) {
            lines += &format!("        rule: docs/rules.md, {}\n", self.advice.rule);
            if let Some(line) = &self.advice.line {
                lines += &format!("        change: {line}\n");
            }
        }
        lines
    }

    fn json(&self) -> Value {
        json!({
            "step": self.step,
            "outcome": self.outcome.name(),
            "says": self.says,
            "rule": self.advice.rule,
            "change": self.advice.line,
        })
    }
}
