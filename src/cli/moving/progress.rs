//! Progress display: a bar on a terminal, else a line every few seconds.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines when standard error is no terminal.
const LINE_SECS: Duration = Duration::from_secs(5);

/// Progress of an export or import, on standard error.
pub(crate) struct Progress {
    shown: Shown,
    what: &'static str,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant, of: Option<u64> },
}

impl Progress {
    /// Starts the display. `of` is the total, if known, in the given units.
    pub(crate) fn new(what: &'static str, of: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            return Self { shown: Shown::Lines { last: Instant::now(), of }, what };
        }
        let bar = of.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match (of.is_some(), what) {
            (true, "bytes") => "{wide_bar} {bytes}/{total_bytes} {eta} {msg}",
            (true, _) => "{wide_bar} {human_pos}/{human_len} {eta} {msg}",
            (false, "bytes") => "{spinner} {bytes} {msg}",
            (false, _) => "{spinner} {human_pos} {msg}",
        };
        // All four templates are valid, so this never fails.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { shown: Shown::Bar(bar), what }
    }

    /// Shows `place` of the total, and `records` so far.
    pub(crate) fn at(&mut self, place: u64, records: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                // The store may have grown since the total was counted.
                if bar.length().is_some_and(|length| length < place) {
                    bar.set_length(place);
                }
                bar.set_position(place);
                bar.set_message(format!("{records} records"));
            }
            Shown::Lines { last, of } if last.elapsed() >= LINE_SECS => {
                *last = Instant::now();
                let of = of.map_or_else(String::new, |of| format!(" of about {of}"));
                eprintln!("{place}{of} {}, {records} records", self.what);
            }
            Shown::Lines { .. } => {}
        }
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
