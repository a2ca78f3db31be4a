//! The sweeper: removes expired events, those that vanished keys left and the rows of removed ones, and forgets buckets
//! of rate limits that make no difference. Only space depends on it: such an event is served to nobody, swept or not.
//! The sweeper works in small pieces and pauses after each, so that events wait for one piece at most.

use std::{collections::HashSet, sync::Arc, time::Duration};

use nostr_store::{ExpiredPackage, Swept, weight::give_way};

use crate::{app::App, directory::request::LowStock};

/// Time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Most events that one call of [`nostr_store::Store::sweep`] removes, so that the writer does not wait long behind it.
const SWEEP_EVENTS_MAX: usize = 500;

/// Notes the owners of KeyPackages that expired, each once.
fn ask_owners(app: &App, expired: &[ExpiredPackage]) {
    let mut known = HashSet::new();
    for package in expired.iter().filter(|package| known.insert(package.owner)) {
        let ExpiredPackage { owner, content_hash, suite } = *package;
        app.low_stock.note(LowStock { owner, suite, expired: Some(content_hash) });
    }
}

/// Sweeps until the relay stops.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        app.limits.sweep(app.clock.now_ms());
        app.read_budgets.sweep(app.clock.now_ms());
        sweep(&app).await;
    }
}

/// Sweeps until nothing is left to sweep, and asks owners of KeyPackages that expired for more. Tests call it instead
/// of waiting for the next time.
pub async fn sweep(app: &App) {
    while !app.stopping.is_cancelled() {
        let started = std::time::Instant::now();
        match app.store.sweep(app.clock.now(), SWEEP_EVENTS_MAX).await {
            Ok(Swept { removed: 0, .. }) => break,
            Ok(swept) => {
                app.metrics.db_operation("sweep", started.elapsed());
                app.metrics.expired(swept.removed);
                ask_owners(app, &swept.expired);
                tokio::select! {
                    () = app.stopping.cancelled() => return,
                    () = give_way(started.elapsed()) => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "sweeping failed; it goes on in {} s", SWEEP_INTERVAL.as_secs());
                break;
            }
        }
    }
}
