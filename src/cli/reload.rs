//! `rnostr reload`: checks a configuration, and has the relay that runs by it read it again.

use std::path::PathBuf;

use nostr_relay::{
    config::{self, Reading},
    pid_file,
};
use rustix::process::{Pid, Signal, kill_process};

/// Check a configuration, and have the relay that runs by it read it again (as SIGHUP does)
///
/// Example: `rnostr reload --config /etc/rnostr.toml`. The relay's log says which keys changed, and which of them need
/// a restart.
#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    /// The configuration by which the relay was started
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), String> {
        let Reading { config, faults, .. } = Reading::again(self.config.as_deref(), config::process_environment());
        if !faults.is_empty() {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            // `main` writes the first "error: ".
            return Err(faults.join("\nerror: "));
        }
        let number = pid_file::running(&config)?;
        let process = i32::try_from(number).ok().and_then(Pid::from_raw);
        let process = process.ok_or_else(|| format!("{number} is no number of a process"))?;
        kill_process(process, Signal::HUP).map_err(|error| format!("process {number} cannot be signalled: {error}"))?;
        println!("process {number} reads its configuration again; its log says which keys changed");
        Ok(())
    }
}
