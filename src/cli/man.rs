//! `rnostr man`: manual pages, made from the same text as `--help`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use super::Cli;

/// Write a manual page for each command into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rnostr man --to /usr/local/share/man/man1 && man rnostr-backup")]
pub(super) struct Man {
    /// The directory, which must exist
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<(), String> {
        let command = Cli::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, &self.to).map_err(|error| format!("{}: {error}", self.to.display()))?;
        println!("manual pages are in {}", self.to.display());
        Ok(())
    }
}
