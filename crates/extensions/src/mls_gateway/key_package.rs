//! Kinds 443 and 30443, KeyPackage: one directory, in two forms.
//!
//! Source: MLS Gateway specification, "KeyPackage Validation (Kind 443)"; RFC 9420, section 10; docs/rules.md,
//! "KeyPackages". The event is never rewritten: clients get it as its owner signed it.

use std::borrow::Cow;

use base64::Engine as _;
use nostr_protocol::{Event, EventRef, Kind, PublicKey, Rejection, Rule, UnixSecs, hex, tag::name};
use sha2::{Digest as _, Sha256};

use super::mls::{BASE64, KEY_PACKAGE_BYTES_MAX, KeyPackage, Signatures};
pub use crate::effect::DirectoryEntry;
use crate::{
    context::{Context, Verdict},
    effect::Effect,
    kinds::{Budget, Deletable, GroupChange, Kept, KindCounter, KindRules, NonResidents, Owners, Publication, Readers},
    policy::VerifyKeyPackages,
    tags::{decimal, identifier, tag_secs},
};

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: |event| Ok(read(event)),
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::KeyPackages,
    readers: Readers::Everyone,
    changes: GroupChange::Nothing,
    kept: Kept::Stored,
    quota: None,
    may_expire: true,
    owners: Owners::Author,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[KindCounter::KeyPackagesStored],
    in_nip11: true,
};

/// Its author publishes it; each `p` tag, if there are any, names the author.
///
/// It is kept until `exp`, `expiration` or the leaf's `not_after`, whichever is first, within the bounds of
/// [`expires_at`].
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_owner(event)?;
    let owner = event.pubkey();
    let names_owner = |value: Option<&str>| value.and_then(PublicKey::from_hex) == Some(owner);
    if !event.tags().named(name::PUBLIC_KEY).all(|tag| names_owner(tag.value())) {
        let refusal = Rejection::invalid("the p tag of a KeyPackage is its author; remove it or sign with its key");
        return Err(refusal.under(Rule("KeyPackages", 6)));
    }
    let content = event.content();
    let bytes = bytes(event.view(), &content);
    let package = bytes.as_deref().and_then(KeyPackage::read);
    let expires_at = expires_at(event, package.as_ref(), cx)?;

    let mut warning = None;
    if cx.policy.verify_keypackages != VerifyKeyPackages::Off {
        warning = match check(event, package.as_ref(), cx) {
            Ok(()) => None,
            Err(Fault::NotCheckable(fault)) => Some(fault.into()),
            Err(Fault::Wrong(fault)) if cx.policy.verify_keypackages == VerifyKeyPackages::Enforce => {
                return Err(Rejection::invalid(fault).under(Rule("KeyPackages", 4)));
            }
            Err(Fault::Wrong(fault)) => Some(fault),
        };
    }
    let entry = DirectoryEntry { warning, ..entry(event, &content, package.as_ref()) };
    let kept_max = cx.policy.keypackages_per_owner_max;
    Ok(Verdict { expires_at, effect: Effect::KeyPackage { entry, identifier: replaced(event), kept_max } })
}

/// Effect of a KeyPackage that some store held.
fn read(event: &Event) -> Effect {
    let content = event.content();
    let bytes = bytes(event.view(), &content);
    let package = bytes.as_deref().and_then(KeyPackage::read);
    let entry = entry(event, &content, package.as_ref());
    // An import brings all that the other store kept.
    Effect::KeyPackage { entry, identifier: replaced(event), kept_max: usize::MAX }
}

fn entry(event: &Event, content: &str, package: Option<&KeyPackage<'_>>) -> DirectoryEntry {
    DirectoryEntry {
        owner: event.pubkey(),
        reference: references(event.view()).next().map(|(_, value)| value.into()),
        content_hash: content_hash(content, package),
        last_resort: package.is_some_and(|package| package.last_resort),
        warning: None,
    }
}

fn content_hash(content: &str, package: Option<&KeyPackage<'_>>) -> [u8; 32] {
    Sha256::digest(package.map_or(content.as_bytes(), |package| package.bytes)).into()
}

/// A KeyPackage as the directory tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The reference in its tags, else the one of its bytes; `None` where there is neither.
    pub reference: Option<String>,
    /// The number of its ciphersuite: of its bytes, else of its tags.
    pub ciphersuite: Option<u16>,
    /// Whether its bytes mark it as one of last resort.
    pub is_marked: bool,
    /// SHA-256 of its bytes: events with the same bytes are one KeyPackage.
    pub content_hash: [u8; 32],
}

/// Reads a KeyPackage event.
#[must_use]
pub fn describe(event: EventRef<'_>) -> Described {
    let content = event.content();
    let bytes = bytes(event, &content);
    let package = bytes.as_deref().and_then(KeyPackage::read);
    let computed = || package.as_ref().and_then(KeyPackage::reference).map(|it| hex::to_hex(&it));
    Described {
        reference: references(event).next().map(|(_, value)| value.to_owned()).or_else(computed),
        ciphersuite: suite(event, package.as_ref()),
        content_hash: content_hash(&content, package.as_ref()),
        is_marked: package.is_some_and(|package| package.last_resort),
    }
}

/// The number of a KeyPackage's ciphersuite: of its bytes, else of its tags.
#[must_use]
pub fn suite_of(event: EventRef<'_>) -> Option<u16> {
    describe(event).ciphersuite
}

fn suite(event: EventRef<'_>, package: Option<&KeyPackage<'_>>) -> Option<u16> {
    let tagged = || SUITE_TAGS.iter().find_map(|tag| event.tags().value(tag).and_then(ciphersuite));
    package.map(|package| package.ciphersuite).or_else(tagged)
}

/// The `d` under which a 30443 replaces an older one.
fn replaced(event: &Event) -> Option<Box<str>> {
    (event.kind() == Kind::ADDRESSABLE_KEY_PACKAGE).then(|| identifier(event))
}

fn bytes(event: EventRef<'_>, content: &str) -> Option<Vec<u8>> {
    decode(content, event.tags().value(name::ENCODING) == Some("base64"))
}

/// The bytes of a content that reads as a KeyPackage: base64, or hex where no tag says base64.
///
/// Hex goes first: its digits are base64 too, of other bytes.
fn decode(content: &str, says_base64: bool) -> Option<Vec<u8>> {
    // Hex is the longer spelling, and an MLSMessage has four bytes in front of the KeyPackage.
    if content.len() > (KEY_PACKAGE_BYTES_MAX + 4) * 2 {
        return None;
    }
    let readable = |bytes: &Vec<u8>| KeyPackage::read(bytes).is_some();
    let from_hex = || hex::parse_any(content.as_bytes()).filter(readable);
    let from_base64 = || BASE64.decode(content).ok().filter(readable);
    if says_base64 { from_base64() } else { from_hex().or_else(from_base64) }
}

/// The values of `kpr` and `i`, each with the name of its tag.
fn references(event: EventRef<'_>) -> impl Iterator<Item = (&'static str, &str)> {
    let tags = event.tags();
    let named = |tag: &'static str| Some((tag, tags.value(tag)?));
    [named(name::KEY_PACKAGE_REFERENCE), named(name::MARMOT_REFERENCE)]
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_empty())
}

/// The first end that is given, or `keypackage_ttl` from now; never past `keypackage_max_lifetime`.
fn expires_at(event: &Event, package: Option<&KeyPackage<'_>>, cx: &Context<'_>) -> Result<UnixSecs, Rejection> {
    let policy = cx.policy;
    let given = [
        (name::EXP, tag_secs(event, name::EXP)?),
        (name::EXPIRATION, tag_secs(event, name::EXPIRATION)?),
        ("not_after of the leaf", package.map(|package| package.not_after)),
    ];
    let first = given.into_iter().filter_map(|(source, end)| Some((end?, source))).min();
    if let Some((_, source)) = first.filter(|(end, _)| *end <= cx.now) {
        let refusal = Rejection::invalid(format!("the KeyPackage has expired ({source}); publish a fresh one"));
        return Err(refusal.under(Rule("KeyPackages", 5)));
    }
    let end = first.map_or(cx.now.saturating_add(policy.keypackage_ttl_secs), |(end, _)| end);
    Ok(end.min(cx.now.saturating_add(policy.keypackage_max_lifetime_secs)))
}

/// Fault that a check found, in words for the log or the client.
enum Fault {
    Wrong(Cow<'static, str>),
    NotCheckable(&'static str),
}

/// Compares the bytes with the event and the clock, the costly checks last.
///
/// # Errors
/// The first fault.
fn check(event: &Event, package: Option<&KeyPackage<'_>>, cx: &Context<'_>) -> Result<(), Fault> {
    let Some(package) = package else {
        return Err(Fault::Wrong(
            "content is no KeyPackage; write the base64 of a KeyPackage or of an MLSMessage that holds one".into(),
        ));
    };
    if !package.identity.is_some_and(|identity| is_key(identity, &event.pubkey())) {
        return Err(Fault::Wrong(
            "the credential's identity is not the author; it is the author's key in 32 bytes or 64 hex digits".into(),
        ));
    }
    // A leaf that has ended is refused in every mode; one that has not begun may come from a clock that is ahead.
    if package.not_before > cx.now.saturating_add(cx.policy.created_at_ahead_secs_max) {
        return Err(Fault::Wrong("the leaf's lifetime has not begun; its not_before is in Unix seconds".into()));
    }
    for tag in SUITE_TAGS {
        if event.tags().value(tag).is_some_and(|text| ciphersuite(text) != Some(package.ciphersuite)) {
            let number = package.ciphersuite;
            return Err(Fault::Wrong(
                format!("the {tag} tag is not the KeyPackage's ciphersuite; write 0x{number:04x}").into(),
            ));
        }
    }
    let expected = package.reference();
    for (tag, value) in references(event.view()) {
        if expected.is_some() && hex::parse_any(value.as_bytes()) != expected {
            return Err(Fault::Wrong(
                format!("the {tag} tag is not the KeyPackage's reference; write the hex of its KeyPackageRef").into(),
            ));
        }
    }
    if let Some(fault) = package.fault() {
        return Err(Fault::Wrong(format!("the KeyPackage does not verify: {fault}").into()));
    }
    match package.check_signatures() {
        Signatures::Hold => Ok(()),
        Signatures::Wrong(why) => Err(Fault::Wrong(format!("the KeyPackage does not verify: {why}").into())),
        Signatures::NotCheckable => {
            Err(Fault::NotCheckable("the KeyPackage's ciphersuite is none that this relay can check"))
        }
    }
}

/// Whether an identity is `key`: its 32 bytes, or their hex.
fn is_key(identity: &[u8], key: &PublicKey) -> bool {
    identity == key.as_bytes() || hex::parse_lower::<32>(identity).as_ref() == Some(key.as_bytes())
}

/// The tags that name a KeyPackage's ciphersuite.
const SUITE_TAGS: [&str; 3] = [name::CIPHERSUITE, name::CIPHERSUITE_LONG, name::MARMOT_CIPHERSUITE];

/// The ciphersuites of RFC 9420, section 17.1, from 1 on.
const SUITE_NAMES: [&str; 7] = [
    "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
    "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
    "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
    "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448",
    "MLS_256_DHKEMP521_AES256GCM_SHA512_P521",
    "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448",
    "MLS_256_DHKEMP384_AES256GCM_SHA384_P384",
];

/// The name of a ciphersuite in RFC 9420, or its number as `0xf001`.
#[must_use]
pub fn suite_name(number: u16) -> Cow<'static, str> {
    let name = usize::from(number).checked_sub(1).and_then(|index| SUITE_NAMES.get(index));
    name.map_or_else(|| format!("0x{number:04x}").into(), |name| (*name).into())
}

/// A ciphersuite by its name in RFC 9420, or by its number as `0x0001` or `1`.
#[must_use]
pub fn ciphersuite(text: &str) -> Option<u16> {
    if let Some(digits) = text.strip_prefix("0x") {
        let is_number = digits.bytes().all(|c| c.is_ascii_hexdigit());
        return is_number.then(|| u16::from_str_radix(digits, 16).ok()).flatten();
    }
    let by_name = (1..).zip(SUITE_NAMES).find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(number, _)| number);
    by_name.or_else(|| decimal(text).and_then(|number| u16::try_from(number).ok()))
}
