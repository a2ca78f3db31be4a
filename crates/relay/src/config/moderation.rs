//! The sections about the events that the relay takes and keeps: kinds, retention, write policy.

use nostr_extensions::{KindRange, Retention};
use nostr_protocol::DAY_SECS;

use super::{section::section, value::text};

/// Largest quota of events: a count reads all of them.
const QUOTA_EVENTS_MAX: u64 = 500_000;
/// Largest quota of bytes.
const QUOTA_BYTES_MAX: u64 = 1 << 40;

section! {
    /// The kinds that the relay takes. NIP-86 adds to them and takes away from them.
    pub struct Kinds for "kinds" in config.kinds {
        /// Kinds and ranges, `["0", "443-450", "1059"]`; empty: every kind. Kinds 5 and 62 are always taken.
        allowed: Vec<KindRange> = "", by list(kind_range);
    }
}

section! {
    /// Bounds on events that would be kept without end: times, told in NIP-11's `retention`, and quotas of each key.
    pub struct RetentionRules for "retention" in config.retention {
        /// Kinds or ranges, each with a time from receipt in s, m, h or d: `["1=30d", "30000-39999=1d"]`. The first one
        /// that holds a kind counts, for events received from then on. Kinds 5 and 62, and kinds that have a time of
        /// their own, keep theirs.
        rules: Vec<Retention> = "", by list(retention);
        /// Events of one key that are kept without end; 0 for any number. Keys that the operator named have no quota.
        events_per_key_max: u64 = "0" in "events", by integer(0..=QUOTA_EVENTS_MAX);
        /// Bytes of the events of one key that are kept without end; 0 for any number.
        bytes_per_key_max: u64 = "0" in "bytes", by integer(0..=QUOTA_BYTES_MAX);
    }
}

section! {
    /// A program of the operator's that may refuse events, by strfry's plugin protocol.
    pub struct WritePolicy for "write_policy" in config.write_policy {
        /// A path, or a command with spaces for the shell; empty: none. It is asked about each event that the rules
        /// take.
        plugin: Option<String> = "", by optional(text);
        /// Longest time without an answer while the program is asked, after which its events are refused with `error:`
        /// and it is started anew. It has 10 s from its start for its first answer.
        timeout_ms: u64 = "2000" in "ms", by integer(10..=60_000);
    }
}

/// Reads a kind, or two with a hyphen between them.
fn kind_range(text: &str) -> Result<KindRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let kind = |text: &str| text.trim().parse::<u16>().ok();
    match (kind(first), kind(last)) {
        (Some(first), Some(last)) if first <= last => Ok(KindRange { first, last }),
        _ => Err("not a kind or a range; write 1, or 30000-39999".to_owned()),
    }
}

/// Reads kinds with a time behind them.
fn retention(text: &str) -> Result<Retention, String> {
    let wrong = || "not kinds with a time; write 1=30d, or 30000-39999=12h".to_owned();
    let (kinds, time) = text.split_once('=').ok_or_else(wrong)?;
    let time = time.trim();
    let (number, unit_secs) = match time.char_indices().last().ok_or_else(wrong)? {
        (at, 's') => (&time[..at], 1),
        (at, 'm') => (&time[..at], 60),
        (at, 'h') => (&time[..at], 3_600),
        (at, 'd') => (&time[..at], DAY_SECS),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(unit_secs) {
        Some(secs @ 1..) => Ok(Retention { kinds: kind_range(kinds)?, secs }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_times_are_read() {
        assert_eq!(kind_range("7"), Ok(KindRange { first: 7, last: 7 }));
        assert_eq!(kind_range("443-450"), Ok(KindRange { first: 443, last: 450 }));
        let rule = |first, last, secs| Ok(Retention { kinds: KindRange { first, last }, secs });
        assert_eq!(retention("1=30d"), rule(1, 1, 30 * DAY_SECS));
        assert_eq!(retention("30000-39999 = 12h"), rule(30_000, 39_999, 43_200));
        assert_eq!((retention("0=5s"), retention("0=5m")), (rule(0, 0, 5), rule(0, 0, 300)));
    }

    /// Over Firestore a count costs a document for each event, and a party has a share of the documents of a minute.
    #[cfg(feature = "firestore")]
    #[test]
    fn a_quota_over_firestore_can_be_counted() {
        use std::path::Path;

        use crate::config::Config;

        let read = |max: u32, reads: u32| {
            let text = format!(
                "[retention]\nevents_per_key_max = {max}\n[extensions.mls_gateway]\nstorage_backend = 'firestore'\n\
                 project_id = 'p'\nfirestore_reads_per_minute_max = {reads}"
            );
            Config::parse(&text, Path::new("relay.toml"), []).map_err(|error| error.to_string())
        };
        for (max, reads) in [(7_500, 60_000), (0, 60_000), (300_000, 0)] {
            assert!(read(max, reads).is_ok(), "{max} of {reads}");
        }
        let expected = "relay.toml:2: retention.events_per_key_max: a count of a key's events reads each of them; \
                        write at most an eighth of firestore_reads_per_minute_max";
        assert_eq!(read(7_501, 60_000).err().as_deref(), Some(expected));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "x", "-1", "9-1", "65536", "1-2-3", "1,2"] {
            assert!(kind_range(text).is_err(), "{text}");
        }
        for text in ["1", "1=", "1=0d", "1=d", "1=5", "1=5w", "=5d", "1=-5d", "1=99999999999999999999d", "1=5€"] {
            assert!(retention(text).is_err(), "{text}");
        }
    }
}
