//! `rnostr sync`: fills the store from another relay, by NIP-77 or page by page.
//!
//! The other relay's events are those of a stranger: each passes the checks of `rnostr import`, and none changes a
//! group.

mod connection;
mod intake;
mod key;
mod local;
mod pages;
mod position;
mod reconcile;
mod window;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use nostr_extensions::Gate;
use nostr_protocol::sign::SecretKey;
use nostr_relay::manage::policy_over;
use nostr_store::moving::Moving;

use self::{
    connection::{Connection, Trouble},
    intake::Intake,
    local::Local,
    pages::Pages,
    position::{Place, Reached},
    reconcile::{LastEvent, Reconciled, Reconciling},
    window::{Asked, Window},
};
use super::{
    import::outcomes_of,
    moving::{configured, now, with_store},
};

/// Fill the store from another relay with the events that are missing here
///
/// It compares both relays' events by NIP-77, or asks page by page where the other relay does not know that. Each event
/// is checked as by `import`: its id, its signature and this relay's rules. Groups stay as they are, and protected
/// events (NIP-70) are passed over. A run that is broken off loses nothing: the same command goes on. Stop the relay of
/// an embedded store first; relays over a shared store may run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, for the notes and profiles of two keys since 2026:\n  \
    rnostr sync -c rnostr.toml --from wss://relay.example.com \\\n    \
    --filter '{\"kinds\":[0,1],\"authors\":[\"3bf0…459d\",\"82341…e1a2\"],\"since\":1767225600}'")]
pub(super) struct Sync {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The other relay's WebSocket URL
    #[arg(long, value_name = "URL")]
    from: String,
    /// The filter (NIP-01) of the events, without limit; without it all events that the relay gives
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// The file of the secret key to authenticate with (NIP-42), hex or nsec; else RNOSTR_KEY may hold it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Numbers of a filling, beside those of its events.
#[derive(Default)]
struct Filled {
    /// Events that the relay announced and did not give.
    missing: u64,
    /// Seconds that hold more events than the relay gives at once.
    crowded: u64,
    way: &'static str,
}

impl Sync {
    pub(super) fn run(self) -> Result<(), String> {
        let asked = Asked::read(self.filter.as_deref())?;
        if !self.from.starts_with("ws://") && !self.from.starts_with("wss://") {
            return Err(format!("--from {}: not a relay's URL; write wss://relay.example.com", self.from));
        }
        let keys = key::of(self.key_file.as_deref())?;
        let config = configured(self.config.as_deref())?;
        let rules = config.foreign_rules();
        with_store(&config, async |store| {
            let gate = Gate::new(policy_over(&*store, &config).await?.into());
            let mut intake = Intake::new(&*store, rules);
            let mut filled = Filled::default();
            let ended = fill((&*store, &gate), &self.from, keys, &asked, &mut intake, &mut filled).await;
            intake.end();
            // A reader that has seen enough is no failure.
            let _ = io::stdout().lock().write_all(text_of(&self.from, &intake, &filled).as_bytes());
            ended.map_err(|Trouble(why)| format!("{}: {why}; the same command goes on from here", self.from))
        })
    }
}

async fn fill(
    (store, gate): (&dyn Moving, &Gate),
    url: &str,
    keys: Option<SecretKey>,
    asked: &Asked,
    intake: &mut Intake<'_>,
    filled: &mut Filled,
) -> Result<(), Trouble> {
    let mut connection = Connection::open(url, keys).await?;
    let place = Place::of(store, url, asked);
    let before = place.read().await?;
    if before.is_none() {
        let mut local = Local::of(store, gate, asked).await?;
        let (connection, missing) = (&mut connection, &mut filled.missing);
        let reconciling =
            Reconciling { connection, asked, local: &mut local, intake, missing, last_event: LastEvent::new() };
        if matches!(reconciling.run().await?, Reconciled::Done) {
            filled.way = "by NIP-77";
            return Ok(());
        }
    }
    filled.way = "page by page";
    page(&mut connection, asked, intake, (&place, before), filled).await
}

/// Takes the pages that an earlier run has not: the newer ones first, then the older ones.
async fn page(
    connection: &mut Connection,
    asked: &Asked,
    intake: &mut Intake<'_>,
    (place, before): (&Place<'_>, Option<Reached>),
    filled: &mut Filled,
) -> Result<(), Trouble> {
    let whole = asked.window();
    let newest = now();
    let mut left = whole;
    if let Some(Reached { newest, oldest }) = before {
        let since = newest.max(whole.since);
        if since <= whole.until {
            let mut pages = Pages::of(Window { since, ..whole });
            while pages.next(connection, asked, intake).await?.is_some() {}
            filled.crowded += pages.crowded;
        }
        left.until = oldest;
    }
    let mut pages = Pages::of(left);
    while let Some(oldest) = pages.next(connection, asked, intake).await? {
        place.write(Some(Reached { newest, oldest })).await?;
    }
    filled.crowded += pages.crowded;
    place.write(None).await
}

fn text_of(url: &str, intake: &Intake<'_>, filled: &Filled) -> String {
    let way = if filled.way.is_empty() { "in part" } else { filled.way };
    let mut text = format!("filled from {url} {way}: {} events came\n", intake.received);
    text.push_str(&outcomes_of(&intake.report));
    if filled.missing > 0 {
        text.push_str(&format!("  announced and not given: {}\n", filled.missing));
    }
    if filled.crowded > 0 {
        text.push_str(&format!(
            "  {} seconds hold more events than the relay gives at once, and some of them may be missing here\n",
            filled.crowded
        ));
    }
    text
}
