//! How far it is: a bar on a terminal, else a line every few seconds.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines where there is no terminal.
const LINE_SECS: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Progress {
    shown: Shown,
    what: &'static str,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant, of: Option<u64> },
}

impl Progress {
    /// Of so much, where that is known, in units of `what`.
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
        // The templates are the four above.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { shown: Shown::Bar(bar), what }
    }

    /// It is there now; `records` so far.
    pub(crate) fn at(&mut self, place: u64, records: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                // What was counted before may have grown.
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

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
