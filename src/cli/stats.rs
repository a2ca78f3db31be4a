//! `rnostr stats`: the sizes of a store.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
};

use nostr_relay::config::{Config, StorageBackend};
use nostr_store::embedded::tools::{Beside, Sizes};
use serde_json::json;

use super::moving::{configured, with_store};

/// Show what the store holds and how much room it takes, also while the relay runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  rnostr stats -c rnostr.toml\n  rnostr stats -c rnostr.toml --kinds --json | jq .kinds"
)]
pub(super) struct Stats {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Count events by kind, which reads every event (embedded store)
    #[arg(long)]
    kinds: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), String> {
        let config = configured(self.config.as_deref())?;
        let text = match config.mls_gateway.storage_backend {
            StorageBackend::Embedded => {
                let store = Beside::open(&config.data.path).map_err(|error| error.to_string())?;
                let sizes = store.sizes(self.kinds).map_err(|error| error.to_string())?;
                if self.json { as_json(&sizes) } else { as_text(&sizes) }
            }
            _ if self.kinds => return Err("--kinds counts in the embedded store; ask the database".to_owned()),
            _ => self.database(&config)?,
        };
        // A reader that has seen enough (`| head`) is no failure.
        let _ = io::stdout().lock().write_all(text.as_bytes());
        Ok(())
    }

    fn database(&self, config: &Config) -> Result<String, String> {
        let stats = with_store(config, async |store| store.stats().await.map_err(|error| error.to_string()))?;
        Ok(if self.json {
            format!("{}\n", json!({"events": stats.events, "groups": stats.groups, "bytes_used": stats.bytes_used}))
        } else {
            format!("events {}\ngroups {}\nbytes used {}\n", stats.events, stats.groups, stats.bytes_used)
        })
    }
}

fn as_json(sizes: &Sizes) -> String {
    let tables =
        sizes.tables.iter().map(|(name, rows, bytes)| ((*name).to_owned(), json!({"rows": rows, "bytes": bytes})));
    let mut all = json!({
        "events": sizes.events,
        "groups": sizes.groups,
        "bytes_used": sizes.used,
        "bytes_of_file": sizes.file,
        "tables": tables.collect::<serde_json::Map<_, _>>(),
    });
    let mut object = sizes.kinds.iter().map(|kinds| {
        kinds.iter().map(|(kind, events)| (kind.to_string(), json!(events))).collect::<serde_json::Map<_, _>>()
    });
    if let Some(kinds) = object.next() {
        all["kinds"] = kinds.into();
    }
    format!("{all}\n")
}

fn as_text(sizes: &Sizes) -> String {
    let mut text = format!(
        "events {}\ngroups {}\nbytes used {}\nbytes of the file {} (`rnostr compact` gives back what is not used)\n",
        sizes.events, sizes.groups, sizes.used, sizes.file
    );
    for (name, rows, bytes) in &sizes.tables {
        let _ = writeln!(text, "  {name:<24} {rows:>12} rows {bytes:>14} bytes");
    }
    for (kind, events) in sizes.kinds.iter().flatten() {
        let _ = writeln!(text, "  kind {kind:<19} {events:>12} events");
    }
    text
}
