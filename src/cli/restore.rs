//! `rnostr restore`: makes a store out of a backup.

use std::{fs, path::PathBuf};

use nostr_protocol::hex;
use nostr_store::embedded::tools::{Digest, restore};

use super::{
    backup::beside,
    moving::{configured, embedded, progress::Progress},
};

/// Consequences of going back in time that the store cannot know of, for the operator.
const AFTERWARDS: &str = "\
All that came after the backup is undone: events and their deletions, changes of groups, claims of KeyPackages, and the
order of commits. KeyPackages that were claimed since are on offer again, and a commit may be accepted for an epoch that
had one. See \"After a restore\" in docs/backup.md.";

/// Make the store that the configuration names out of a backup
///
/// It checks the backup's checksum and everything in it, and never writes over a store. Clients that list messages by
/// REST are told to begin anew, as are those of every restored store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, with the relay stopped and the old directory moved away:\n  \
    mv data data.old\n  \
    rnostr restore -c rnostr.toml --from /var/backups/rnostr/rnostr-20261130T031500Z.mdb")]
pub(super) struct Restore {
    /// The configuration, as for `relay`; it names the directory of the new store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The backup; FILE.sha256 holds its checksum
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Restore a backup whose checksum is lost; its pages and rows are checked all the same
    #[arg(long)]
    without_checksum: bool,
}

impl Restore {
    pub(super) fn run(self) -> Result<(), String> {
        let config = configured(self.config.as_deref())?;
        let (named, options) = embedded(&config)?;
        let directory = &std::path::absolute(named).map_err(|error| format!("{}: {error}", named.display()))?;
        if named.is_relative() {
            eprintln!(
                "warning: [data] path is {}, relative to this directory: a relay that is started in another one does \
                 not find this store, and begins with an empty one; write an absolute path",
                named.display()
            );
        }
        match fs::metadata(&self.from) {
            Ok(found) if found.is_dir() => {
                return Err(format!("{} is a directory; name the .mdb file in it", self.from.display()));
            }
            Ok(_) => {}
            Err(error) => return Err(format!("{}: there is no such backup: {error}", self.from.display())),
        }
        let expected = if self.without_checksum { None } else { Some(self.expected()?) };
        let bytes = fs::metadata(&self.from).map_err(|error| format!("{}: {error}", self.from.display()))?.len();
        let mut progress = Progress::new("bytes", Some(bytes));
        let restored = restore(&self.from, expected.as_ref(), directory, options, &mut |at| progress.at(at, 0));
        progress.end();
        let restored = restored.map_err(|error| error.to_string())?;
        println!("restored to {}: {} events", directory.display(), restored.events);
        println!("{AFTERWARDS}");
        Ok(())
    }

    fn expected(&self) -> Result<Digest, String> {
        let path = beside(&self.from, ".sha256");
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}; --without-checksum restores without it", path.display()))?;
        let digest = text.get(..64).and_then(|digits| hex::parse_lower(digits.as_bytes()));
        digest.ok_or_else(|| format!("{}: it begins with no SHA-256", path.display()))
    }
}
