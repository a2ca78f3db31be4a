//! Events as documents. Each is written once, together with the log's document that names it, and never again.

use bytes::Bytes;
use gcloud_sdk::google::firestore::v1::{Document, Write, value::ValueType};
use nostr_extensions::{
    EventMeta, NostrGroupId, Sealed, Stamp, admit::NEVER, gate::Touches, mls_gateway::deletion::owners,
};
use nostr_protocol::{Event, EventRef, PublicKey, UnixSecs};

use crate::{
    Cursor, RECEIVED_KINDS,
    decide::{AUTHOR_ONLY, COMMIT, LOG_ONLY, TOUCHES_GROUPS, batch::Put, number_of},
    firestore::{
        documents::names::{Names, field},
        wire::{
            clock::{self, SEC, micros, timestamp},
            fail::Fail,
            value::{self, Fields, ReadFields as _, Version, hex},
        },
    },
    moving::Exported,
};

/// Estimated bytes of a document besides its record, its numbers and its name.
const DOCUMENT_BYTES: usize = 400;

/// An event with its stamp, as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct EventDocument {
    pub(crate) event: Event,
    pub(crate) cursor: Cursor,
    pub(crate) received_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
    flags: i16,
    /// The groups that it touched; `None` where its kind says all.
    told: Option<Touches>,
}

/// The fields of an event without its content, which may be long.
pub(crate) const WITHOUT_CONTENT: [&str; 6] =
    ["head", field::RECEIVED_AT, field::EXPIRES_AT, "flags", "place", field::TOUCHED];

impl EventDocument {
    /// Reads a document, or the fields [`WITHOUT_CONTENT`].
    pub(crate) fn read(document: &Document) -> Result<Self, Fail> {
        let read = || {
            let expires_at = expires_at(document);
            // A record needs some JSON at its end.
            let flags = i16::try_from(document.int("flags")?).ok()?;
            let told = match document.texts(field::TOUCHED) {
                Some(ids) => {
                    Some(Touches::groups(ids.into_iter().map(NostrGroupId::parse).collect::<Option<Vec<_>>>()?))
                }
                None => (flags & TOUCHES_GROUPS != 0).then_some(Touches::EveryGroup),
            };
            let record = [document.bytes("head")?, document.bytes("json").unwrap_or(b"{}")].concat();
            Some(Self {
                event: Event::from_record(Bytes::from(record))?,
                cursor: cursor(document)?,
                received_at: document.secs(field::RECEIVED_AT)?,
                expires_at,
                flags,
                told,
            })
        };
        read().ok_or(Fail::Damaged("an event"))
    }

    pub(crate) const fn is_author_only(&self) -> bool {
        self.flags & AUTHOR_ONLY != 0
    }

    /// Whether it stays when the key that signed it vanishes, whether or not its content was read.
    pub(crate) const fn is_commit(&self) -> bool {
        self.flags & COMMIT != 0
    }

    /// Whether queries may find it.
    pub(crate) const fn is_found(&self) -> bool {
        self.flags & LOG_ONLY == 0
    }

    /// The groups that it touched.
    pub(crate) fn touches(&self) -> Touches {
        self.told.clone().unwrap_or_else(|| Touches::by_kind(self.event.view()))
    }

    pub(crate) fn exported(self) -> Exported {
        let kept = EventMeta {
            received_at: self.received_at,
            expires_at: self.expires_at,
            author_only: self.is_author_only(),
            log_only: !self.is_found(),
            touches: self.told,
        };
        Exported { event: self.event, kept }
    }

    pub(crate) fn seal(self) -> Sealed {
        let (event, stamp) = self.unpack();
        Sealed::new(event, stamp)
    }

    /// The event with its stamp.
    pub(crate) fn unpack(self) -> (Event, Stamp) {
        let author_only = self.is_author_only();
        let Self { event, cursor, received_at, expires_at, .. } = self;
        (event, Stamp { cursor, received_at, expires_at, author_only })
    }
}

/// The end of the time of an event's document.
pub(crate) fn expires_at(document: &Document) -> UnixSecs {
    document.time(field::EXPIRES_AT).map_or(NEVER, |time| micros(time) / SEC)
}

/// The cursor of an event's document.
pub(crate) fn cursor(document: &Document) -> Option<Cursor> {
    let time = document.update_time.map(micros)?;
    Some(clock::cursor(time, document.secs("place")?))
}

/// The number that every event has of which a vanishing key is the author or a recipient. Queries of readers do not use
/// it.
pub(crate) fn owner_number(key: &PublicKey) -> i64 {
    number_of(&[b"O", &key.as_bytes()[..]].concat())
}

/// The write that stores an event at a place of its commit. It fails if the event is stored, unless it `replaces` one
/// that has expired.
pub(crate) fn put(names: &Names, put: &Put, place: u64, replaces: bool) -> Write {
    let event = &put.event;
    let mut numbers = put.prefixes.clone();
    numbers.extend(owners(event.view()).map(|key| owner_number(&key)));
    numbers.sort_unstable();
    numbers.dedup();
    let (head, json) = event.record().split_at(event.record().len() - event.json().len());
    let mut fields = Fields::default()
        .bytes("head", head.to_vec())
        .bytes("json", json.to_vec())
        .number(field::RECEIVED_AT, put.received_at)
        .int("flags", put.flags.into())
        .number("place", place)
        .number(field::CREATED_AT, event.created_at())
        .ints(field::PREFIXES, &numbers);
    if put.expires_at != NEVER {
        let at = timestamp(put.expires_at.min(TIME_MAX) * SEC);
        fields = fields.with(field::EXPIRES_AT, ValueType::TimestampValue(at));
    }
    match put.told() {
        Some(Touches::Nothing) => fields = fields.texts(field::TOUCHED, []),
        Some(Touches::Groups(groups)) => fields = fields.texts(field::TOUCHED, groups.iter().map(NostrGroupId::as_str)),
        Some(Touches::EveryGroup) | None => {}
    }
    if let Some(address) = &put.address {
        fields = fields.text("address", &hex(address));
    }
    let name = names.event(&event.id());
    let write = if replaces { value::set(name, fields) } else { value::put(name, fields, Version::Absent) };
    if RECEIVED_KINDS.contains(&event.kind()) && put.flags & LOG_ONLY == 0 {
        value::stamped(write, field::AT)
    } else {
        write
    }
}

/// The latest time that the service can hold, in Unix seconds: the end of the year 9999.
const TIME_MAX: UnixSecs = 253_402_300_799;

/// Estimated bytes that storing an event takes, with its entry in the log.
pub(crate) fn byte_len(event: EventRef<'_>) -> usize {
    let tags = event.tags().iter().count();
    event.record().len() + DOCUMENT_BYTES + tags * 20
}
