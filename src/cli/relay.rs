//! `rnostr relay`: runs the relay until a signal stops it.

use std::path::PathBuf;

use nostr_relay::{
    config::{self, Config, Reading},
    observe::telemetry,
};

/// Run the relay until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
pub(super) struct Relay {
    /// The configuration; without it, built-in defaults: 127.0.0.1:8080, ./data, no AUTH for public events
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Relay {
    pub(super) fn run(self) -> Result<(), String> {
        let config =
            Config::load(self.config.as_deref(), config::process_environment()).map_err(|error| error.to_string())?;
        let read = || Reading::again(self.config.as_deref(), config::process_environment());
        telemetry::init(&config.server);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.server.workers)
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime cannot start: {error}"))?;
        runtime.block_on(nostr_relay::run(config, read)).map_err(|error| error.to_string())
    }
}
