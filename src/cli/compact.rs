//! `rnostr compact`: writes the embedded store anew, without its free pages.

use std::path::PathBuf;

use nostr_store::embedded::tools::compact;

use super::moving::{configured, embedded, require_store};

/// Give the disk back what the embedded store no longer uses; the relay must be stopped
///
/// A store keeps the pages of removed events and uses them again. This writes it anew without them, beside the old
/// file, which it replaces when the new one is whole. So it needs room for both. What was deleted is then off the disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  systemctl stop rnostr && rnostr compact -c rnostr.toml; systemctl start rnostr")]
pub(super) struct Compact {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Compact {
    pub(super) fn run(self) -> Result<(), String> {
        let config = configured(self.config.as_deref())?;
        let (directory, options) = embedded(&config)?;
        require_store(&config)?;
        let done = compact(directory, options).map_err(|error| error.to_string())?;
        println!("compacted {}: {} bytes, {} before", directory.display(), done.after, done.before);
        Ok(())
    }
}
