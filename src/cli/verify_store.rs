//! `rnostr verify-store`: checks the embedded store or a backup, and makes its indexes anew.

use std::path::{Path, PathBuf};

use nostr_store::embedded::tools::{Checked, Depth, Rebuilt, check, check_store, repair};

use super::moving::{configured, embedded, progress::Progress, require_store};

/// Check the embedded store, with the relay stopped, or a backup
///
/// It checks every page, the checksum of every row, and every index against the events that it leads to. It says what
/// is wrong, and ends with exit code 1 then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    rnostr verify-store -c rnostr.toml\n  \
    rnostr verify-store --file /var/backups/rnostr/rnostr-20261130T031500Z.mdb\n  \
    rnostr verify-store -c rnostr.toml --repair\n\
    To check a relay that must not stop, make a backup and check that.")]
pub(super) struct VerifyStore {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check this backup instead of the store
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "repair"])]
    file: Option<PathBuf>,
    /// Check the signature of every event too, and not only of those without a checksum
    #[arg(long)]
    signatures: bool,
    /// If something is wrong, make a new file with all rows that are whole and with new indexes; the damaged one stays
    /// beside it. If events, groups or marks of deletions would be lost, it only says so
    #[arg(long)]
    repair: bool,
    /// Repair although rows would be lost. A backup is better: a deleted event may come back without its mark, and a
    /// group without its record is open to whoever founds it anew
    #[arg(long, requires = "repair")]
    accept_loss: bool,
}

impl VerifyStore {
    pub(super) fn run(self) -> Result<(), String> {
        let depth = if self.signatures { Depth::Signatures } else { Depth::Relations };
        if let Some(file) = &self.file {
            let mut progress = Progress::new("pages", None);
            let checked = check(file, depth, &mut |at, _| progress.at(at, 0));
            progress.end();
            return tell(file, &checked.map_err(|error| error.to_string())?);
        }
        let config = configured(self.config.as_deref())?;
        let directory = embedded(&config)?.0;
        require_store(&config)?;
        let mut progress = Progress::new("pages", None);
        let checked = check_store(directory, depth, &mut |at, _| progress.at(at, 0));
        progress.end();
        let checked = checked.map_err(|error| error.to_string())?;
        let told = tell(directory, &checked);
        if told.is_ok() || !self.repair {
            return told;
        }
        let (rebuilt, kept) = repair(directory, self.accept_loss).map_err(|error| error.to_string())?;
        repaired(directory, &rebuilt, kept.as_deref())
    }
}

fn tell(path: &Path, checked: &Checked) -> Result<(), String> {
    let Checked { pages, rows, events, older_layout, faults } = checked;
    println!("{}: {pages} pages, {rows} rows, {events} events", path.display());
    if let Some(version) = older_layout {
        println!("its layout is of version {version}: rows have checksums when this release was started over it once");
    }
    for fault in faults.told() {
        println!("  {fault}");
    }
    match faults.count() {
        0 => {
            println!("nothing is wrong");
            Ok(())
        }
        count => Err(format!("{} is damaged: {count} faults; restore a backup, or see --repair", path.display())),
    }
}

fn repaired(directory: &Path, rebuilt: &Rebuilt, kept: Option<&Path>) -> Result<(), String> {
    for (table, rows) in &rebuilt.lost {
        println!("  lost: {rows} rows of {table}");
    }
    match kept {
        Some(kept) => {
            println!("repaired {}: {} rows; the damaged file is {}", directory.display(), rebuilt.rows, kept.display());
            Ok(())
        }
        None => Err("rows would be lost, so nothing is changed; restore a backup, or see --accept-loss".to_owned()),
    }
}
