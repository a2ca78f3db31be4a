//! The sizes of the store, which one task asks for.
//!
//! Counting costs the store time and its operator money. So a scrape asks for nothing: it wakes the task, which asks at
//! most once in [`SIZES_SECS`], however many scrapes come and whether or not the store answered. A relay that nobody
//! scrapes or watches by its console does not count. The task ends no question early, because a store works on a
//! dropped one to its end.

use std::{sync::Arc, time::Duration};

use crate::app::App;

/// Shortest time between two questions to the store for its sizes, in seconds.
const SIZES_SECS: u64 = 10;

/// Asks for the sizes after scrapes, until the relay stops.
pub(crate) async fn run(app: Arc<App>) {
    let stopping = app.stopping.clone();
    stopping.run_until_cancelled(follow_scrapes(&app)).await;
}

async fn follow_scrapes(app: &App) {
    loop {
        app.metrics.gauges.scraped.notified().await;
        match app.store.stats().await {
            Ok(stats) => app.metrics.gauges.set_sizes(stats),
            // The gauges keep the last sizes.
            Err(error) => tracing::debug!(%error, "the store did not tell its sizes"),
        }
        tokio::time::sleep(Duration::from_secs(SIZES_SECS)).await;
    }
}
