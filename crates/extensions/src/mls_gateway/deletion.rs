//! Kind 5, Deletion Request, and the rules by which events are taken back: by a deletion, or by a key that vanishes.
//!
//! Source: NIP-09, NIP-62; docs/rules.md, "Deletion".

use nostr_protocol::{
    Event, EventId, EventRef, Kind, Lifetime, PublicKey, Rejection, Rule, UnixSecs, mutation, tag::name,
};

use super::{
    group::Refusal,
    mls::{self, ContentType},
};
pub use crate::effect::Deletion;
use crate::{
    audience::{Audience, audience},
    context::{Context, Verdict},
    effect::{Effect, NEVER},
    kinds::{
        Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Quota, Readers, rules,
    },
    tags::{decimal, event_id, recipients},
};

/// Most targets of one deletion.
pub const DELETION_TARGETS_MAX: usize = 500;

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: |event| read(event).map(Effect::Delete),
    needs_group: false,
    // A key that is no resident any more may still take back its own.
    non_residents: NonResidents::Checked,
    budget: Budget::Events,
    readers: Readers::EveryoneOrAuthor,
    changes: GroupChange::Nothing,
    kept: Kept::Stored,
    quota: Some(Quota::Deletions),
    may_expire: false,
    owners: Owners::Author,
    // A deletion of a deletion has no effect (NIP-09).
    deletable: Deletable::NoEffect,
    vanishes: true,
    counters: &[],
    in_nip11: false,
};

/// The keys that an event belongs to: its author, and for some kinds each recipient.
pub fn owners(event: EventRef<'_>) -> impl Iterator<Item = PublicKey> {
    owners_by(event, rules(event.kind()))
}

fn owners_by(event: EventRef<'_>, rules: &KindRules) -> impl Iterator<Item = PublicKey> {
    let recipients = rules.is_owned_by_recipients().then(|| recipients(event));
    std::iter::once(event.pubkey()).chain(recipients.into_iter().flatten())
}

/// The keys that may delete an event by name: its owners, or nobody for a kind whose deletion is
/// [refused](is_undeletable) or has no effect.
pub fn deleters(event: EventRef<'_>) -> impl Iterator<Item = PublicKey> {
    let rules = rules(event.kind());
    (rules.deletable == Deletable::ByOwners).then(|| owners_by(event, rules)).into_iter().flatten()
}

/// Whether `key` is one of the [`deleters`] of `event`.
#[must_use]
pub fn may_delete(event: EventRef<'_>, key: &PublicKey) -> bool {
    deleters(event).any(|deleter| deleter == *key || mutation!("deletion-owner"))
}

/// Whether `event`, which is not for everyone, is by `key` or to it. A deletion by `key` that names it is for `key`
/// alone.
#[must_use]
pub fn is_private_of(event: EventRef<'_>, key: &PublicKey) -> bool {
    event.pubkey() == *key || matches!(audience(event), Audience::Keys(keys) if keys.contains(key))
}

/// Whether a deletion of `event` by `key`, which may not delete it, is told so: `key` sees the event anyway, as
/// everyone does where `is_public` is set. Every other event is the same to `key` as one that does not exist.
#[must_use]
pub fn is_known_undeletable(event: EventRef<'_>, is_public: bool, key: &PublicKey) -> bool {
    !may_delete(event, key) && (is_public || is_private_of(event, key))
}

/// Whether a deletion that names an event of this kind by its author is refused: a commit that some members have
/// applied must reach the others, and the audit stays.
#[must_use]
pub const fn is_undeletable(kind: Kind) -> bool {
    rules(kind).refuses_deletion()
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

/// Whether an owner of `event` that vanishes at `at` takes it along: it is no later, of no kind that stays, and no
/// commit.
#[must_use]
pub fn is_gone_by(event: EventRef<'_>, at: UnixSecs) -> bool {
    event.created_at() <= at && !mutation!("vanish-events") && rules(event.kind()).vanishes && !is_commit(event)
}

/// Whether an event is a 445 that shows the header of an MLS commit. It stays when the key that signed it vanishes: a
/// member makes that key for this one event, and could tear the commit out of the group by it.
///
/// A store that reads events without their content keeps the answer beside them.
#[must_use]
pub fn is_commit(event: EventRef<'_>) -> bool {
    let header = || mls::header_of_content(&event.content());
    event.kind() == Kind::GROUP_MESSAGE && header().is_some_and(|it| it.content == Some(ContentType::Commit))
}

/// Its author publishes it.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_owner(event)?;
    let deletion = read(event).map_err(|refusal| refusal.under(Rule("Deletion", 4)))?;
    if deletion.ids.is_empty() && deletion.addresses.is_empty() {
        return Err(Refusal::NothingToDelete.into());
    }
    Ok(Verdict { expires_at: NEVER, effect: Effect::Delete(deletion) })
}

/// Targets of a kind 5.
///
/// # Errors
/// `invalid:` for a malformed deletion, `blocked:` where it names a kind that nobody deletes.
fn read(event: &Event) -> Result<Deletion, Rejection> {
    let tags = event.tags();
    let targets = tags.iter().filter(|tag| matches!(tag.name(), name::EVENT | name::ADDRESS)).count();
    if targets == 0 {
        return Err(Rejection::invalid("a deletion names its targets in e or a tags"));
    }
    if targets > DELETION_TARGETS_MAX {
        return Err(Rejection::invalid(format!("a deletion has at most {DELETION_TARGETS_MAX} targets; send several")));
    }
    if tags.values(name::K).filter_map(kind).any(|kind| rules(kind).refuses_deletion()) {
        return Err(Refusal::Undeletable.into());
    }
    let names_private_kind = tags.values(name::K).filter_map(kind).any(|kind| !rules(kind).may_be_public());
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
    Ok(Deletion { by: event.pubkey(), ids, addresses, names_private_kind })
}

fn kind(text: &str) -> Option<Kind> {
    decimal(text).and_then(|number| u16::try_from(number).ok()).map(Kind)
}

fn own_address(text: &str, author: &PublicKey) -> Result<Option<(Kind, Box<str>)>, Rejection> {
    let wrong = || Rejection::invalid("an a tag is not <kind>:<pubkey>:<d>");
    let mut parts = text.splitn(3, ':');
    let kind = parts.next().and_then(kind).ok_or_else(wrong)?;
    if rules(kind).refuses_deletion() {
        return Err(Refusal::Undeletable.into());
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
