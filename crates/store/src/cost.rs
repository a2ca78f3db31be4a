//! The cost of reading, in units that are the same on every store (docs/rules.md, "Cost of reads").
//!
//! A store counts its work while it does it: index entries and events that it looked at, ranges that it opened,
//! documents that its service charges for. A unit is about a microsecond of one core.

use std::ops::AddAssign;

/// Tags of an event that cost one unit more.
const TAGS_PER_UNIT: usize = 32;
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
    /// Units of an event that is looked at: one, and one for each 32 tags.
    #[must_use]
    pub const fn of_event(tags: usize) -> u64 {
        1 + (tags / TAGS_PER_UNIT) as u64
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

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.units = self.units.saturating_add(other.units);
        self.documents = self.documents.saturating_add(other.documents);
    }
}
