//! The methods of NIP-86: each is read into a question, or into an order that changes the standing orders.

use std::net::IpAddr;

use nostr_extensions::{KindRange, Policy};
use nostr_protocol::{EventId, PublicKey};
use serde_json::{Value, json};

use super::{
    blocked::AddressRange,
    standing::{List, Order, StandingOrders, Statement},
};

/// The methods that this relay knows, beside `supportedmethods`. The last one is its own.
const METHODS: [&str; 23] = [
    "banpubkey",
    "unbanpubkey",
    "listbannedpubkeys",
    "allowpubkey",
    "unallowpubkey",
    "listallowedpubkeys",
    "banevent",
    "unbanevent",
    "allowevent",
    "listbannedevents",
    "changerelayname",
    "changerelaydescription",
    "changerelayicon",
    "allowkind",
    "disallowkind",
    "listallowedkinds",
    "listdisallowedkinds",
    "blockip",
    "unblockip",
    "listblockedips",
    "unallowevent",
    "listallowedevents",
    "listauditlog",
];

/// A method with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Methods,
    List(List),
    AllowedKinds,
    RefusedKinds,
    /// Events that are allowed: no list is kept, since an event that is not banned needs none.
    AllowedEvents,
    Audit,
    Order {
        order: Order,
        method: &'static str,
        reason: String,
    },
}

impl Asked {
    /// Reads a request. `from` is the address that the admin asks from, which it cannot block.
    ///
    /// # Errors
    /// In words for the admin.
    pub(super) fn read(method: &str, parameters: &[Value], policy: &Policy, from: IpAddr) -> Result<Self, String> {
        let Some(method) = METHODS.into_iter().find(|known| *known == method) else {
            return if method == "supportedmethods" {
                Ok(Self::Methods)
            } else {
                Err("this relay does not have this method; supportedmethods lists those that it has".to_owned())
            };
        };
        let key = || text(parameters).and_then(|text| PublicKey::from_hex_or_npub(text).map_err(|it| it.to_string()));
        let event = || text(parameters).and_then(event_id);
        let order = match method {
            "listbannedpubkeys" => return Ok(Self::List(List::BannedKeys)),
            "listallowedpubkeys" => return Ok(Self::List(List::AllowedKeys)),
            "listbannedevents" => return Ok(Self::List(List::BannedEvents)),
            "listblockedips" => return Ok(Self::List(List::BlockedAddresses)),
            "listallowedkinds" => return Ok(Self::AllowedKinds),
            "listdisallowedkinds" => return Ok(Self::RefusedKinds),
            "listallowedevents" => return Ok(Self::AllowedEvents),
            "listauditlog" => return Ok(Self::Audit),
            "banpubkey" => Order::Put(List::BannedKeys, bannable(key()?, policy)?),
            "unbanpubkey" => Order::Remove(List::BannedKeys, key()?.to_hex()),
            "allowpubkey" => Order::Put(List::AllowedKeys, key()?.to_hex()),
            "unallowpubkey" => Order::Remove(List::AllowedKeys, key()?.to_hex()),
            "banevent" => Order::Put(List::BannedEvents, event()?),
            "allowevent" | "unbanevent" | "unallowevent" => Order::Remove(List::BannedEvents, event()?),
            "changerelayname" => Order::State(Statement::Name, text(parameters)?.to_owned()),
            "changerelaydescription" => Order::State(Statement::Description, text(parameters)?.to_owned()),
            "changerelayicon" => Order::State(Statement::Icon, text(parameters)?.to_owned()),
            "allowkind" => Order::AllowKind(kind(parameters)?),
            "disallowkind" => Order::RefuseKind(refusable(kind(parameters)?)?),
            "blockip" => Order::Put(List::BlockedAddresses, blockable(text(parameters)?.parse()?, from)?),
            _ => Order::Remove(List::BlockedAddresses, text(parameters)?.parse::<AddressRange>()?.to_string()),
        };
        let reason = match order {
            Order::Put(..) | Order::Remove(..) => parameters.get(1).and_then(Value::as_str).unwrap_or_default(),
            _ => "",
        };
        Ok(Self::Order { order, method, reason: reason.to_owned() })
    }

    /// The result of a question; `true` for an order, as NIP-86 has it.
    pub(super) fn result(&self, standing: &StandingOrders, listed_kinds: Option<&[KindRange]>) -> Value {
        match self {
            Self::Methods => json!(METHODS),
            Self::List(list) => {
                let name = match list {
                    List::BannedKeys | List::AllowedKeys => "pubkey",
                    List::BannedEvents => "id",
                    List::BlockedAddresses => "ip",
                };
                standing.list(*list).map(|(entry, reason)| json!({ name: entry, "reason": reason })).collect()
            }
            Self::AllowedKinds => {
                let ranges = listed_kinds.unwrap_or_default().iter();
                let listed = ranges.flat_map(|range| range.first..=range.last);
                let all: std::collections::BTreeSet<u16> = listed.chain(standing.allowed_kinds().clone()).collect();
                all.difference(standing.refused_kinds()).copied().collect()
            }
            Self::RefusedKinds => standing.refused_kinds().iter().copied().collect(),
            Self::AllowedEvents => json!([]),
            Self::Audit => json!(standing.audit().collect::<Vec<_>>()),
            Self::Order { .. } => json!(true),
        }
    }
}

fn text(parameters: &[Value]) -> Result<&str, String> {
    parameters.first().and_then(Value::as_str).ok_or_else(|| "the first parameter is missing, or no text".to_owned())
}

fn event_id(text: &str) -> Result<String, String> {
    let wrong = || "not an event's id; write 64 lower-case hex digits".to_owned();
    EventId::from_hex(text).map(|id| id.to_hex()).ok_or_else(wrong)
}

fn kind(parameters: &[Value]) -> Result<u16, String> {
    let kind = parameters.first().and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    kind.and_then(|kind| u16::try_from(kind).ok()).ok_or_else(|| "not a kind; write 0 to 65535".to_owned())
}

/// A kind that an admin may refuse.
fn refusable(kind: u16) -> Result<u16, String> {
    if matches!(kind, 5 | 62) {
        Err("kinds 5 and 62 take events back, and are always taken".to_owned())
    } else {
        Ok(kind)
    }
}

/// A key that an admin may ban.
fn bannable(key: PublicKey, policy: &Policy) -> Result<String, String> {
    if policy.is_admin(&key) || policy.system_key == Some(key) {
        return Err("an admin key and the system key cannot be banned; take it out of the configuration".to_owned());
    }
    Ok(key.to_hex())
}

/// A range that an admin may block.
fn blockable(range: AddressRange, from: IpAddr) -> Result<String, String> {
    if range.holds(from) {
        return Err(format!("{range} holds the address that you ask from"));
    }
    Ok(range.to_string())
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::key;

    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn read(method: &str, parameters: &Value) -> Result<Asked, String> {
        let policy = Policy { admin_keys: [key("admin")].into(), system_key: Some(key("system")), ..Policy::default() };
        Asked::read(method, parameters.as_array().expect("a list"), &policy, FROM)
    }

    #[test]
    fn every_method_that_is_listed_is_known() {
        for method in METHODS {
            let parameters = match method {
                "blockip" | "unblockip" => json!(["198.51.100.7"]),
                "allowkind" | "disallowkind" => json!([1]),
                _ => json!([key("alice").to_hex()]),
            };
            assert!(read(method, &parameters).is_ok(), "{method}");
        }
        assert!(read("createrole", &json!([])).is_err());
    }

    #[test]
    fn what_would_lock_the_operator_out_is_refused() {
        for (method, parameter) in [
            ("banpubkey", json!(key("admin").to_hex())),
            ("banpubkey", json!(key("admin").to_npub())),
            ("banpubkey", json!(key("system").to_hex())),
            ("blockip", json!("192.0.2.0/24")),
            ("blockip", json!("::ffff:192.0.2.9")),
            ("blockip", json!("::ffff:192.0.2.0/120")),
            ("disallowkind", json!(5)),
            ("disallowkind", json!(62)),
        ] {
            assert!(read(method, &json!([parameter])).is_err(), "{method} {parameter}");
        }
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for (method, parameters) in [
            ("banpubkey", json!([])),
            ("banpubkey", json!([7])),
            ("banpubkey", json!(["ABC"])),
            ("banevent", json!(["00"])),
            ("allowkind", json!([65_536])),
            ("allowkind", json!([-1])),
            ("blockip", json!(["example.com"])),
            ("changerelayname", json!([])),
        ] {
            assert!(read(method, &parameters).is_err(), "{method} {parameters}");
        }
    }
}
