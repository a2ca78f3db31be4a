//! Helpers of this crate's suites: a policy, people with keys, groups, and the answers in one letter.

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{
    Admitted, Group, GroupRecord, GroupStatus, ManagedGroup, NostrGroupId, Policy, Publisher, Reader, Role, Source,
    admit,
    mls_gateway::group::{MembershipBounds, RosterChange, RosterOp, WrapChange},
};
use nostr_protocol::{
    PublicKey, Rejection, Verified, Word,
    auth::{RelayAddress, RelayNames},
    testing::{EventBuilder, key, keypair},
};

pub const NOW: u64 = 1_795_370_900;
/// The id of an unlisted group.
pub const CAPABILITY: &str = "3db032d805d08e9ade361f8b3248673ecae8ba7d3915a0e0f39c1b3be28ba360";

pub fn keys(names: &[&str]) -> Vec<PublicKey> {
    names.iter().map(|name| key(name)).collect()
}

pub fn reader(names: &[&str]) -> Reader {
    Reader::new(&keys(names))
}

/// The default policy, with `operator` as an admin key and `system` as the system key.
pub fn policy() -> Policy {
    Policy {
        admin_keys: keys(&["operator"]).into_iter().collect(),
        system_key: Some(key("system")),
        ..Policy::default()
    }
}

pub fn group_id(text: &str) -> NostrGroupId {
    NostrGroupId::parse(text).unwrap()
}

pub fn view(source: Source, seq: u64, members: &[(&str, Role)]) -> ManagedGroup {
    let record = GroupRecord::new(source, seq, 1, None);
    ManagedGroup { record, members: members.iter().map(|(name, role)| (key(name), *role)).collect() }
}

pub fn managed(source: Source, seq: u64, members: &[(&str, Role)]) -> GroupStatus {
    GroupStatus::Managed(Arc::new(view(source, seq, members)))
}

pub fn state(id: &str, status: GroupStatus) -> Group {
    Group { id: group_id(id), status }
}

/// `grp`, at seq 5: ada is its admin, alice and bob are members.
pub fn grp() -> Group {
    let members = [("ada", Role::Admin), ("alice", Role::Member), ("bob", Role::Member)];
    state("grp", managed(Source::Roster, 5, &members))
}

pub fn names() -> RelayNames {
    RelayNames::Configured(vec![RelayAddress::parse("wss://relay.example").unwrap()])
}

/// Admission of an event that `reader` sends.
pub fn admit_as(
    reader: &Reader,
    event: Verified,
    policy: &Policy,
    group: Option<&Group>,
) -> Result<Admitted, Rejection> {
    let names = names();
    let admitted = admit::admit(event, Publisher { reader, names: &names }, policy, group, NOW);
    admitted.inspect_err(|refusal| assert!(refusal.rule.is_some(), "a refusal names its rule: {refusal}"))
}

/// The event, signed by `author` at [`NOW`], sent by a reader of `readers` keys; the group is as `groups` say, or
/// unknown.
pub fn send(
    readers: &[&str],
    author: &str,
    event: EventBuilder,
    policy: &Policy,
    groups: &[Group],
) -> Result<Admitted, Rejection> {
    let event = event.at(NOW).sign(&keypair(author));
    let group = admit::group_of(event.event()).map(|id| {
        let known = groups.iter().find(|group| group.id == id).cloned();
        known.unwrap_or(Group { id, status: GroupStatus::Unknown })
    });
    admit_as(&reader(readers), event, policy, group.as_ref())
}

/// `+` or the word of the refusal by its first letter, `e` for `error:`.
pub fn letter<T>(answer: &Result<T, Rejection>) -> char {
    match answer.as_ref().map_err(|rejection| rejection.word) {
        Ok(_) => '+',
        Err(Word::AuthRequired) => 'a',
        Err(Word::Restricted) => 'r',
        Err(Word::Blocked) => 'b',
        Err(Word::Pow) => 'p',
        Err(Word::Invalid) => 'i',
        Err(Word::Error) => 'e',
        Err(Word::RateLimited) => 'l',
        Err(Word::Duplicate) => 'd',
        Err(Word::Unsupported) => 'u',
    }
}

/// A roster change, as admitted from `signer`.
pub fn roster(signer: &str, seq: u64, op: RosterOp, names: &[&str]) -> RosterChange {
    RosterChange {
        group: group_id("grp"),
        seq,
        op,
        keys: keys(names),
        role: Role::Member,
        name: None,
        signer: key(signer),
        by_admin_key: signer == "operator",
        open_bootstrap: false,
        force: false,
        commit_ordering: None,
        epoch: None,
        bounds: MembershipBounds::default(),
    }
}

/// A wrap that names `grp`, from a reader of these keys; the first would be the founder.
pub fn wrap(publishers: &[&str], recipient: &str) -> WrapChange {
    WrapChange {
        group: group_id("grp"),
        publishers: keys(publishers),
        by_admin_key: publishers.contains(&"operator"),
        unlisted: false,
        founder: publishers.first().map(|name| key(name)),
        recipient: key(recipient),
        bounds: MembershipBounds::default(),
    }
}

/// Members by name, for comparison.
pub fn members(list: &[(&str, Role)]) -> HashMap<PublicKey, Role> {
    list.iter().map(|(name, role)| (key(name), *role)).collect()
}
