//! The signed events of `tests/vectors`: all of them pass admission under the policy that they were made for, and the
//! bytes in them read as their labels say.

use base64::Engine as _;
use nostr_extensions::{
    Admitted, Effect, Group, GroupStatus, Policy, Reader,
    Role::{Admin, Member},
    Source,
    admit::group_of,
    mls_gateway::{
        group::{CommitOrdering, SeenEpoch},
        mls::{ContentType, KeyPackage, Signatures, header_of_content},
    },
    policy::VerifyKeyPackages,
};
use nostr_protocol::{PublicKey, Rejection, Unverified, Verified, hex::to_hex, testing::key};
use serde_json::Value;

use crate::common::{NOW, admit_as, policy, view};

const GATEWAY: &str = include_str!("../../../../tests/vectors/gateway-events.jsonl");
const MARMOT: &str = include_str!("../../../../tests/vectors/marmot-events.jsonl");
/// Author of the 447, the 450 and the group messages of the gateway's file.
const WRITER: &str = "92d567b9142173ea95428b1a2cc3ba88b2c5c19bf929603403d41831a55fa8d7";

struct Vector {
    label: String,
    visible: String,
    event: Verified,
}

impl Vector {
    fn read(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        let event = Unverified::parse(value["event"].to_string().as_bytes()).unwrap().verify().unwrap();
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self { label: text("label"), visible: text("mls_visible"), event }
    }

    fn kind(&self) -> u16 {
        self.event.event().kind().0
    }

    fn content(&self) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(self.event.event().content()).unwrap_or_default()
    }
}

fn all() -> Vec<Vector> {
    GATEWAY.lines().chain(MARMOT.lines()).map(Vector::read).collect()
}

/// The bytes of every KeyPackage, as it stands in its event.
pub fn key_packages() -> Vec<Vec<u8>> {
    all().iter().filter(|vector| vector.event.event().kind().is_key_package()).map(Vector::content).collect()
}

fn writer() -> PublicKey {
    PublicKey::from_hex(WRITER).unwrap()
}

/// `h` of 64 hex is unlisted; every other group is managed, with the writer of the gateway's file as its admin.
fn group(vector: &Vector) -> Option<Group> {
    let id = group_of(vector.event.event())?;
    let mut group = view(Source::Roster, 0, &[]);
    group.members.insert(writer(), Admin);
    let is_new = vector.kind() == 450 || id.is_capability();
    let status = if is_new { GroupStatus::Unknown } else { GroupStatus::Managed(group.into()) };
    Some(Group { id, status })
}

fn admit(vector: &Vector, reader: &Reader, policy: &Policy) -> Result<Admitted, Rejection> {
    admit_as(reader, vector.event.clone(), policy, group(vector).as_ref())
}

fn strict() -> Policy {
    let admin_keys = [writer()].into();
    Policy { admin_keys, verify_keypackages: VerifyKeyPackages::Enforce, ..policy() }
}

#[test]
fn all_38_pass_admission_from_their_authors() {
    let vectors = all();
    assert_eq!(vectors.len(), 38);
    for vector in &vectors {
        let reader = Reader::new(&[writer(), vector.event.event().pubkey()]);
        let admitted =
            admit(vector, &reader, &strict()).unwrap_or_else(|refused| panic!("{}: {refused}", vector.label));
        assert_eq!(admitted.received_at(), NOW);
        assert!(admitted.expires_at() > NOW);
    }
}

/// Marmot clients authenticate neither on the group plane nor when they publish KeyPackages; protected events (NIP-70)
/// are the exception.
#[test]
fn marmot_events_pass_without_auth_but_for_the_protected_ones() {
    for vector in MARMOT.lines().map(Vector::read) {
        let answer = admit(&vector, &Reader::default(), &strict());
        assert_eq!(answer.is_err(), vector.label.contains("protected"), "{}", vector.label);
        if let Err(refused) = answer {
            assert_eq!(refused.word, nostr_protocol::Word::AuthRequired);
        }
    }
}

#[test]
fn what_ends_at_its_own_time_ends_then() {
    for vector in all() {
        let reader = Reader::new(&[writer(), vector.event.event().pubkey()]);
        let expires_at = admit(&vector, &reader, &strict()).unwrap().expires_at();
        let not_after = KeyPackage::read(&vector.content()).map(|package| package.not_after);
        match vector.label.as_str() {
            "group-445-app-expiring" => assert_eq!(expires_at, 1_795_374_371),
            "giftwrap-1059-welcome-with-expiration" => assert_eq!(expires_at, 1_797_962_771),
            "seed-447-request" => assert_eq!(expires_at, NOW + 604_800),
            label if label.starts_with("seed-443") => assert_eq!(expires_at, 1_802_628_494),
            label if label.contains("keypackage-30443") => assert_eq!(Some(expires_at), not_after),
            label if label.contains("445") => assert_eq!(expires_at, NOW + 30 * 86_400),
            _ => {}
        }
    }
}

#[test]
fn headers_read_as_the_labels_say() {
    let mut read = 0;
    for vector in all().iter().filter(|vector| vector.kind() == 445) {
        let header = header_of_content(&vector.event.event().content());
        let Some((_, visible)) = vector.visible.split_once("group_id=") else {
            assert_eq!(header, None, "Marmot encrypts the whole message: {}", vector.label);
            continue;
        };
        let header = header.unwrap();
        let (id, rest) = visible.split_once(' ').unwrap();
        assert_eq!(to_hex(&header.mls_group_id), id);
        let content = match header.content.unwrap() {
            ContentType::Application => "application",
            ContentType::Proposal => "proposal",
            ContentType::Commit => "commit",
        };
        assert_eq!(rest, format!("epoch={} content_type={content}", header.epoch), "{}", vector.label);
        read += 1;
    }
    assert_eq!(read, 4);
}

#[test]
fn a_managed_groups_message_shows_its_epoch_and_the_keys_to_check_again() {
    for vector in all().iter().filter(|vector| vector.label.starts_with("seed-445")) {
        let admitted = admit(vector, &Reader::new(&[writer()]), &strict()).unwrap();
        let Effect::GroupMessage { keys, epoch, order, .. } = admitted.effect() else { panic!("{}", vector.label) };
        assert_eq!(keys, &[writer()]);
        assert_eq!(order.unwrap().contradicted_by, None);
        assert_eq!(*epoch, SeenEpoch::Header(if vector.label.contains("commit") { 0 } else { 1 }));
    }
}

#[test]
fn no_order_of_commits_looks_at_a_message_of_marmot() {
    let policy = Policy { commit_ordering: CommitOrdering::Strict, commit_grace_secs: 1, ..strict() };
    let mut count = 0;
    for vector in all().iter().filter(|vector| vector.kind() == 445 && vector.visible.is_empty()) {
        let id = group_of(vector.event.event()).unwrap();
        let status = GroupStatus::Managed(view(Source::Roster, 1, &[("alice", Member)]).into());
        let alice = Reader::new(&[key("alice")]);
        let admitted = admit_as(&alice, vector.event.clone(), &policy, Some(&Group { id, status })).unwrap();
        let Effect::GroupMessage { order, .. } = admitted.effect() else { panic!("{}", vector.label) };
        assert_eq!(*order, None, "{}", vector.label);
        count += 1;
    }
    assert!(count >= 7, "commits, two of one epoch, and words: {count}");
}

#[test]
fn every_key_package_has_the_reference_that_its_tag_says_and_verifies() {
    let mut count = 0;
    for vector in all().iter().filter(|vector| vector.event.event().kind().is_key_package()) {
        let content = vector.content();
        let package = KeyPackage::read(&content).unwrap();
        let tags = vector.event.event().tags();
        let said = tags.value("kpr").or_else(|| tags.value("i")).unwrap();
        assert_eq!(to_hex(&package.reference().unwrap()), said);
        assert_eq!(package.check_signatures(), Signatures::Hold);
        assert_eq!(package.ciphersuite, 1);
        let marked = tags.value("i").is_some() || vector.label.contains("last-resort");
        assert_eq!(package.last_resort, marked, "{}", vector.label);
        count += 1;
    }
    assert_eq!(count, 9);
}

#[test]
fn twins_have_one_content_hash_whatever_is_around_the_bytes() {
    let entry = |label: &str| {
        let vectors = all();
        let vector = vectors.iter().find(|vector| vector.label == label).unwrap();
        let reader = Reader::new(&[vector.event.event().pubkey()]);
        match admit(vector, &reader, &strict()).unwrap().effect() {
            Effect::KeyPackage { entry, identifier, .. } => (entry.clone(), identifier.clone()),
            other => panic!("{other:?}"),
        }
    };
    let twins = [
        ("seed-443-bare-keypackage", "seed-443-mlsmessage"),
        ("seed-443-bare-keypackage-last-resort", "seed-443-mlsmessage-last-resort"),
        ("keypackage-30443", "keypackage-443-legacy-twin"),
    ];
    for (one, two) in twins {
        assert_eq!(entry(one).0, entry(two).0, "{one}");
        assert_eq!(entry(one).0.warning, None);
    }
    assert_ne!(entry("keypackage-30443").0.content_hash, entry("keypackage-30443-rotation-same-d").0.content_hash);
    assert_eq!(entry("keypackage-443-legacy-twin").1, None);
    let identifier = entry("keypackage-30443").1.unwrap();
    assert_eq!(&*identifier, "15a8115c759f8fa8b25a12b34d675bc99db153bc47a641c6aa9c8d5e7a5727dd");
}

#[test]
fn the_roster_vector_founds_its_group() {
    let vectors = all();
    let vector = vectors.iter().find(|vector| vector.label == "seed-450-roster").unwrap();
    let admitted = admit(vector, &Reader::new(&[writer()]), &strict()).unwrap();
    let Effect::Roster(change) = admitted.effect() else { panic!() };
    let founded = nostr_extensions::mls_gateway::group::apply_roster(&GroupStatus::Unknown, change, NOW).unwrap();
    assert!(founded.view.members.len() == 2 && founded.view.members[&writer()] == Member);
}
