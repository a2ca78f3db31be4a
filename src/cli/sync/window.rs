//! The filter of the operator, narrowed to a part of time for each request.

use nostr_protocol::{Event, EventId, Filter, Kind, UnixSecs};
use serde_json::{Map, Value, json};

/// A part of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) since: UnixSecs,
    pub(super) until: UnixSecs,
}

impl Window {
    /// The two halves, the later one first; `None` for a single second.
    pub(super) const fn halves(self) -> Option<[Self; 2]> {
        if self.since >= self.until {
            return None;
        }
        let middle = self.since + (self.until - self.since) / 2;
        Some([Self { since: middle + 1, until: self.until }, Self { since: self.since, until: middle }])
    }

    pub(super) const fn holds(self, at: UnixSecs) -> bool {
        self.since <= at && at <= self.until
    }
}

/// The operator's filter, as it was written and as it was read.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    written: Map<String, Value>,
    pub(super) filter: Filter,
}

impl Asked {
    /// Reads the filter; without one, every event is asked for.
    ///
    /// # Errors
    /// In words for the operator.
    pub(super) fn read(json: Option<&str>) -> Result<Self, String> {
        let json = json.unwrap_or("{}");
        let failed = |error: serde_json::Error| format!("--filter: {error}");
        let filter: Filter = serde_json::from_str(json).map_err(failed)?;
        if filter.limit.is_some() {
            return Err("--filter: a limit says nothing about which events are missing; leave it out".to_owned());
        }
        let written = serde_json::from_str(json).map_err(failed)?;
        Ok(Self { written, filter })
    }

    /// The whole time that the filter asks about.
    pub(super) fn window(&self) -> Window {
        Window { since: self.filter.since.unwrap_or(0), until: self.filter.until.unwrap_or(UnixSecs::MAX) }
    }

    /// Whether the event is one that was asked for.
    pub(super) fn fits(&self, event: &Event, window: Window) -> bool {
        self.filter.matches(event.view()) && window.holds(event.created_at())
    }

    /// Whether the filter names the kind.
    pub(super) fn names(&self, kind: Kind) -> bool {
        self.filter.kinds.as_ref().is_some_and(|kinds| kinds.contains(&kind))
    }

    /// The filter of a part of time, as the relay is to read it.
    pub(super) fn during(&self, window: Window, limit: Option<usize>) -> String {
        let mut written = self.written.clone();
        for (name, value, is_open) in
            [("since", window.since, window.since == 0), ("until", window.until, window.until == UnixSecs::MAX)]
        {
            if is_open {
                written.remove(name);
            } else {
                written.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(limit) = limit {
            written.insert("limit".to_owned(), json!(limit));
        }
        Value::Object(written).to_string()
    }

    /// A text that tells this filter from others.
    pub(super) fn text(&self) -> String {
        Value::Object(self.written.clone()).to_string()
    }
}

/// A filter of these ids.
pub(super) fn of_ids(ids: &[EventId]) -> String {
    json!({ "ids": ids.iter().map(EventId::to_hex).collect::<Vec<_>>() }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_halved_down_to_a_second_and_loses_none() {
        let mut windows = vec![Window { since: 3, until: 20 }];
        let mut seconds = Vec::new();
        while let Some(window) = windows.pop() {
            match window.halves() {
                Some(halves) => windows.extend(halves),
                None => seconds.push(window.since),
            }
        }
        assert_eq!(seconds, (3..=20).collect::<Vec<_>>());
        assert!(Window { since: 0, until: UnixSecs::MAX }.halves().is_some());
    }

    #[test]
    fn the_filter_keeps_its_conditions_and_takes_the_windows_times() {
        let asked = Asked::read(Some(r##"{"kinds":[1],"#t":["a"],"since":5}"##)).expect("a filter");
        assert_eq!(asked.window(), Window { since: 5, until: UnixSecs::MAX });
        let during = asked.during(Window { since: 7, until: 9 }, Some(2));
        assert_eq!(during, r##"{"#t":["a"],"kinds":[1],"limit":2,"since":7,"until":9}"##);
        assert_eq!(asked.during(Window { since: 0, until: UnixSecs::MAX }, None), r##"{"#t":["a"],"kinds":[1]}"##);
        for wrong in ["[]", "{\"limit\":3}", "{\"search\":\"x\"}", "{"] {
            assert!(Asked::read(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
