//! Announcements: each instance tells the others its release, since when it runs, and whether it is ready.
//!
//! Source: docs/rules.md, "Console". An announcement is for people to read: no decision depends on it. It travels in
//! the place of charges, under a kind of bucket that no release has, so that an earlier release passes it over.

use std::collections::HashMap;

use parking_lot::Mutex;

/// First byte of a part of an announcement, where a charge has the kind of its bucket.
pub(super) const PART: u8 = 255;
/// Bytes of a part behind its first byte.
pub(super) const PART_BYTES: usize = 12;
/// Most parts of an announcement.
pub(super) const PARTS_MAX: usize = 10;
/// Most bytes of the release's name.
const VERSION_BYTES_MAX: usize = 32;
/// Most bytes of the reason why an instance is not ready.
const REASON_BYTES_MAX: usize = 80;
/// Most other instances that are remembered.
const ANNOUNCED_MAX: usize = 64;
/// Milliseconds after which an instance that announced itself no more is forgotten.
const ANNOUNCED_MS: u64 = 60_000;

const _: () = assert!(4 + 1 + VERSION_BYTES_MAX + 1 + REASON_BYTES_MAX <= PARTS_MAX * PART_BYTES, "it fits");

/// The statement of an instance about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// Seconds for which the instance has run.
    pub(crate) uptime_secs: u32,
    /// Its release.
    pub(crate) version: String,
    /// The reason why it should get no clients, if there is one.
    pub(crate) not_ready: Option<String>,
}

impl Announcement {
    /// The announcement in parts.
    pub(super) fn parts(&self) -> Vec<[u8; PART_BYTES]> {
        let mut bytes = self.uptime_secs.to_be_bytes().to_vec();
        let reason = self.not_ready.as_deref().unwrap_or_default();
        for (text, most) in [(self.version.as_str(), VERSION_BYTES_MAX), (reason, REASON_BYTES_MAX)] {
            let text = &text[..text.floor_char_boundary(most)];
            // Both bounds are below 256.
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(PART_BYTES), 0);
        bytes.as_chunks::<PART_BYTES>().0.to_vec()
    }

    /// Reads the parts; `None` for any others.
    pub(super) fn read(parts: &[[u8; PART_BYTES]]) -> Option<Self> {
        if parts.len() > PARTS_MAX {
            return None;
        }
        let (uptime, mut rest) = parts.as_flattened().split_first_chunk::<4>()?;
        let mut text = |most: usize| {
            let (length, bytes) = rest.split_first()?;
            let (text, behind) = bytes.split_at_checked(usize::from(*length).min(most))?;
            rest = behind;
            std::str::from_utf8(text).ok().map(str::to_owned)
        };
        let (version, reason) = (text(VERSION_BYTES_MAX)?, text(REASON_BYTES_MAX)?);
        let not_ready = (!reason.is_empty()).then_some(reason);
        Some(Self { uptime_secs: u32::from_be_bytes(*uptime), version, not_ready })
    }
}

/// Another instance, as it announced itself last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The instance's name.
    pub(crate) instance: [u8; 16],
    /// Time of the receipt, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) announcement: Announcement,
}

/// The other instances.
#[derive(Default)]
pub(super) struct Announced(Mutex<HashMap<[u8; 16], (u64, Announcement)>>);

impl Announced {
    /// Notes an announcement. One of an instance beyond [`ANNOUNCED_MAX`] is passed over.
    pub(super) fn note(&self, instance: [u8; 16], announcement: Announcement, now_ms: u64) {
        let mut seen = self.0.lock();
        forget(&mut seen, now_ms);
        if seen.len() < ANNOUNCED_MAX || seen.contains_key(&instance) {
            seen.insert(instance, (now_ms, announcement));
        }
    }

    /// The instances of the last [`ANNOUNCED_MS`], in the order of their names.
    pub(super) fn now(&self, now_ms: u64) -> Vec<Seen> {
        let mut seen = self.0.lock();
        forget(&mut seen, now_ms);
        let seen = seen.iter();
        let mut seen: Vec<Seen> = seen
            .map(|(instance, (at_ms, announcement))| Seen {
                instance: *instance,
                at_ms: *at_ms,
                announcement: announcement.clone(),
            })
            .collect();
        seen.sort_unstable_by_key(|seen| seen.instance);
        seen
    }
}

fn forget(seen: &mut HashMap<[u8; 16], (u64, Announcement)>, now_ms: u64) {
    seen.retain(|_, (at_ms, _)| now_ms.abs_diff(*at_ms) < ANNOUNCED_MS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(reason: &str) -> Announcement {
        let not_ready = (!reason.is_empty()).then(|| reason.to_owned());
        Announcement { uptime_secs: 3_600, version: "0.5.0".to_owned(), not_ready }
    }

    #[test]
    fn an_announcement_is_read_as_it_was_written() {
        for reason in ["", "the store takes no events"] {
            let parts = announcement(reason).parts();
            assert_eq!(Announcement::read(&parts), Some(announcement(reason)));
            for end in 0..parts.len() - 1 {
                assert_ne!(Announcement::read(&parts[..end]), Some(announcement(reason)), "{end}");
            }
        }
        let long = Announcement { version: "ü".repeat(99), ..announcement(&"x".repeat(999)) };
        let parts = long.parts();
        assert!(parts.len() <= PARTS_MAX);
        let read = Announcement::read(&parts).expect("it is cut");
        assert_eq!(
            (read.version.len(), read.not_ready.map(|it| it.len())),
            (VERSION_BYTES_MAX, Some(REASON_BYTES_MAX))
        );
        assert_eq!(Announcement::read(&[[0xff; PART_BYTES]; PARTS_MAX]), None, "no text");
        assert_eq!(Announcement::read(&[[0; PART_BYTES]; PARTS_MAX + 1]), None);
    }

    #[test]
    fn instances_are_remembered_for_a_minute_and_up_to_a_bound() {
        let announced = Announced::default();
        for n in 0..=ANNOUNCED_MAX {
            announced.note([u8::try_from(n).expect("few"); 16], announcement(""), 1_000);
        }
        assert_eq!(announced.now(1_000).len(), ANNOUNCED_MAX);
        announced.note([3; 16], announcement("full"), 2_000);
        let seen = announced.now(999 + ANNOUNCED_MS);
        assert_eq!((seen.len(), seen[3].at_ms, &seen[3].announcement), (ANNOUNCED_MAX, 2_000, &announcement("full")));
        assert_eq!(announced.now(1_000 + ANNOUNCED_MS).len(), 1);
        announced.note([200; 16], announcement(""), 1_000 + ANNOUNCED_MS);
        assert_eq!(announced.now(1_000 + ANNOUNCED_MS).len(), 2, "there is room again");
    }
}
