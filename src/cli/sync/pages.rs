//! Filling page by page, from the newest event to the oldest, where the other relay does not know NIP-77.

use nostr_protocol::UnixSecs;

use super::{
    connection::{Connection, Trouble},
    intake::Intake,
    window::{Asked, Window},
};

/// Most events of one page.
const PAGE_EVENTS_MAX: usize = 500;
/// Most pages of one run.
const PAGES_MAX: usize = 100_000;

/// The pages of a part of time.
pub(super) struct Pages {
    left: Option<Window>,
    pages: usize,
    /// Events of the fullest page: the relay's own bound, as far as it shows.
    fullest: usize,
    /// Seconds that hold more events than the relay gives at once.
    pub(super) crowded: u64,
}

impl Pages {
    pub(super) const fn of(window: Window) -> Self {
        Self { left: Some(window), pages: 0, fullest: 0, crowded: 0 }
    }

    /// Takes the next page. Gives the time down to which all is taken; `None` after the last page.
    pub(super) async fn next(
        &mut self,
        connection: &mut Connection,
        asked: &Asked,
        intake: &mut Intake<'_>,
    ) -> Result<Option<UnixSecs>, Trouble> {
        let Some(window) = self.left else { return Ok(None) };
        self.pages += 1;
        if self.pages > PAGES_MAX {
            return Err(Trouble(format!("there are more than {PAGES_MAX} pages")));
        }
        let events = connection.stored(&asked.during(window, Some(PAGE_EVENTS_MAX)), PAGE_EVENTS_MAX).await?;
        let taken = intake.take(events, asked, window).await?;
        let Some(oldest) = taken.iter().map(|(at, _)| *at).min() else {
            self.left = None;
            return Ok(None);
        };
        // The next page begins with the oldest second again, since this page may hold a part of it only.
        let next = if oldest < window.until {
            Some(oldest)
        } else {
            self.crowded += u64::from(taken.len() >= self.fullest);
            oldest.checked_sub(1)
        };
        self.fullest = self.fullest.max(taken.len());
        self.left = next.filter(|until| *until >= window.since).map(|until| Window { until, ..window });
        Ok(Some(oldest))
    }
}
