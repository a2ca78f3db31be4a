//! Kinds 5 and 62: deletions and requests to vanish, and the events that they take out.
//!
//! Source: NIP-09, NIP-62; decisions, "Deletion".

use nostr_protocol::{Event, EventId, EventRef, Kind, Lifetime, PublicKey, Rejection, UnixSecs, tag::name};

use crate::{
    admit::{Context, Effect, NEVER, Verdict, decimal, event_id},
    audience::recipients,
};

/// Most targets of one deletion.
pub const DELETION_TARGETS_MAX: usize = 500;

/// Kinds that belong to their recipients too: each recipient may delete such an event, and takes it along when it
/// vanishes.
pub const OWNED_BY_RECIPIENTS: [Kind; 3] = [Kind::NOISE_DM, Kind::KEY_PACKAGE_REQUEST, Kind::GIFT_WRAP];
/// Kinds that stay when their author vanishes: the audit of a group, and the request itself.
pub const KEPT_FROM_VANISHED: [Kind; 2] = [Kind::ROSTER, Kind::VANISH];

/// Targets of a kind 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The author of the deletion.
    pub by: PublicKey,
    /// Ids, of any author: the store holds each against its author or recipient.
    pub ids: Vec<EventId>,
    /// Addresses of the deleter's own replaceable and addressable events, up to the deletion's `created_at`.
    pub addresses: Vec<(Kind, Box<str>)>,
}

/// The keys that an event belongs to: its author, and for [`OWNED_BY_RECIPIENTS`] each recipient.
pub fn owners(event: EventRef<'_>) -> impl Iterator<Item = PublicKey> {
    let has_recipients = OWNED_BY_RECIPIENTS.contains(&event.kind());
    std::iter::once(event.pubkey()).chain(has_recipients.then(|| recipients(event)).into_iter().flatten())
}

/// The keys that may delete an event by name: its owners, or nobody for a group message or a roster, whose deletion is
/// [refused](is_undeletable), and for a deletion (NIP-09) or a request to vanish (NIP-62), whose deletion has no effect.
pub fn deleters(event: EventRef<'_>) -> impl Iterator<Item = PublicKey> {
    let kind = event.kind();
    let is_deletable = !is_undeletable(kind) && !matches!(kind, Kind::DELETION | Kind::VANISH);
    is_deletable.then(|| owners(event)).into_iter().flatten()
}

/// Whether `key` is one of the [`deleters`] of `event`.
#[must_use]
pub fn may_delete(event: EventRef<'_>, key: &PublicKey) -> bool {
    deleters(event).any(|deleter| deleter == *key)
}

/// Whether a deletion that names an event of this kind by its author is refused: a commit that some members have
/// applied must reach the others, and the audit stays.
#[must_use]
pub const fn is_undeletable(kind: Kind) -> bool {
    matches!(kind, Kind::GROUP_MESSAGE | Kind::ROSTER)
}

/// Whether one of its [`owners`] takes `event` along by vanishing, where `vanished` says when a key vanished.
pub fn is_taken_along(event: EventRef<'_>, vanished: impl Fn(&PublicKey) -> Option<UnixSecs>) -> bool {
    owners(event).any(|key| vanished(&key).is_some_and(|at| is_gone_by(event, at)))
}

/// Whether `key`, which vanished at `at`, takes `event` along.
#[must_use]
pub fn vanishes(event: EventRef<'_>, key: &PublicKey, at: UnixSecs) -> bool {
    is_taken_along(event, |owner| (owner == key).then_some(at))
}

/// Whether an owner of `event` that vanishes at `at` takes it along: it is no later, and of no kind that stays.
#[must_use]
pub fn is_gone_by(event: EventRef<'_>, at: UnixSecs) -> bool {
    event.created_at() <= at && !KEPT_FROM_VANISHED.contains(&event.kind())
}

/// A kind 5, from its author.
pub(crate) fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_owner(event)?;
    Ok(Verdict::stored(NEVER, Effect::Delete(read(event)?)))
}

/// Reads the targets of a kind 5.
///
/// # Errors
/// `invalid:` for a malformed target, `blocked:` for a target of a kind whose deletion is [refused](is_undeletable).
pub(crate) fn read(event: &Event) -> Result<Deletion, Rejection> {
    let tags = event.tags();
    let targets = tags.iter().filter(|tag| matches!(tag.name(), name::EVENT | name::ADDRESS)).count();
    if targets == 0 {
        return Err(Rejection::invalid("a deletion names its targets in e or a tags"));
    }
    if targets > DELETION_TARGETS_MAX {
        return Err(Rejection::invalid(format!("a deletion has at most {DELETION_TARGETS_MAX} targets; send several")));
    }
    if tags.values(name::K).any(|text| kind_from(text).is_some_and(is_undeletable)) {
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

fn kind_from(text: &str) -> Option<Kind> {
    decimal(text).and_then(|number| u16::try_from(number).ok()).map(Kind)
}

/// The kind and `d` of an address of `author`; `None` for one of another author.
fn own_address(text: &str, author: &PublicKey) -> Result<Option<(Kind, Box<str>)>, Rejection> {
    let wrong = || Rejection::invalid("an a tag is not <kind>:<pubkey>:<d>");
    let mut parts = text.splitn(3, ':');
    let kind = parts.next().and_then(kind_from).ok_or_else(wrong)?;
    if is_undeletable(kind) {
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
