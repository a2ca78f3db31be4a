//! Times as RFC 3339 writes them, in UTC.

use nostr_protocol::{DAY_SECS, UnixSecs};

/// The last second of the year 9999, the latest that RFC 3339 can write.
const LAST: UnixSecs = 253_402_300_799;

/// A time as `2026-11-30T08:00:00Z`. A later one than the format holds is written as the last second of the year 9999.
pub(super) fn rfc3339(at: UnixSecs) -> String {
    let at = at.min(LAST);
    let (days, secs) = (at / DAY_SECS, at % DAY_SECS);
    // Years are counted from March, so that the leap day is the last of its year (the civil calendar's 400-year cycle
    // has 146,097 days and began on 0000-03-01, 719,468 days before 1970).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3_600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (1_795_370_771, "2026-11-22T18:06:11Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(at), expected);
        }
    }
}
