//! The log's documents: one small document for each commit, with an entry for each of its events.
//!
//! An entry says whom its event may concern and where it lies. An ephemeral event lies whole in its entry, and nowhere
//! else.

use bytes::Bytes;
use gcloud_sdk::google::firestore::v1::{Document, Write};
use nostr_extensions::{NostrGroupId, Sealed, Stamp, gate::Touches};
use nostr_protocol::{Event, EventId, Kind, PublicKey, UnixSecs};

use crate::{
    Cursor, LogEntry,
    decide::{AUTHOR_ONLY, EPHEMERAL, MARK_KIND, batch::Put},
    firestore::{
        documents::names::{Names, field},
        wire::{
            clock::{self, Micros, micros},
            fail::Fail,
            value::{self, Fields, ReadFields as _, Unpack, Version, id_of},
        },
    },
};

const TOUCHES_GROUP: u8 = 1;
const TOUCHES_EVERY_GROUP: u8 = 2;
const HAS_GROUP: u8 = 4;
const IS_EPHEMERAL: u8 = 8;
const FOR_AUTHOR: u8 = 16;
const VANISHES: u8 = 32;

/// Most bytes of entries in one document of the log; a document has at most 1 MiB.
pub(crate) const ENTRIES_BYTES_MAX: usize = 900 << 10;

/// An event that lies in the log only.
#[derive(Clone, Debug)]
pub(crate) struct EphemeralEvent {
    event: Event,
    pub(crate) received_at: UnixSecs,
    expires_at: UnixSecs,
    author_only: bool,
}

impl EphemeralEvent {
    pub(crate) fn byte_len(&self) -> usize {
        self.event.record().len()
    }

    pub(crate) fn seal(self, cursor: Cursor) -> Sealed {
        let Self { event, received_at, expires_at, author_only } = self;
        Sealed::new(event, Stamp { cursor, received_at, expires_at, author_only })
    }
}

/// An entry of the log as it is packed.
#[derive(Clone, Debug)]
pub(crate) struct LoggedEntry {
    pub(crate) id: EventId,
    kind: Kind,
    touches: Touches,
    group: Option<NostrGroupId>,
    routes: Vec<u64>,
    pub(crate) ephemeral: Option<EphemeralEvent>,
    /// The key that vanished with this event, and the last `created_at` that goes with it.
    pub(crate) vanished: Option<(PublicKey, UnixSecs)>,
}

impl LoggedEntry {
    /// Whether an import made this entry, which has no event.
    pub(crate) fn is_mark(&self) -> bool {
        self.kind == MARK_KIND
    }

    pub(crate) fn entry(&self, cursor: Cursor) -> LogEntry {
        LogEntry {
            cursor,
            kind: self.kind,
            touches: self.touches.clone(),
            group: self.group.clone(),
            routes: self.routes.clone(),
            sealed: self.ephemeral.clone().map(|ephemeral| ephemeral.seal(cursor)),
        }
    }
}

/// The log's document of one commit.
#[derive(Clone, Debug)]
pub(crate) struct CommitLog {
    pub(crate) name: String,
    /// The time of the commit.
    pub(crate) time: Micros,
    /// The time at which the service received the commit, which is earlier.
    pub(crate) at: Micros,
    place: u64,
    pub(crate) entries: Vec<LoggedEntry>,
}

impl CommitLog {
    pub(crate) fn read(document: &Document) -> Result<Self, Fail> {
        let read = || {
            let mut entries = unpack(document.bytes("entries")?)?;
            unpack_touched(document.bytes(field::TOUCHED).unwrap_or_default(), &mut entries)?;
            Some(Self {
                name: id_of(document).to_owned(),
                time: micros(document.update_time?),
                at: micros(document.time(field::AT)?),
                place: document.secs("place")?,
                entries,
            })
        };
        read().ok_or(Fail::Damaged("the log"))
    }

    /// Entries with their cursors.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Cursor, &LoggedEntry)> {
        (self.place..).zip(&self.entries).map(|(place, entry)| (clock::cursor(self.time, place), entry))
    }
}

/// Entries of a document of the log, packed.
#[derive(Default)]
pub(crate) struct PackedEntries {
    entries: Vec<u8>,
    count: u32,
    /// The groups that an entry touched, where there are several. Such an entry itself says that it touched every
    /// group, which a process of an older build goes by.
    touched: Vec<u8>,
}

impl PackedEntries {
    /// Bytes of all entries.
    pub(crate) fn byte_len(&self) -> usize {
        self.entries.len() + self.touched.len()
    }

    /// Appends the entry of an event.
    pub(crate) fn push(&mut self, put: &Put) {
        if let Touches::Groups(groups) = &put.touches
            && groups.len() > 1
        {
            self.tell(groups);
        }
        pack(&mut self.entries, put);
        self.count += 1;
    }

    /// Appends an entry without an event. It says that these groups may have changed and any key may have vanished.
    pub(crate) fn push_mark(&mut self, touches: &Touches) {
        if let Touches::Groups(groups) = touches {
            self.tell(groups);
        }
        pack_mark(&mut self.entries);
        self.count += 1;
    }

    /// Notes that the next entry touched these groups.
    fn tell(&mut self, groups: &[NostrGroupId]) {
        self.touched.extend_from_slice(&self.count.to_be_bytes());
        pack_len(&mut self.touched, groups.len());
        groups.iter().for_each(|group| pack_group(&mut self.touched, group));
    }
}

/// The write that logs a commit's events, the first of them at `place`.
pub(crate) fn put(names: &Names, id: &str, place: u64, packed: PackedEntries) -> Write {
    let PackedEntries { entries, touched, .. } = packed;
    let mut fields = Fields::default().number("place", place).bytes("entries", entries);
    if !touched.is_empty() {
        fields = fields.bytes(field::TOUCHED, touched);
    }
    value::stamped(value::put(names.log(id), fields, Version::Absent), field::AT)
}

/// Appends the entry of an event.
fn pack(packed: &mut Vec<u8>, put: &Put) {
    let event = &put.event;
    let is_ephemeral = put.flags & EPHEMERAL != 0;
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = match &put.touches {
        Touches::Nothing => 0,
        Touches::Groups(groups) if groups.len() == 1 => TOUCHES_GROUP,
        Touches::Groups(_) | Touches::EveryGroup => TOUCHES_EVERY_GROUP,
    };
    packed.push(
        flags
            | flag(put.group.is_some(), HAS_GROUP)
            | flag(is_ephemeral, IS_EPHEMERAL)
            | flag(put.flags & AUTHOR_ONLY != 0, FOR_AUTHOR)
            | flag(event.kind() == Kind::VANISH, VANISHES),
    );
    packed.extend_from_slice(&event.kind().0.to_be_bytes());
    packed.extend_from_slice(event.id().as_bytes());
    if let Touches::Groups(groups) = &put.touches
        && let [group] = &groups[..]
    {
        pack_group(packed, group);
    }
    if let Some(group) = &put.group {
        pack_group(packed, group);
    }
    pack_len(packed, put.routes.len());
    for route in &put.routes {
        packed.extend_from_slice(&route.to_be_bytes());
    }
    if is_ephemeral {
        packed.extend_from_slice(&put.received_at.to_be_bytes());
        packed.extend_from_slice(&put.expires_at.to_be_bytes());
        pack_len(packed, event.record().len());
        packed.extend_from_slice(event.record());
    }
    if event.kind() == Kind::VANISH {
        packed.extend_from_slice(event.pubkey().as_bytes());
        packed.extend_from_slice(&event.created_at().to_be_bytes());
    }
}

fn pack_mark(packed: &mut Vec<u8>) {
    packed.push(TOUCHES_EVERY_GROUP);
    packed.extend_from_slice(&MARK_KIND.0.to_be_bytes());
    // No event has this id, so nothing is found at its place.
    packed.extend_from_slice(&[0; 32]);
    pack_len(packed, 0);
}

fn pack_len(packed: &mut Vec<u8>, len: usize) {
    packed.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

/// A group's id has at most 128 bytes.
fn pack_group(packed: &mut Vec<u8>, group: &NostrGroupId) {
    packed.push(u8::try_from(group.as_str().len()).unwrap_or(u8::MAX));
    packed.extend_from_slice(group.as_str().as_bytes());
}

fn unpack(packed: &[u8]) -> Option<Vec<LoggedEntry>> {
    let mut left = Unpack(packed);
    let mut entries = Vec::new();
    while !left.is_empty() {
        entries.push(unpack_one(&mut left)?);
    }
    Some(entries)
}

/// Adds the groups that entries touched, of [`PackedEntries`].
fn unpack_touched(packed: &[u8], entries: &mut [LoggedEntry]) -> Option<()> {
    let mut left = Unpack(packed);
    while !left.is_empty() {
        let entry = entries.get_mut(usize::try_from(left.u32()?).ok()?)?;
        let count = left.u32()?;
        let groups = (0..count).map(|_| unpack_group(&mut left)).collect::<Option<Vec<_>>>()?;
        entry.touches = Touches::groups(groups);
    }
    Some(())
}

fn unpack_one(left: &mut Unpack<'_>) -> Option<LoggedEntry> {
    let flags = left.byte()?;
    let has = |flag: u8| flags & flag != 0;
    let kind = Kind(left.u16()?);
    let id = EventId::from_bytes(left.array()?);
    let touches = match flags & (TOUCHES_GROUP | TOUCHES_EVERY_GROUP) {
        0 => Touches::Nothing,
        TOUCHES_GROUP => Touches::groups([unpack_group(left)?]),
        _ => Touches::EveryGroup,
    };
    let group = if has(HAS_GROUP) { Some(unpack_group(left)?) } else { None };
    let count = left.u32()?;
    let mut routes = Vec::new();
    for _ in 0..count {
        routes.push(left.u64()?);
    }
    let ephemeral = if has(IS_EPHEMERAL) {
        let (received_at, expires_at) = (left.u64()?, left.u64()?);
        let len = usize::try_from(left.u32()?).ok()?;
        let event = Event::from_record(Bytes::copy_from_slice(left.take(len)?))?;
        Some(EphemeralEvent { event, received_at, expires_at, author_only: has(FOR_AUTHOR) })
    } else {
        None
    };
    let vanished = if has(VANISHES) { Some((left.key()?, left.u64()?)) } else { None };
    Some(LoggedEntry { id, kind, touches, group, routes, ephemeral, vanished })
}

fn unpack_group(left: &mut Unpack<'_>) -> Option<NostrGroupId> {
    let len = left.byte()?;
    NostrGroupId::parse(std::str::from_utf8(left.take(len.into())?).ok()?)
}
