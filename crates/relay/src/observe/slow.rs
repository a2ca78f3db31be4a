//! Log lines about requests that took long: their plan and their work, and nothing of their content.
//!
//! Source: docs/rules.md, "Elsewhere" 3. A plan tells the lengths of a filter's lists and no value of them, since a
//! line above `debug` names no key, id or group. Clients can cause such lines, so their number is bounded. Time in
//! which the relay waits for a client does not count: a client that is slow on purpose would fill the lines of others.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use nostr_protocol::{Filter, Kind};
use parking_lot::Mutex;

use super::request_id::RequestId;

/// Most lines about slow requests in one second. The next line says how many were left out.
const LINES_PER_SECOND_MAX: u32 = 10;
/// Methods of HTTP that a line names.
const METHODS: [&str; 6] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"];
/// Most filters of a request that its line describes.
const FILTERS_SHOWN_MAX: usize = 8;
/// Most kinds of a filter that a line names.
const KINDS_SHOWN_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct SlowLog {
    /// The time from which on a request is slow; `None` where none is.
    limit: Option<Duration>,
    lines: Mutex<Lines>,
}

/// The lines of the present second.
#[derive(Debug)]
struct Lines {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// The times at which an event passed its stages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventTimes {
    pub(crate) arrived: Instant,
    /// It was admitted, and handed to the writer.
    pub(crate) handed: Instant,
    /// Its batch went to the store.
    pub(crate) batched: Instant,
    /// The store had answered.
    pub(crate) committed: Instant,
}

/// The work of a read of the archive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadWork {
    /// Parts that the filters' plans were divided into.
    pub(crate) parts: usize,
    /// Pages that the store was asked for, and the time that they took.
    pub(crate) pages: usize,
    pub(crate) in_store: Duration,
    /// Events that the gate released.
    pub(crate) events: usize,
    /// Units that the request cost.
    pub(crate) units: u64,
    /// Time in which the client took what it was sent. It does not make a request slow.
    pub(crate) with_client: Duration,
}

impl SlowLog {
    /// A log of requests that took `limit_ms` or longer; of none, for 0.
    pub(crate) fn new(limit_ms: u64) -> Self {
        let limit = (limit_ms > 0).then(|| Duration::from_millis(limit_ms));
        Self { limit, lines: Mutex::new(Lines { since: Instant::now(), written: 0, left_out: 0 }) }
    }

    /// Logs an event that took long from its arrival to its answer.
    pub(crate) fn event(&self, request: RequestId, kind: Kind, times: &EventTimes) {
        let took = times.committed.duration_since(times.arrived);
        let Some(left_out) = self.line_for(took) else { return };
        tracing::warn!(
            %request,
            door = "event",
            event_kind = kind.0,
            took_ms = ms(took),
            admission_ms = ms(times.handed.duration_since(times.arrived)),
            waiting_ms = ms(times.batched.duration_since(times.handed)),
            store_ms = ms(times.committed.duration_since(times.batched)),
            left_out,
            "slow request"
        );
    }

    /// Logs a request that took long to its last answer.
    pub(crate) fn read(&self, request: RequestId, door: &str, took: Duration, filters: &[Filter], work: ReadWork) {
        let Some(left_out) = self.line_for(took) else { return };
        tracing::warn!(
            %request,
            door,
            took_ms = ms(took),
            with_client_ms = ms(work.with_client),
            plan = plan(filters),
            parts = work.parts,
            pages = work.pages,
            store_ms = ms(work.in_store),
            events = work.events,
            units = work.units,
            left_out,
            "slow request"
        );
    }

    /// Logs an HTTP request to this route that took long.
    pub(crate) fn route(&self, request: RequestId, method: &str, route: &str, took: Duration) {
        let Some(left_out) = self.line_for(took) else { return };
        // A client chooses the method, which may be any word.
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("another method:");
        let plan = format!("{method} {route}");
        tracing::warn!(%request, door = "rest", took_ms = ms(took), plan, left_out, "slow request");
    }

    /// Number of lines that were left out before this one, if the request is slow and a line may be written.
    fn line_for(&self, took: Duration) -> Option<u64> {
        if took < self.limit? {
            return None;
        }
        let mut lines = self.lines.lock();
        if lines.since.elapsed() >= Duration::from_secs(1) {
            (lines.since, lines.written) = (Instant::now(), 0);
        }
        if lines.written >= LINES_PER_SECOND_MAX {
            lines.left_out += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.left_out))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The shape of filters: `ids:2`, `authors:500`, the kinds by number, `#h:1`, `since`, `until`, `limit:100`.
fn plan(filters: &[Filter]) -> String {
    let mut text = String::new();
    for (n, filter) in filters.iter().take(FILTERS_SHOWN_MAX).enumerate() {
        text.push_str(if n > 0 { "; " } else { "" });
        describe(filter, &mut text);
    }
    if filters.len() > FILTERS_SHOWN_MAX {
        let _ = write!(text, "; and {} more", filters.len() - FILTERS_SHOWN_MAX);
    }
    text
}

fn describe(filter: &Filter, text: &mut String) {
    let begins = text.len();
    let mut word = |written: std::fmt::Arguments<'_>| {
        let space = if text.len() > begins { " " } else { "" };
        let _ = write!(text, "{space}{written}");
    };
    if let Some(ids) = &filter.ids {
        word(format_args!("ids:{}", ids.len()));
    }
    if let Some(authors) = &filter.authors {
        word(format_args!("authors:{}", authors.len()));
    }
    match &filter.kinds {
        Some(kinds) if kinds.len() > KINDS_SHOWN_MAX => word(format_args!("kinds:{}", kinds.len())),
        Some(kinds) => kinds.iter().for_each(|kind| word(format_args!("kind:{kind}"))),
        None => {}
    }
    for (letter, values) in filter.tags.iter() {
        word(format_args!("#{}:{}", char::from(*letter), values.len()));
    }
    if filter.since.is_some() {
        word(format_args!("since"));
    }
    if filter.until.is_some() {
        word(format_args!("until"));
    }
    if let Some(limit) = filter.limit {
        word(format_args!("limit:{limit}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_tells_lengths_and_no_value() {
        let key = "ab".repeat(32);
        let lists = r##""kinds":[445,1],"#h":["a","b"],"since":7,"limit":3"##;
        let filters = [
            format!(r#"{{"ids":["{key}"],"authors":["{key}"],{lists}}}"#),
            "{}".to_owned(),
            format!(r#"{{"kinds":{:?},"until":9}}"#, (1..=9).collect::<Vec<_>>()),
        ];
        let filters: Vec<Filter> = filters.iter().map(|it| serde_json::from_str(it).expect("a filter")).collect();
        assert_eq!(plan(&filters), "ids:1 authors:1 kind:1 kind:445 #h:2 since limit:3; ; kinds:9 until");
        let many = vec![filters[1].clone(); 20];
        assert!(plan(&many).ends_with("; and 12 more"));
    }

    #[test]
    fn lines_about_slow_requests_are_few() {
        let (log, slow) = (SlowLog::new(100), Duration::from_millis(100));
        assert_eq!(log.line_for(Duration::from_millis(99)), None);
        let written = (0..1_000).filter(|_| log.line_for(slow).is_some()).count();
        assert!((10..=20).contains(&written), "{written} lines");
        log.lines.lock().since -= Duration::from_secs(2);
        let left_out = log.line_for(slow).expect("a line in the next second");
        assert!(left_out >= 900, "{left_out}");
        assert_eq!(SlowLog::new(0).line_for(Duration::from_secs(999)), None);
    }
}
