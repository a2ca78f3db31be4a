//! `rnostr check-config`: reads a configuration and the files that it names as `relay` would, and prints the rules that
//! the relay would enforce, or all mistakes.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use nostr_relay::{
    check,
    config::{self, Reading},
};

/// Read a configuration and the environment, and print the rules that the relay would enforce
#[derive(Debug, clap::Args)]
pub(super) struct CheckConfig {
    /// The configuration; without it, the built-in defaults are checked with the environment over them
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// List every key with its default, unit and variable, as Markdown, and check nothing
    #[arg(long, conflicts_with = "config")]
    keys: bool,
}

impl CheckConfig {
    pub(super) fn run(self) -> Result<(), String> {
        let text = if self.keys { config::markdown() } else { self.check()? };
        // A reader that has seen enough (`| head`) is no failure.
        let _ = io::stdout().lock().write_all(text.as_bytes());
        Ok(())
    }

    fn check(&self) -> Result<String, String> {
        let Reading { config, faults, .. } = Reading::of(self.config.as_deref(), config::process_environment());
        let faults: Vec<String> = faults.iter().map(ToString::to_string).chain(check::files(&config)).collect();
        if !faults.is_empty() {
            // `main` writes the first "error: ".
            return Err(faults.join("\nerror: "));
        }
        let warnings = config.warnings().into_iter().map(|line| format!("warning: {line}"));
        let lines = std::iter::once("ok".to_owned()).chain(config.summary()).chain(warnings);
        Ok(lines.map(|line| line + "\n").collect())
    }
}
