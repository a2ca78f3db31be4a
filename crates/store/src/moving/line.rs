//! The format of an export: JSON lines. Each line is an object with one member, whose name is the sort of the line.
//!
//! 1. The header identifies the file as an export. Behind it stand the orders of management, if there are any.
//! 2. Records follow in pages. After each page stands a mark: the position at which the store continues, and the
//!    checksum of all lines before.
//! 3. The end says that the export is whole, and holds the checksum of all lines before.
//!
//! The checksum is the SHA-256 of the lines or, in an export under a [`FileKey`], their HMAC-SHA-256. The header of
//! such an export tells which key it needs.
//!
//! An import writes a page to its store when the checksum after the page is right. An import that skips bad lines also
//! writes pages of events alone when it is wrong, because each event carries its own signature. Under a key it does
//! not: the times and flags beside an event have no signature.

use std::{borrow::Cow, collections::BTreeMap};

use nostr_extensions::{
    Effect, EventMeta, ForeignRules, GroupRecord, ManagedGroup, NostrGroupId, Restored, Role, Source,
    admit::NEVER,
    gate::Touches,
    mls_gateway::group::{CommitLog, CommitOrdering, Invited},
};
use nostr_protocol::{PublicKey, UnixSecs, Unverified, hex};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Exported, FileKey, Record};
use crate::RECORD_BYTES_MAX;

/// The version of an export without a key.
const FORMAT_PLAIN: u32 = 1;
/// The version of an export under a key.
const FORMAT_KEYED: u32 = 2;
/// The version of an export that holds orders, with or without a key, and the newest: an import reads this version and
/// all before it.
pub const FORMAT: u32 = 3;

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

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format, at most [`FORMAT`].
    pub format: u32,
    /// The release that wrote the file.
    pub version: String,
    /// Time at which the export began.
    pub exported_at: UnixSecs,
    /// Number of events in the store then, approximately.
    pub events: u64,
    /// Number of groups in the store then.
    pub groups: u64,
    /// Tells an export under a key, and which key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_check: Option<Hex<16>>,
}

impl Header {
    pub(super) fn new(
        version: &str,
        exported_at: UnixSecs,
        [events, groups]: [u64; 2],
        key: Option<&FileKey>,
        has_orders: bool,
    ) -> Self {
        let format = match key {
            _ if has_orders => FORMAT,
            Some(_) => FORMAT_KEYED,
            None => FORMAT_PLAIN,
        };
        let key_check = key.map(|key| Hex(key.check()));
        Self { format, version: version.to_owned(), exported_at, events, groups, key_check }
    }

    /// Checks that the export was made under `key`, or without one.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub(super) fn fits(&self, key: Option<&FileKey>) -> Result<(), &'static str> {
        match (self.key_check, key) {
            (None, None) => Ok(()),
            (Some(check), Some(key)) if check.0 == key.check() => Ok(()),
            (Some(_), Some(_)) => Err("the export was made under another key; name the file of that key"),
            (Some(_), None) => Err("the export was made under a key; name the key's file with --key-file"),
            (None, Some(_)) => Err(
                "the export was made without a key, so anyone may have changed it; leave out --key-file to trust it",
            ),
        }
    }
}

/// The line after a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The [`super::ExportPosition`] at which the store continues.
    pub(super) next: String,
    /// Number of lines before this one.
    pub(super) lines: u64,
    /// Checksum of those lines. The member keeps the name that it has without a key.
    #[serde(rename = "sha256")]
    pub(super) checksum: Hex<32>,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndLine {
    /// Number of lines before this one.
    pub(super) lines: u64,
    /// Number of records of each sort.
    pub(super) records: BTreeMap<String, u64>,
    /// Checksum of all lines before.
    #[serde(rename = "sha256")]
    pub(super) checksum: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "one line at a time stands in it")]
enum Wire<'a> {
    RnostrExport(Header),
    /// The document of the orders of management, which this crate does not read.
    Orders(#[serde(borrow)] &'a RawValue),
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
        #[serde(default, skip_serializing_if = "Option::is_none")]
        founder: Option<Hex<32>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit_ordering: Option<CommitOrdering>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commits: Option<CommitLog>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked_at_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        awaits_since_ms: Option<u64>,
        admins: Vec<Hex<32>>,
        members: Vec<Hex<32>>,
        /// Members that have not acted, each with the time at which it was made one, as older exports have them: the
        /// memberships count against the founder. Any member that neither list names has acted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        invited: Vec<(Hex<32>, UnixSecs)>,
        /// Members that have not acted, each with its [`Invited`]: the time, the number and the key that made it one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        invitations: Vec<(Hex<32>, UnixSecs, u16, Option<Hex<32>>)>,
    },
    Event {
        received_at: UnixSecs,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<UnixSecs>,
        #[serde(default, skip_serializing_if = "is_false")]
        author_only: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        log_only: bool,
        /// Set where any group may be one that the event touched.
        #[serde(default, skip_serializing_if = "is_false")]
        touches_groups: bool,
        /// The groups that the event touched, where its kind does not say that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        touched: Option<Vec<Cow<'a, str>>>,
        #[serde(borrow)]
        signed: &'a RawValue,
    },
    Mark(Mark),
    End(EndLine),
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A parsed line.
pub(crate) enum Line {
    Header(Header),
    /// The value of [`crate::RecordName::Management`].
    Orders(Vec<u8>),
    Record(Record<Restored>),
    Mark(Mark),
    End(EndLine),
    /// An event that this relay does not hold, with the reason, or an empty line without one.
    PassedOver(Option<String>),
}

/// The beginning of the first line.
pub(super) const HEADER: &[u8] = b"{\"rnostr_export\":";
/// The sort of the line of the orders.
pub(super) const ORDERS: &str = "orders";
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

/// Parses a line. An event's id and signature are checked, which is most of the cost.
///
/// # Errors
/// The fault, in words for the operator.
pub(crate) fn read(line: &[u8]) -> Result<Line, String> {
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        // serde_json counts lines within this one line.
        text.split(" at line ").next().unwrap_or_default().to_owned()
    })?;
    let group_id = |id: &str| NostrGroupId::parse(id).ok_or_else(|| "not a group id".to_owned());
    Ok(Line::Record(match wire {
        Wire::RnostrExport(header) => return Ok(Line::Header(header)),
        Wire::Orders(document) if document.get().len() > RECORD_BYTES_MAX => {
            return Err(format!("the orders are over {RECORD_BYTES_MAX} bytes"));
        }
        Wire::Orders(document) => return Ok(Line::Orders(document.get().as_bytes().to_vec())),
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
        Wire::Group {
            id,
            source,
            seq,
            created_at,
            display_name,
            last_epoch,
            founder,
            commit_ordering,
            commits,
            asked_at_ms,
            awaits_since_ms,
            admins,
            members,
            invited,
            invitations,
        } => {
            let with = |keys: Vec<Hex<32>>, role| keys.into_iter().map(move |key| (PublicKey::from_bytes(key.0), role));
            let founder = founder.map(|key| PublicKey::from_bytes(key.0));
            let record = GroupRecord {
                display_name,
                last_epoch,
                commit_ordering,
                commits,
                asked_at_ms,
                awaits_since_ms,
                ..GroupRecord::new(source, seq, created_at, founder)
            };
            let view = ManagedGroup {
                record,
                members: with(members, Role::Member).chain(with(admins, Role::Admin)).collect(),
            };
            let key = |key: Hex<32>| PublicKey::from_bytes(key.0);
            let older = invited.into_iter().map(|(member, since)| (key(member), Invited::of_rank(since, founder)));
            let newer = invitations
                .into_iter()
                .map(|(member, since, nth, by)| (key(member), Invited { since, nth, by: by.map(key) }));
            let invited = older.chain(newer).collect();
            Record::Group { id: group_id(&id)?, view, invited }
        }
        Wire::Event { received_at, expires_at, author_only, log_only, touches_groups, touched, signed } => {
            let expires_at = expires_at.unwrap_or(NEVER);
            let touches = match touched {
                Some(ids) => Some(Touches::groups(ids.iter().map(|id| group_id(id)).collect::<Result<Vec<_>, _>>()?)),
                None => touches_groups.then_some(Touches::EveryGroup),
            };
            let kept = EventMeta { received_at, expires_at, author_only, log_only, touches };
            let event = Unverified::parse(signed.get().as_bytes()).map_err(|error| error.to_string())?;
            let event = event.verify().map_err(|error| error.to_string())?;
            Record::Event(Restored::new(event, kept).map_err(|rejection| rejection.to_string())?)
        }
    }))
}

/// The sort of a file's lines, which its first line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The lines of an export of this program.
    Export,
    /// One signed event a line, as other relays export them.
    Events,
}

impl Format {
    /// The format of a file that begins with this line.
    pub(super) fn of(first: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[allow(dead_code, reason = "the members only have to be there")]
        struct Signed {
            id: String,
            pubkey: String,
            sig: String,
        }
        if serde_json::from_slice::<Signed>(first).is_ok() { Self::Events } else { Self::Export }
    }
}

/// The reason for which lines of an export are passed over where events alone are taken.
const NO_EVENT: &str = "groups, orders and removals of an export, of which events are taken alone";

/// Parses a line with one signed event, by itself or in an export. The id and the signature are checked before the
/// rules.
///
/// # Errors
/// The fault of a line that holds no event, or one that does not verify.
pub(super) fn read_event(line: &[u8], rules: &ForeignRules, now: UnixSecs) -> Result<Line, String> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(Line::PassedOver(None));
    }
    let signed = match serde_json::from_slice(line) {
        Ok(Wire::Event { signed, .. }) => signed.get().as_bytes(),
        Ok(Wire::RnostrExport(_) | Wire::Mark(_) | Wire::End(_)) => return Ok(Line::PassedOver(None)),
        Ok(_) => return Ok(Line::PassedOver(Some(NO_EVENT.to_owned()))),
        Err(_) => line,
    };
    let event = Unverified::parse(signed).map_err(|error| error.to_string())?;
    let event = event.verify().map_err(|error| error.to_string())?;
    Ok(match rules.restored(event, now) {
        // A stored request to vanish would be answered with `duplicate:` when its author sends it here, and would take
        // the author out of no group then. Its mark alone hides the author's events, and lets the request come.
        Ok(restored) if matches!(restored.effect(), Effect::Vanish) => {
            let event = restored.event();
            Line::Record(Record::Vanished { key: event.pubkey(), at: event.created_at() })
        }
        Ok(restored) => Line::Record(Record::Event(restored)),
        Err(rejection) => Line::PassedOver(Some(rejection.text.to_string())),
    })
}

/// Appends an event's line to `out`, as other relays read it.
pub(super) fn write_event(exported: &Exported, out: &mut Vec<u8>) {
    out.extend_from_slice(&exported.event.json());
    out.push(b'\n');
}

/// Appends a record's line to `out`, with its line feed.
///
/// # Errors
/// The fault of a record that cannot be written, because the store is damaged.
pub(super) fn write(record: &Record<Exported>, out: &mut Vec<u8>) -> Result<(), String> {
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
        Record::Group { id, view, invited } => group(id, view, invited),
        Record::Removal(never) => match *never {},
        Record::Event(Exported { event, kept }) => {
            json = event.json();
            Wire::Event {
                received_at: kept.received_at,
                expires_at: (kept.expires_at != NEVER).then_some(kept.expires_at),
                author_only: kept.author_only,
                log_only: kept.log_only,
                touches_groups: kept.touches == Some(Touches::EveryGroup),
                touched: match &kept.touches {
                    Some(Touches::Nothing) => Some(Vec::new()),
                    Some(Touches::Groups(groups)) => Some(groups.iter().map(|id| id.as_str().into()).collect()),
                    Some(Touches::EveryGroup) | None => None,
                },
                signed: serde_json::from_slice(&json).map_err(|error| format!("an event is no JSON: {error}"))?,
            }
        }
    };
    push(&wire, out)
}

/// Appends the line of the orders to `out`.
///
/// # Errors
/// The fault of a record that cannot be written, because the store is damaged.
pub(super) fn write_orders(document: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let document = serde_json::from_slice(document).map_err(|error| format!("the orders are no JSON: {error}"))?;
    push(&Wire::Orders(document), out)
}

fn group<'a>(id: &'a NostrGroupId, view: &ManagedGroup, invited: &BTreeMap<PublicKey, Invited>) -> Wire<'a> {
    let with = |role: Role| {
        let mut keys: Vec<PublicKey> =
            view.members.iter().filter(|(_, has)| **has == role).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.into_iter().map(|key| Hex(*key.as_bytes())).collect()
    };
    let hex = |key: &PublicKey| Hex(*key.as_bytes());
    let record = &view.record;
    Wire::Group {
        id: id.as_str().into(),
        source: record.source,
        seq: record.seq,
        created_at: record.created_at,
        display_name: record.display_name.clone(),
        last_epoch: record.last_epoch,
        founder: record.founder.map(|key| Hex(*key.as_bytes())),
        commit_ordering: record.commit_ordering,
        commits: record.commits.clone(),
        asked_at_ms: record.asked_at_ms,
        awaits_since_ms: record.awaits_since_ms,
        admins: with(Role::Admin),
        members: with(Role::Member),
        invited: Vec::new(),
        invitations: invited
            .iter()
            .map(|(member, invited)| (hex(member), invited.since, invited.nth, invited.by.as_ref().map(hex)))
            .collect(),
    }
}

pub(super) fn write_header(header: Header, out: &mut Vec<u8>) -> Result<(), String> {
    push(&Wire::RnostrExport(header), out)
}

pub(super) fn write_mark(mark: Mark, out: &mut Vec<u8>) -> Result<(), String> {
    push(&Wire::Mark(mark), out)
}

pub(super) fn write_end(end: EndLine, out: &mut Vec<u8>) -> Result<(), String> {
    push(&Wire::End(end), out)
}

fn push(wire: &Wire<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(&mut *out, wire).map_err(|error| error.to_string())?;
    out.push(b'\n');
    Ok(())
}

/// Writes a record as its line, for tests that compare stores.
#[cfg(feature = "testing")]
#[must_use]
pub fn text_of(record: &Record<Exported>) -> String {
    let mut out = Vec::new();
    let _ = write(record, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
