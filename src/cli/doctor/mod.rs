//! `rnostr doctor`: plays an onboarding against a running relay with throw-away keys, and says of each step what
//! happened, which rule decided, and which line of the configuration would change it.
//!
//! The doctor is an ordinary client: it knows of the relay what a client is told, and the configuration only for the
//! relay's address. At the end its keys vanish (NIP-62), which removes what they published; the record of the group
//! that it founded stays (docs/rules.md, "Groups" 1).

mod advice;
mod claim;
mod marmot;
mod onboarding;
mod person;
mod report;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use nostr_relay::config::{self, Config};

use self::report::Report;
use super::{
    address::Address,
    client::{self, Trouble},
};

/// Play an onboarding against a running relay with throw-away keys, and say of each step which rule decided it
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The relay's WebSocket URL; without it, the address in the configuration
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The configuration, as for `relay`; it names the address
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), String> {
        let relay = match self.url {
            Some(url) => Address::named(&url).map_err(|fault| format!("--url: {fault}"))?,
            None => Address::of(
                &Config::load(self.config.as_deref(), config::process_environment())
                    .map_err(|error| error.to_string())?,
            ),
        };
        let mut report = Report::new(&relay.url, !self.json);
        client::run(async {
            examine(&relay, &mut report).await;
            Ok(())
        })?;
        if self.json {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = io::stdout().lock().write_all(report.json().as_bytes());
        }
        match report.failures() {
            0 => Ok(()),
            failures => Err(format!("{failures} of {} steps failed at {}", report.len(), relay.url)),
        }
    }
}

/// Goes through all steps. A step that fails ends the part that needs it, and a relay that gives no answer ends all.
async fn examine(relay: &Address, report: &mut Report) {
    let (mut part, mut played) = ("the onboarding with AUTH", onboarding::play(relay, report).await);
    if played.is_ok() {
        (part, played) = ("Marmot's way without AUTH", marmot::play(relay, report).await);
    }
    if let Err(Trouble(why)) = played {
        report.cut_off(part, &why);
    }
}
