//! `rnostr delete`: removes the events that fit a filter from the store.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
};

use nostr_protocol::{Event, Filter};
use nostr_store::moving::{Exported, Matching, Moving, delete, matching};

use super::moving::{configured, confirmed_by_terminal, now, progress::Progress, require_store, with_store};

/// Most events that the command shows before it asks.
const SHOWN_MAX: usize = 10;

/// Delete the events that fit a filter from the store, whoever wrote them
///
/// The command reads every event of the store. A deleted event does not come back, by a client or by an import, if its
/// author could have deleted it; group messages, rosters, deletions and requests to vanish leave no such mark. Groups
/// keep their members. Stop the relay of an embedded store first; relays over a shared store may run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, to see what a key wrote before 2026, and then to delete it:\n  \
    rnostr delete -c rnostr.toml --dry-run --filter '{\"authors\":[\"3bf0…459d\"],\"until\":1767225599}'\n  \
    rnostr delete -c rnostr.toml --filter '{\"authors\":[\"3bf0…459d\"],\"until\":1767225599}'")]
pub(super) struct Delete {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The filter (NIP-01), with at least one of ids, authors, kinds and tags, and without limit
    #[arg(long, value_name = "JSON")]
    filter: String,
    /// Count the events and show some of them, and delete none
    #[arg(long)]
    dry_run: bool,
    /// Delete without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

impl Delete {
    pub(super) fn run(self) -> Result<(), String> {
        let filter = read(&self.filter)?;
        if !self.dry_run && !self.yes && !io::stdin().is_terminal() {
            return Err("nobody can be asked here; look first with --dry-run, then delete with --yes".to_owned());
        }
        let config = configured(self.config.as_deref())?;
        require_store(&config)?;
        with_store(&config, async |store| {
            let up_to = store.head();
            if !self.yes && !confirmed(&*store, &filter, up_to, self.dry_run).await? {
                return Ok(());
            }
            let mut progress = started(&*store).await?;
            let walked = |matching: &Matching| progress.at(matching.seen, matching.removed);
            let deleted = delete(&*store, &filter, up_to, now(), walked).await;
            progress.end();
            let deleted = deleted.map_err(|error| {
                format!("{error}; the events that were deleted before stay deleted; the same command goes on")
            })?;
            say(&format!("deleted {} of {} events\n", deleted.removed, deleted.seen));
            if deleted.removed < deleted.fit {
                say(&format!("  gone before: {}\n", deleted.fit - deleted.removed));
            }
            Ok(())
        })
    }
}

/// Reads the filter of the events that may go.
fn read(json: &str) -> Result<Filter, String> {
    let filter: Filter = serde_json::from_str(json).map_err(|error| format!("--filter: {error}"))?;
    if filter.limit.is_some() {
        return Err("--filter: a limit says nothing about which events go; leave it out".to_owned());
    }
    if filter == (Filter { since: filter.since, until: filter.until, ..Filter::default() }) {
        let fault = "a time alone fits every event of that time, so one wrong number deletes the store; add at least \
                     one of \"ids\", \"authors\", \"kinds\" and a tag such as \"#t\"";
        return Err(format!("--filter: {fault}"));
    }
    Ok(filter)
}

async fn started(store: &dyn Moving) -> Result<Progress, String> {
    let stats = store.stats().await.map_err(|error| error.to_string())?;
    Ok(Progress::new("events", Some(stats.events)))
}

/// Shows the events that fit, and asks whether they are to go.
async fn confirmed(store: &dyn Moving, filter: &Filter, up_to: u64, dry_run: bool) -> Result<bool, String> {
    let mut progress = started(store).await?;
    let mut shown = String::new();
    let mut lines = 0;
    let each = |found: &Exported| {
        if lines < SHOWN_MAX {
            lines += 1;
            shown.push_str(&line(&found.event));
        }
    };
    let walked = |matching: &Matching| progress.at(matching.seen, matching.fit);
    let found = matching(store, filter, up_to, now(), each, walked).await;
    progress.end();
    let Matching { seen, fit, .. } = found.map_err(|error| error.to_string())?;
    say(&format!("{fit} of {seen} events fit\n{shown}"));
    if fit > SHOWN_MAX as u64 {
        say(&format!("  and {} more\n", fit - SHOWN_MAX as u64));
    }
    if dry_run || fit == 0 {
        return Ok(false);
    }
    let is_yes = confirmed_by_terminal(&format!("Delete these {fit} events for good?"))?;
    if !is_yes {
        say("nothing is deleted\n");
    }
    Ok(is_yes)
}

/// An event in one line, without its content, which may be private.
fn line(event: &Event) -> String {
    let at = i64::try_from(event.created_at()).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
    let at = at.map_or_else(|| event.created_at().to_string(), |at| at.to_string());
    format!("  {} kind {} of {at} by {}\n", event.id(), event.kind().0, event.pubkey())
}

/// Prints; a reader that has seen enough is no failure.
fn say(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
