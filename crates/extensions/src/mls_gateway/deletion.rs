//! Kinds 5 and 62: what a key takes back.
//!
//! Source: NIP-09, NIP-62; decisions, "Deletion".

use nostr_protocol::{Event, EventId, Kind, Lifetime, PublicKey, Rejection, UnixSecs, tag::name};

use crate::admit::{Context, Effect, NEVER, Verdict, decimal, event_id};

/// Most targets of one deletion.
pub const DELETION_TARGETS_MAX: usize = 500;

/// What a kind 5 names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Who deletes.
    pub by: PublicKey,
    /// Ids, of whatever author: the store holds each against its author or recipient.
    pub ids: Vec<EventId>,
    /// Addresses of the deleter's own replaceable and addressable events, up to the deletion's `created_at`.
    pub addresses: Vec<(Kind, Box<str>)>,
}

/// Whether `key` may take back an event: its author, or the recipient of a 446, 447 or 1059. A group message and a
/// roster are taken back by nobody, nor is what takes back: a deletion (NIP-09) or a request to vanish (NIP-62).
#[must_use]
pub fn may_delete(event: nostr_protocol::EventRef<'_>, key: &PublicKey) -> bool {
    match event.kind() {
        Kind::GROUP_MESSAGE | Kind::ROSTER | Kind::DELETION | Kind::VANISH => false,
        Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP => {
            event.pubkey() == *key || crate::audience::recipients(event).contains(key)
        }
        _ => event.pubkey() == *key,
    }
}

/// Whether a key that vanished at `at` takes `event` along: its own, and the 446, 447 and 1059 to it, never a roster, and
/// not the request to vanish.
#[must_use]
pub fn vanishes(event: nostr_protocol::EventRef<'_>, key: &PublicKey, at: UnixSecs) -> bool {
    event.created_at() <= at
        && !matches!(event.kind(), Kind::ROSTER | Kind::VANISH)
        && (event.pubkey() == *key
            || (matches!(event.kind(), Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP)
                && crate::audience::recipients(event).contains(key)))
}

/// A kind 5, from its author.
pub(crate) fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_owner(event)?;
    Ok(Verdict::stored(NEVER, Effect::Delete(read(event)?)))
}

/// What a kind 5 names.
///
/// # Errors
/// `invalid:` for a form that is none, `blocked:` for what nobody deletes.
pub(crate) fn read(event: &Event) -> Result<Deletion, Rejection> {
    let tags = event.tags();
    let targets = tags.iter().filter(|tag| matches!(tag.name(), name::EVENT | name::ADDRESS)).count();
    if targets == 0 {
        return Err(Rejection::invalid("a deletion names its targets in e or a tags"));
    }
    if targets > DELETION_TARGETS_MAX {
        return Err(Rejection::invalid(format!("a deletion has at most {DELETION_TARGETS_MAX} targets; send several")));
    }
    if tags.values(name::K).any(|kind| matches!(decimal(kind), Some(445 | 450))) {
        return Err(super::group::Refusal::Undeletable.into());
    }
    let ids = tags.named(name::EVENT).map(|tag| event_id(tag.value().unwrap_or("")));
    let mut ids: Vec<EventId> = ids.collect::<Result<_, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    let mut addresses = Vec::new();
    for tag in tags.named(name::ADDRESS) {
        // An address of another author is no target of this deletion (NIP-09); it is passed over.
        if let Some(address) = own_address(tag.value().unwrap_or(""), &event.pubkey())? {
            addresses.push(address);
        }
    }
    Ok(Deletion { by: event.pubkey(), ids, addresses })
}

fn own_address(text: &str, author: &PublicKey) -> Result<Option<(Kind, Box<str>)>, Rejection> {
    let wrong = || Rejection::invalid("an a tag is not <kind>:<pubkey>:<d>");
    let mut parts = text.splitn(3, ':');
    let kind = parts.next().and_then(decimal).and_then(|kind| u16::try_from(kind).ok()).map(Kind).ok_or_else(wrong)?;
    if matches!(kind, Kind::GROUP_MESSAGE | Kind::ROSTER) {
        return Err(super::group::Refusal::Undeletable.into());
    }
    let key = parts.next().and_then(PublicKey::from_hex).ok_or_else(wrong)?;
    let identifier = parts.next().unwrap_or("");
    let identifier = match kind.lifetime() {
        Lifetime::Addressable => identifier,
        Lifetime::Replaceable => "",
        _ => return Err(Rejection::invalid("an a tag names a kind that has no address; name the event in an e tag")),
    };
    Ok((key == *author).then(|| (kind, identifier.into())))
}

/// A kind 62 (NIP-62), from its author, that names this relay or all.
pub(crate) fn admit_vanish(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_owner(event)?;
    let mut answer = Err(Rejection::invalid("kind 62 names the relay in a relay tag, or ALL_RELAYS"));
    for relay in event.tags().values(name::RELAY) {
        answer = if relay == "ALL_RELAYS" { Ok(()) } else { cx.publisher.names.check(relay) };
        if answer.is_ok() {
            break;
        }
    }
    answer?;
    Ok(Verdict::stored(NEVER, Effect::Vanish))
}
