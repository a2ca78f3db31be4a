//! The position that an export has reached.

use crate::Cursor;

/// The parts of an export, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each part has the name of its records")]
pub enum Part {
    Vanished,
    Tombstones,
    AddressTombstones,
    Claimed,
    Founded,
    Unlisted,
    Groups,
    Events,
}

impl Part {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Vanished, "vanished"),
        (Self::Tombstones, "tombstones"),
        (Self::AddressTombstones, "address-tombstones"),
        (Self::Claimed, "claimed"),
        (Self::Founded, "founded"),
        (Self::Unlisted, "unlisted"),
        (Self::Groups, "groups"),
        (Self::Events, "events"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).map(|(part, _)| *part)
    }
}

/// A position in an export. Only the store that gave the position can read its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportPosition {
    part: Part,
    /// The last cursor of which the event is part of the export.
    up_to: Cursor,
    /// The key of the last record of the part, in the store's own form.
    behind: Vec<u8>,
}

impl ExportPosition {
    /// The position before everything. `up_to` is the head of the store's log; later events are not part of the export.
    #[must_use]
    pub const fn start(up_to: Cursor) -> Self {
        Self { part: Part::Vanished, up_to, behind: Vec::new() }
    }

    /// The position before all events that lie in the log up to `up_to`.
    #[must_use]
    pub const fn events(up_to: Cursor) -> Self {
        Self { part: Part::Events, up_to, behind: Vec::new() }
    }

    /// Reads the text that [`Display`](std::fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('/');
        let (part, up_to, behind) = (words.next()?, words.next()?, words.next()?);
        let part = Part::ALL.iter().find(|(_, name)| *name == part)?.0;
        let digits = behind.as_bytes();
        let bytes = digits.chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let position = Self { part, up_to: up_to.parse().ok()?, behind: bytes.collect::<Option<_>>()? };
        (words.next().is_none() && position.to_string() == text).then_some(position)
    }

    /// The part that comes next.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// Last cursor that is part of the export.
    #[must_use]
    pub const fn up_to(&self) -> Cursor {
        self.up_to
    }

    /// The key of the last record of the part; empty before the first.
    pub(crate) fn behind(&self) -> &[u8] {
        &self.behind
    }

    /// The cursor in a position after an event.
    pub(crate) fn behind_cursor(&self) -> Cursor {
        self.behind.iter().fold(0, |cursor, byte| cursor << 8 | Cursor::from(*byte))
    }

    /// The position after the record of this key, in the same part.
    pub(crate) fn after(&self, key: impl Into<Vec<u8>>) -> Self {
        Self { behind: key.into(), ..*self }
    }

    /// The position at the beginning of the next part; `None` after the last part.
    pub(crate) fn next_part(&self) -> Option<Self> {
        Some(Self { part: self.part.next()?, up_to: self.up_to, behind: Vec::new() })
    }
}

impl std::fmt::Display for ExportPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/", self.part.name(), self.up_to)?;
        self.behind.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The position after a page of a part: after the page's last key, or without one at the next part.
pub(crate) fn after_part(from: &ExportPosition, last: Option<Vec<u8>>) -> Option<ExportPosition> {
    match last {
        Some(key) => Some(from.after(key)),
        None => from.next_part(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_and_other_text_is_refused() {
        let mut position = Some(ExportPosition::start(17));
        let mut parts = Vec::new();
        while let Some(at) = position {
            let behind = at.after([0, 0xab, 0xff]);
            for it in [&at, &behind] {
                assert_eq!(ExportPosition::parse(&it.to_string()).as_ref(), Some(it));
            }
            parts.push(at.part());
            position = at.next_part();
        }
        assert_eq!(parts.len(), Part::ALL.len());
        assert!(parts.is_sorted());
        for text in ["", "events", "events/1", "events/x/", "rest/1/", "events/1/a", "events/1/AB", "events/1/00/"] {
            assert_eq!(ExportPosition::parse(text), None, "{text}");
        }
        assert_eq!(ExportPosition::start(9).after(300_u64.to_be_bytes()).behind_cursor(), 300);
    }
}
