//! The operator's standing orders over NIP-86, as the store keeps them: one JSON document.
//!
//! Source: docs/rules.md, "Management". Every list has a bound, so that the document fits into a record of every store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nostr_extensions::Moderation;
use nostr_protocol::{EventId, Kind, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::blocked::{AddressRange, Blocked};

/// Most keys, events and addresses on all lists together, at about 200 bytes in the document.
const ENTRIES_MAX: usize = 4_000;
/// Most blocked ranges of several addresses. A client is held against each of them.
const RANGES_MAX: usize = 256;
/// Most bytes of a reason; the rest of a longer one is cut off.
const REASON_BYTES_MAX: usize = 128;
/// Most bytes of the relay's name and of the URL of its picture.
const NAME_BYTES_MAX: usize = 1_024;
/// Most bytes of the relay's description.
const DESCRIPTION_BYTES_MAX: usize = 8_192;
/// Most kinds that were allowed or disallowed.
const KINDS_MAX: usize = 2_048;
/// Orders that the audit trail keeps, the newest ones.
const AUDIT_KEPT_MAX: usize = 256;

/// Fields of a document that this release does not know. It keeps them, so that an order given at an instance of this
/// release takes nothing from one of a newer release.
type Unknown = Map<String, Value>;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StandingOrders {
    lists: Lists,
    allowed_kinds: BTreeSet<u16>,
    refused_kinds: BTreeSet<u16>,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) icon: Option<String>,
    /// The newest order comes last.
    audit: VecDeque<Audited>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A list maps an entry to its reason.
type Entries = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Lists {
    banned_keys: Entries,
    allowed_keys: Entries,
    banned_events: Entries,
    blocked_addresses: Entries,
    #[serde(flatten)]
    unknown: Unknown,
}

/// The name of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    BannedKeys,
    AllowedKeys,
    BannedEvents,
    BlockedAddresses,
}

/// A line of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Audited {
    /// Unix seconds.
    at: u64,
    /// The admin key, in hex.
    by: String,
    method: String,
    subject: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A statement about the relay that NIP-11 shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Name,
    Description,
    Icon,
}

/// A change that an admin orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Put(List, String),
    Remove(List, String),
    AllowKind(u16),
    RefuseKind(u16),
    State(Statement, String),
}

/// An order with the admin that gave it, for the audit trail.
#[derive(Clone, Debug)]
pub(super) struct Ordered {
    pub(super) order: Order,
    pub(super) method: &'static str,
    pub(super) reason: String,
    pub(super) by: PublicKey,
    pub(super) at: u64,
}

impl StandingOrders {
    /// The document of the store.
    ///
    /// # Errors
    /// In words for the operator, where it is none.
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        if value.is_empty() {
            return Ok(Self::default());
        }
        let mut standing: Self = serde_json::from_slice(value)
            .map_err(|error| format!("the record of management cannot be read: {error}"))?;
        // Earlier releases wrote ranges that held no client. One that this release cannot read stays as it is.
        let blocked = std::mem::take(&mut standing.lists.blocked_addresses).into_iter();
        standing.lists.blocked_addresses =
            blocked.map(|(it, reason)| (it.parse::<AddressRange>().map_or(it, |it| it.to_string()), reason)).collect();
        Ok(standing)
    }

    /// The entries of a list with their reasons.
    pub(super) fn list(&self, list: List) -> impl Iterator<Item = (&str, &str)> {
        self.lists.of(list).iter().map(|(entry, reason)| (entry.as_str(), reason.as_str()))
    }

    pub(super) const fn allowed_kinds(&self) -> &BTreeSet<u16> {
        &self.allowed_kinds
    }

    pub(super) const fn refused_kinds(&self) -> &BTreeSet<u16> {
        &self.refused_kinds
    }

    /// The audit trail, the newest order first.
    pub(super) fn audit(&self) -> impl Iterator<Item = &Audited> {
        self.audit.iter().rev()
    }

    /// Carries an order out, and notes it in the audit trail.
    ///
    /// # Errors
    /// In words for the admin, where a bound forbids it.
    pub(super) fn carry_out(&mut self, ordered: &Ordered) -> Result<(), String> {
        let reason = cut(&ordered.reason, REASON_BYTES_MAX);
        match &ordered.order {
            Order::Put(list, entry) => {
                if let Some(opposite) = list.opposite() {
                    self.remove(opposite, entry);
                }
                self.put(*list, entry, &reason)?;
            }
            Order::Remove(list, entry) => self.remove(*list, entry),
            Order::AllowKind(kind) => {
                self.refused_kinds.remove(kind);
                put_kind(&mut self.allowed_kinds, *kind)?;
            }
            Order::RefuseKind(kind) => {
                self.allowed_kinds.remove(kind);
                put_kind(&mut self.refused_kinds, *kind)?;
            }
            Order::State(statement, text) => {
                let (place, max) = match statement {
                    Statement::Name => (&mut self.name, NAME_BYTES_MAX),
                    Statement::Description => (&mut self.description, DESCRIPTION_BYTES_MAX),
                    Statement::Icon => (&mut self.icon, NAME_BYTES_MAX),
                };
                if text.len() > max {
                    return Err(format!("write at most {max} bytes"));
                }
                *place = Some(text.clone()).filter(|text| !text.is_empty());
            }
        }
        let subject = cut(&ordered.order.subject(), REASON_BYTES_MAX);
        let by = ordered.by.to_hex();
        let method = ordered.method.to_owned();
        self.audit.push_back(Audited { at: ordered.at, by, method, subject, reason, unknown: Unknown::new() });
        while self.audit.len() > AUDIT_KEPT_MAX {
            self.audit.pop_front();
        }
        Ok(())
    }

    fn put(&mut self, list: List, entry: &str, reason: &str) -> Result<(), String> {
        let count = self.lists.len();
        let entries = self.lists.of_mut(list);
        let is_range = |entry: &str| entry.parse::<AddressRange>().is_ok_and(|range| !range.is_one_client());
        if list == List::BlockedAddresses && !entries.contains_key(entry) && is_range(entry) {
            let ranges = entries.keys().filter(|entry| is_range(entry)).count();
            if ranges >= RANGES_MAX {
                return Err(format!("the list holds {RANGES_MAX} ranges, as many as it may; take others off first"));
            }
        }
        if count >= ENTRIES_MAX && !entries.contains_key(entry) {
            return Err(format!("the lists hold {ENTRIES_MAX} entries, as many as they may; take others off first"));
        }
        entries.insert(entry.to_owned(), reason.to_owned());
        Ok(())
    }

    fn remove(&mut self, list: List, entry: &str) {
        self.lists.of_mut(list).remove(entry);
    }

    /// The standing orders that the rules read. Entries that this release cannot read count for nothing.
    pub(super) fn moderation(&self) -> Moderation {
        let keys = |list| self.list(list).filter_map(|(entry, _)| PublicKey::from_hex(entry)).collect();
        let kinds = |kinds: &BTreeSet<u16>| kinds.iter().map(|kind| Kind(*kind)).collect();
        Moderation {
            is_unknown: false,
            banned_keys: keys(List::BannedKeys),
            banned_events: self.list(List::BannedEvents).filter_map(|(id, _)| EventId::from_hex(id)).collect(),
            allowed_keys: keys(List::AllowedKeys),
            allowed_kinds: kinds(&self.allowed_kinds),
            refused_kinds: kinds(&self.refused_kinds),
        }
    }

    /// The addresses whose clients are refused.
    pub(super) fn blocked(&self) -> Blocked {
        self.list(List::BlockedAddresses).filter_map(|(entry, _)| entry.parse::<AddressRange>().ok()).collect()
    }
}

impl Lists {
    const fn of(&self, list: List) -> &Entries {
        match list {
            List::BannedKeys => &self.banned_keys,
            List::AllowedKeys => &self.allowed_keys,
            List::BannedEvents => &self.banned_events,
            List::BlockedAddresses => &self.blocked_addresses,
        }
    }

    const fn of_mut(&mut self, list: List) -> &mut Entries {
        match list {
            List::BannedKeys => &mut self.banned_keys,
            List::AllowedKeys => &mut self.allowed_keys,
            List::BannedEvents => &mut self.banned_events,
            List::BlockedAddresses => &mut self.blocked_addresses,
        }
    }

    /// Number of entries on all of them.
    fn len(&self) -> usize {
        let Self { banned_keys, allowed_keys, banned_events, blocked_addresses, unknown: _ } = self;
        [banned_keys, allowed_keys, banned_events, blocked_addresses].map(BTreeMap::len).iter().sum()
    }
}

impl Order {
    /// The sort of the order's subject, for the log.
    pub(super) const fn sort(&self) -> &'static str {
        match self {
            Self::Put(List::BannedKeys | List::AllowedKeys, _)
            | Self::Remove(List::BannedKeys | List::AllowedKeys, _) => "key",
            Self::Put(List::BannedEvents, _) | Self::Remove(List::BannedEvents, _) => "event",
            Self::Put(List::BlockedAddresses, _) | Self::Remove(List::BlockedAddresses, _) => "address",
            Self::AllowKind(_) | Self::RefuseKind(_) => "kind",
            Self::State(Statement::Name, _) => "name",
            Self::State(Statement::Description, _) => "description",
            Self::State(Statement::Icon, _) => "icon",
        }
    }

    /// The order's subject, which no log above `debug` names.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Put(_, entry) | Self::Remove(_, entry) | Self::State(_, entry) => entry.clone(),
            Self::AllowKind(kind) | Self::RefuseKind(kind) => kind.to_string(),
        }
    }
}

impl List {
    /// The list that an entry of this one is taken off.
    const fn opposite(self) -> Option<Self> {
        match self {
            Self::BannedKeys => Some(Self::AllowedKeys),
            Self::AllowedKeys => Some(Self::BannedKeys),
            Self::BannedEvents | Self::BlockedAddresses => None,
        }
    }
}

fn put_kind(kinds: &mut BTreeSet<u16>, kind: u16) -> Result<(), String> {
    if kinds.len() >= KINDS_MAX && !kinds.contains(&kind) {
        return Err(format!("the list holds {KINDS_MAX} kinds, as many as it may"));
    }
    kinds.insert(kind);
    Ok(())
}

/// The beginning of a text without control characters, of at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut cut = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if cut.len() + character.len_utf8() > bytes_max {
            break;
        }
        cut.push(character);
    }
    cut
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::key;
    use nostr_store::RECORD_BYTES_MAX;
    use serde_json::json;

    use super::*;

    fn ordered(order: Order, reason: &str) -> Ordered {
        Ordered { order, method: "banpubkey", reason: reason.to_owned(), by: key("admin"), at: 1_795_370_831 }
    }

    #[test]
    fn a_ban_takes_a_key_off_the_other_list() {
        let mut standing = StandingOrders::default();
        let alice = key("alice").to_hex();
        standing.carry_out(&ordered(Order::Put(List::AllowedKeys, alice.clone()), "")).expect("there is room");
        standing.carry_out(&ordered(Order::Put(List::BannedKeys, alice.clone()), "spam")).expect("there is room");
        let moderation = standing.moderation();
        assert!(moderation.banned_keys.contains(&key("alice")) && moderation.allowed_keys.is_empty());
        assert_eq!(standing.list(List::BannedKeys).collect::<Vec<_>>(), [(alice.as_str(), "spam")]);
        standing.carry_out(&ordered(Order::Remove(List::BannedKeys, alice), "")).expect("it needs no room");
        assert!(standing.moderation().banned_keys.is_empty());
    }

    #[test]
    fn addresses_and_ranges_are_blocked() {
        let mut standing = StandingOrders::default();
        let mut block = |entry: String| standing.carry_out(&ordered(Order::Put(List::BlockedAddresses, entry), ""));
        block("192.0.2.1/32".to_owned()).expect("there is room");
        for n in 0..RANGES_MAX {
            block(format!("10.{n}.0.0/16")).expect("there is room");
        }
        assert!(block("172.16.0.0/12".to_owned()).is_err(), "one range too many");
        block("10.7.0.0/16".to_owned()).expect("it is there");
        block("2001:db8::/64".to_owned()).expect("a client needs no room of ranges");
        let blocked = standing.blocked();
        let holds = |address: &str| blocked.holds(address.parse().expect("an address"));
        assert!(holds("192.0.2.1") && holds("::ffff:192.0.2.1") && holds("10.255.1.2") && holds("2001:db8::1"));
        assert!(!holds("192.0.2.2") && !holds("11.0.0.1") && !holds("2001:db8:0:1::1"));
    }

    /// An order that is given at an instance of this release loses nothing that a newer one has written.
    #[test]
    fn a_document_of_a_newer_release_keeps_its_fields() {
        let document = json!({
            "lists": { "banned_keys": { key("alice").to_hex(): "spam" }, "muted_words": { "a": { "since": 7 } } },
            "refused_kinds": [7],
            "audit": [{ "at": 1, "by": "a", "method": "muteword", "subject": "a", "from": "console" }],
            "pow": 20,
        });
        let mut standing = StandingOrders::read(&serde_json::to_vec(&document).expect("JSON")).expect("it is read");
        assert!(standing.moderation().banned_keys.contains(&key("alice")));
        let order = Order::Remove(List::BannedKeys, key("alice").to_hex());
        standing.carry_out(&ordered(order, "")).expect("it needs no room");
        let written = serde_json::to_value(&standing).expect("JSON");
        assert_eq!(written["lists"]["muted_words"], document["lists"]["muted_words"]);
        assert_eq!((&written["pow"], &written["audit"][0]["from"]), (&json!(20), &json!("console")));
        assert_eq!((&written["lists"]["banned_keys"], &written["refused_kinds"]), (&json!({}), &json!([7])));
    }

    /// Releases before this one wrote an address of IPv6, and mapped ranges, as they were given.
    #[test]
    fn ranges_of_earlier_releases_hold_clients() {
        let document = json!({ "lists": { "blocked_addresses": {
            "2001:db8::1/128": "one", "::ffff:192.0.2.0/120": "two", "unknown": "three"
        } } });
        let standing = StandingOrders::read(&serde_json::to_vec(&document).expect("JSON")).expect("it is read");
        let listed: Vec<_> = standing.list(List::BlockedAddresses).collect();
        assert_eq!(listed, [("192.0.2.0/24", "two"), ("2001:db8::/64", "one"), ("unknown", "three")]);
        assert!(standing.blocked().holds("2001:db8::2".parse().expect("an address")));
    }

    /// Every list is full, with the longest reasons, and the audit trail is as long as it gets.
    #[test]
    fn the_fullest_document_fits_into_a_record() {
        let mut standing = StandingOrders::default();
        let long = "r".repeat(2 * REASON_BYTES_MAX);
        for n in 0..ENTRIES_MAX {
            let order = Order::Put(List::BannedEvents, format!("{n:064x}"));
            standing.carry_out(&ordered(order, &long)).expect("there is room");
        }
        let one_more = ordered(Order::Put(List::BannedKeys, key("bob").to_hex()), "");
        assert!(standing.carry_out(&one_more).is_err());
        for kind in 0..KINDS_MAX as u16 {
            standing.carry_out(&ordered(Order::RefuseKind(60_000 + kind), &long)).expect("there is room");
            standing.carry_out(&ordered(Order::AllowKind(50_000 + kind), &long)).expect("there is room");
        }
        let name = Order::State(Statement::Description, "d".repeat(DESCRIPTION_BYTES_MAX));
        standing.carry_out(&ordered(name, &long)).expect("there is room");
        let document = serde_json::to_vec(&standing).expect("JSON");
        assert!(document.len() <= RECORD_BYTES_MAX, "{}", document.len());
        assert_eq!(standing.audit().count(), AUDIT_KEPT_MAX);
        assert_eq!(StandingOrders::read(&document), Ok(standing));
    }
}
