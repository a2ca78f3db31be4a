//! The form of an export: JSON lines, each an object with one member that names its sort.
//!
//! The first line says what it is, the last that it is whole. In between stand records, and after each page of them a
//! mark: where the store goes on, and the SHA-256 of all lines before. Nothing is written into a store that does not have
//! such a mark behind it.

use std::{borrow::Cow, collections::BTreeMap};

use nostr_extensions::{EventMeta, GroupRecord, ManagedGroup, NostrGroupId, Restored, Role, Source, admit::NEVER};
use nostr_protocol::{PublicKey, UnixSecs, Unverified, hex};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Archived, Record};

/// The version of this form; a reader knows its own and those before.
pub const FORMAT: u32 = 1;

/// Bytes as lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::to_hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let bytes = hex::parse_lower(text.as_bytes());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom(format_args!("not {} lower-case hex digits", N * 2)))
    }
}

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// The release that wrote it.
    pub version: String,
    /// When it was begun.
    pub exported_at: UnixSecs,
    /// About how many events there were then.
    pub events: u64,
    /// How many groups.
    pub groups: u64,
}

/// What stands behind a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The [`super::ExportPosition`] from which the store goes on.
    pub(super) next: String,
    /// How many lines there are before this one.
    pub(super) lines: u64,
    /// Of those lines.
    pub(super) sha256: Hex<32>,
}

/// What the last line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// How many lines there are before this one.
    pub(super) lines: u64,
    /// How many records of each sort.
    pub(super) records: BTreeMap<String, u64>,
    /// Of all lines before.
    pub(super) sha256: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Wire<'a> {
    RnostrExport(Header),
    Vanished {
        key: Hex<32>,
        at: UnixSecs,
    },
    Tombstone {
        target: Hex<16>,
        deleter: Hex<16>,
        public: bool,
    },
    AddressTombstone {
        address: Hex<50>,
        until: UnixSecs,
    },
    Claimed {
        owner: Hex<16>,
        content: Hex<16>,
    },
    Founded {
        key: Hex<32>,
        at: Vec<UnixSecs>,
    },
    Unlisted(Cow<'a, str>),
    Group {
        id: Cow<'a, str>,
        source: Source,
        seq: u64,
        created_at: UnixSecs,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_name: Option<(u64, String)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_epoch: Option<u64>,
        admins: Vec<Hex<32>>,
        members: Vec<Hex<32>>,
    },
    Event {
        received_at: UnixSecs,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<UnixSecs>,
        #[serde(default, skip_serializing_if = "is_false")]
        author_only: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        log_only: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        touches_groups: bool,
        #[serde(borrow)]
        signed: &'a RawValue,
    },
    Mark(Mark),
    End(End),
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A line as it is read.
pub(crate) enum Line {
    Header(Header),
    Record(Record<Restored>),
    Mark(Mark),
    End(End),
}

/// The beginning of the first line.
pub(super) const HEADER: &[u8] = b"{\"rnostr_export\":";
/// The beginning of a line that ends a page.
pub(super) const MARK: &[u8] = b"{\"mark\":";
/// The beginning of the last line.
pub(super) const END: &[u8] = b"{\"end\":";

/// The sort of the record in a line.
pub(super) fn sort_of(line: &[u8]) -> Option<&str> {
    let name = line.strip_prefix(b"{\"")?;
    let end = name.iter().position(|c| *c == b'"')?;
    std::str::from_utf8(&name[..end]).ok()
}

/// Reads a line; of an event id and signature are checked, which is most of the cost.
///
/// # Errors
/// What is wrong with it, for the operator.
pub(crate) fn read(line: &[u8]) -> Result<Line, String> {
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        // It is all one line.
        text.split(" at line ").next().unwrap_or_default().to_owned()
    })?;
    let group_id = |id: &str| NostrGroupId::parse(id).ok_or_else(|| "not a group id".to_owned());
    Ok(Line::Record(match wire {
        Wire::RnostrExport(header) => return Ok(Line::Header(header)),
        Wire::Mark(mark) => return Ok(Line::Mark(mark)),
        Wire::End(end) => return Ok(Line::End(end)),
        Wire::Vanished { key, at } => Record::Vanished { key: PublicKey::from_bytes(key.0), at },
        Wire::Tombstone { target, deleter, public } => {
            Record::Tombstone { target: target.0, deleter: deleter.0, public }
        }
        Wire::AddressTombstone { address, until } => Record::AddressTombstone { address: address.0, until },
        Wire::Claimed { owner, content } => Record::Claimed { owner: owner.0, content: content.0 },
        Wire::Founded { key, mut at } => {
            at.sort_unstable();
            Record::Founded { key: PublicKey::from_bytes(key.0), at }
        }
        Wire::Unlisted(id) => Record::Unlisted(group_id(&id)?),
        Wire::Group { id, source, seq, created_at, display_name, last_epoch, admins, members } => {
            let with = |keys: Vec<Hex<32>>, role| keys.into_iter().map(move |key| (PublicKey::from_bytes(key.0), role));
            let record = GroupRecord { source, seq, created_at, display_name, last_epoch };
            let view = ManagedGroup {
                record,
                members: with(members, Role::Member).chain(with(admins, Role::Admin)).collect(),
            };
            Record::Group { id: group_id(&id)?, view }
        }
        Wire::Event { received_at, expires_at, author_only, log_only, touches_groups, signed } => {
            let expires_at = expires_at.unwrap_or(NEVER);
            let kept = EventMeta { received_at, expires_at, author_only, log_only, touches_groups };
            let event = Unverified::parse(signed.get().as_bytes()).map_err(|error| error.to_string())?;
            let event = event.verify().map_err(|error| error.to_string())?;
            Record::Event(Restored::new(event, kept).map_err(|rejection| rejection.to_string())?)
        }
    }))
}

/// Writes a record behind `out`, with the end of its line.
///
/// # Errors
/// Where the record is none that can be written, which is a damaged store.
pub(super) fn write(record: &Record<Archived>, out: &mut Vec<u8>) -> Result<(), String> {
    let key = |key: &PublicKey| Hex(*key.as_bytes());
    let json;
    let wire = match record {
        Record::Vanished { key: it, at } => Wire::Vanished { key: key(it), at: *at },
        Record::Tombstone { target, deleter, public } => {
            Wire::Tombstone { target: Hex(*target), deleter: Hex(*deleter), public: *public }
        }
        Record::AddressTombstone { address, until } => Wire::AddressTombstone { address: Hex(*address), until: *until },
        Record::Claimed { owner, content } => Wire::Claimed { owner: Hex(*owner), content: Hex(*content) },
        Record::Founded { key: it, at } => Wire::Founded { key: key(it), at: at.clone() },
        Record::Unlisted(id) => Wire::Unlisted(id.as_str().into()),
        Record::Group { id, view } => group(id, view),
        Record::Event(Archived { event, kept }) => {
            json = event.json();
            Wire::Event {
                received_at: kept.received_at,
                expires_at: (kept.expires_at != NEVER).then_some(kept.expires_at),
                author_only: kept.author_only,
                log_only: kept.log_only,
                touches_groups: kept.touches_groups,
                signed: serde_json::from_slice(&json).map_err(|error| format!("an event is no JSON: {error}"))?,
            }
        }
    };
    push(&wire, out)
}

fn group<'a>(id: &'a NostrGroupId, view: &ManagedGroup) -> Wire<'a> {
    let with = |role: Role| {
        let mut keys: Vec<PublicKey> =
            view.members.iter().filter(|(_, has)| **has == role).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.into_iter().map(|key| Hex(*key.as_bytes())).collect()
    };
    let record = &view.record;
    Wire::Group {
        id: id.as_str().into(),
        source: record.source,
        seq: record.seq,
        created_at: record.created_at,
        display_name: record.display_name.clone(),
        last_epoch: record.last_epoch,
        admins: with(Role::Admin),
        members: with(Role::Member),
    }
}

pub(super) fn write_header(header: Header, out: &mut Vec<u8>) -> Result<(), String> {
    push(&Wire::RnostrExport(header), out)
}

pub(super) fn write_mark(mark: Mark, out: &mut Vec<u8>) -> Result<(), String> {
    push(&Wire::Mark(mark), out)
}

pub(super) fn write_end(end: End, out: &mut Vec<u8>) -> Result<(), String> {
    push(&Wire::End(end), out)
}

fn push(wire: &Wire<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(&mut *out, wire).map_err(|error| error.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// What a store holds, as the lines of an export without marks: for tests that compare stores.
#[cfg(feature = "testing")]
#[must_use]
pub fn text_of(record: &Record<Archived>) -> String {
    let mut out = Vec::new();
    let _ = write(record, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
