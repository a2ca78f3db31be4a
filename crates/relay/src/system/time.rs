//! Times in answers and in logs: RFC 3339, in UTC, to the second.

use jiff::Timestamp;
use nostr_protocol::UnixSecs;

/// A time as RFC 3339 writes it: `2025-01-01T00:00:00Z`. A time behind the year 9999 is written as its end.
pub(crate) fn rfc3339(at: UnixSecs) -> String {
    let at = i64::try_from(at).ok().and_then(|secs| Timestamp::from_second(secs).ok());
    at.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (1_795_370_771, "2026-11-22T18:06:11Z"),
        ] {
            assert_eq!(rfc3339(at), text);
        }
        assert!(rfc3339(u64::MAX).starts_with("9999-12-3"));
    }
}
