//! `rnostr completions`: a script by which a shell completes the commands.

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::Cli;

/// Print a script by which a shell completes commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    rnostr completions bash > /etc/bash_completion.d/rnostr\n  \
    rnostr completions zsh > /usr/local/share/zsh/site-functions/_rnostr")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), String> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "rnostr", &mut script);
        io::stdout().lock().write_all(&script).map_err(|error| format!("cannot write: {error}"))
    }
}
