//! The cost of reading, in units that are the same on every store (docs/rules.md, "Cost of reads").
//!
//! A store counts its work while it does it: index entries and events that it looked at, ranges that it opened,
//! documents that its service charges for. A unit is about a microsecond of one core.

use std::ops::AddAssign;

use nostr_protocol::EventRef;

/// Tags of an event that cost one unit more.
const TAGS_PER_UNIT: usize = 32;
/// Bytes of an event's JSON that cost one unit more, beyond as many that cost nothing.
const BYTES_PER_UNIT: usize = 1 << 10;
/// Units of as many bytes that are sent to a client: they are copied, perhaps compressed, and written.
const SENT_UNITS: u64 = 3;
/// Units of a document of Firestore.
const DOCUMENT_UNITS: u64 = 8;

/// The work of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Units of docs/rules.md, "Cost of reads". Documents are among them.
    pub units: u64,
    /// Documents that the service charges for.
    pub documents: u64,
}

impl Cost {
    /// Units of an event that is looked at: one, one for each 32 tags, and one for each KiB beyond the first.
    #[must_use]
    pub fn of_event(event: EventRef<'_>) -> u64 {
        1 + (event.tags().len() / TAGS_PER_UNIT) as u64 + kib_beyond_first(event)
    }

    /// Units of an event that is sent to a client: three for each KiB beyond the first.
    #[must_use]
    pub fn of_sent(event: EventRef<'_>) -> u64 {
        SENT_UNITS * kib_beyond_first(event)
    }

    /// The cost of documents that were read.
    #[must_use]
    pub const fn of_documents(documents: u64) -> Self {
        Self { units: documents * DOCUMENT_UNITS, documents }
    }

    /// A cost of units alone.
    #[must_use]
    pub const fn of_units(units: u64) -> Self {
        Self { units, documents: 0 }
    }
}

/// Whole KiB of an event's JSON behind its first one.
fn kib_beyond_first(event: EventRef<'_>) -> u64 {
    (event.json().len().saturating_sub(1) / BYTES_PER_UNIT) as u64
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.units = self.units.saturating_add(other.units);
        self.documents = self.documents.saturating_add(other.documents);
    }
}
