//! Texts on a terminal: words of others without control characters, ages and times.

use std::fmt::Write as _;

use jiff::Timestamp;

/// Most characters of another's words that are shown.
const SAID_CHARS_MAX: usize = 500;

/// Another's words as one line: control characters and marks that turn the direction of writing are spelled out, lest
/// they move the cursor or hide a part of the line. A longer text is cut.
pub(in crate::cli) fn said(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SAID_CHARS_MAX) {
        if is_harmless(c) {
            shown.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        }
    }
    if text.chars().nth(SAID_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The JSON of an event as one line, in which control characters are escaped. JSON has them inside strings alone, and
/// an escape of JSON stands for the same character.
pub(in crate::cli) fn json_line(json: &[u8]) -> String {
    let mut line = String::with_capacity(json.len());
    for c in String::from_utf8_lossy(json).chars() {
        if is_harmless(c) {
            line.push(c);
        } else {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
    }
    line
}

fn is_harmless(c: char) -> bool {
    let turns_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns_direction && !matches!(c, '\u{2028}' | '\u{2029}')
}

/// A time as RFC 3339 writes it, in UTC.
pub(in crate::cli) fn time(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|secs| Timestamp::from_second(secs).ok());
    at.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The seconds of a time as RFC 3339 writes it; `None` for another text, and for a time before 1970.
pub(in crate::cli) fn secs(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_second()).ok()
}

/// A span of time in its largest whole unit: `45 s`, `3 min`, `2 h`, `12 d`.
pub(in crate::cli) fn span(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        7_200..=172_799 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// The distance of a time from now: `3 h ago`, `in 2 d`.
pub(in crate::cli) fn distance(at: u64, now: u64) -> String {
    if at > now { format!("in {}", span(at - now)) } else { format!("{} ago", span(now - at)) }
}

/// A number of things: `1 member`, `2 members`.
pub(in crate::cli) fn count(number: impl TryInto<u64>, thing: &str) -> String {
    // No count here is beyond 64 bits.
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_cannot_write_on_the_terminal() {
        assert_eq!(said("blocked: a\u{1b}[2J\nb\u{202e}c\u{9b}"), "blocked: a\\u{1b}[2J\\u{a}b\\u{202e}c\\u{9b}");
        assert_eq!(said(&"ü".repeat(SAID_CHARS_MAX)), "ü".repeat(SAID_CHARS_MAX));
        assert_eq!(said(&"ü".repeat(SAID_CHARS_MAX + 1)).chars().count(), SAID_CHARS_MAX + 1);
    }

    #[test]
    fn an_escaped_line_is_the_same_json() {
        let json = "{\"content\":\"a\u{7f}\u{9b}31m\u{2028}\u{202e}ü\"}";
        let line = json_line(json.as_bytes());
        assert!(line.chars().all(is_harmless), "{line}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(read(&line), read(json));
    }

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(
            (time(951_782_400).as_str(), secs("2000-02-29T00:00:00Z")),
            ("2000-02-29T00:00:00Z", Some(951_782_400))
        );
        assert_eq!((secs("1969-12-31T23:59:59Z"), secs("tomorrow")), (None, None));
        assert_eq!(time(u64::MAX), "9999-12-30T22:00:00Z");
        for (at, text) in [(100, "0 s ago"), (0, "100 s ago"), (3_700, "in 60 min"), (900_000, "in 10 d")] {
            assert_eq!(distance(at, 100), text);
        }
        assert_eq!(span(7_200), "2 h");
        assert_eq!([0_u64, 1, 2].map(|number| count(number, "key")), ["0 keys", "1 key", "2 keys"]);
    }
}
