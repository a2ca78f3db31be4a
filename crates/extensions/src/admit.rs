//! Admission: the one place that decides whether an event may be published, and the only way to [`Admitted`].
//!
//! Source: docs/rules.md, "Identity" and "Who may publish, who may read". The fixed list for every kind comes first,
//! then the check of the kind itself ([`crate::kinds`]). The [`Effect`] carries all that admission learnt of the state
//! of the store, and the committing transaction checks it again.

use nostr_protocol::{Event, Rejection, Rule, UnixSecs, Verified, Word, tag::name};

use crate::{
    context::Context,
    effect::Effect,
    kinds::{Budget, NonResidents, Publication, in_words, rules},
    mls_gateway::group::{Group, NostrGroupId, Source},
    policy::Policy,
    tags::{self, recipients, tag_secs},
};
pub use crate::{
    context::Publisher,
    effect::{NEVER, Persistence},
};

/// An event that may be stored, with all that storing it means.
#[derive(Clone, Debug)]
pub struct Admitted {
    event: Event,
    received_at: UnixSecs,
    expires_at: UnixSecs,
    persistence: Persistence,
    effect: Effect,
    asks_service: bool,
}

impl Admitted {
    /// The event.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// Time at which this relay received it.
    #[must_use]
    pub const fn received_at(&self) -> UnixSecs {
        self.received_at
    }

    /// Time from which on no reader is served it; [`NEVER`] for an event that is kept without end.
    #[must_use]
    pub const fn expires_at(&self) -> UnixSecs {
        self.expires_at
    }

    /// The way in which it is kept.
    #[must_use]
    pub const fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Whether the access service decides about groups: one that awaits an answer takes no event.
    #[must_use]
    pub const fn asks_service(&self) -> bool {
        self.asks_service
    }

    /// The change that storing it makes beside the event.
    #[must_use]
    pub const fn effect(&self) -> &Effect {
        &self.effect
    }

    /// The fault that was let pass (`verify_keypackages = "log"`), for the log.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        match &self.effect {
            Effect::KeyPackage { entry, .. } => entry.warning.as_deref(),
            _ => None,
        }
    }
}

/// The rule that lets an event in, and that states the forms of kinds where no rule is nearer.
pub const PUBLISHED_BY: Rule = Rule("Who may publish, who may read", 0);
const FORM: Rule = Rule("Who may publish, who may read", 3);
const BOUNDS: Rule = Rule("Answers to clients", 6);

/// Time from which on an event is served to nobody by its `expiration` (NIP-40), whatever its kind is.
#[must_use]
pub fn expiration(event: &Event) -> UnixSecs {
    tag_secs(event, name::EXPIRATION).ok().flatten().unwrap_or(NEVER)
}

/// The group whose state [`admit`] must be given, for the kinds whose rules depend on one.
#[must_use]
pub fn group_of(event: &Event) -> Option<NostrGroupId> {
    if rules(event.kind()).needs_group { tags::group(event.view()) } else { None }
}

/// Checks the rules that do not depend on the signature, so that an event that cannot pass costs no verification.
///
/// # Errors
/// The [`Rejection`] for the client.
pub fn precheck(event: &Event, publisher: Publisher<'_>, policy: &Policy, now: UnixSecs) -> Result<(), Rejection> {
    if policy.auth_required && publisher.reader.is_anonymous() {
        let refusal = Rejection::auth_required("this relay takes nothing before AUTH (NIP-42)");
        return Err(refusal.under(Rule("Identity", 7)));
    }
    if let Publication::Refused(refuse) = rules(event.kind()).publication {
        return Err(refuse(event.kind()).under(PUBLISHED_BY));
    }
    policy.moderate(event, publisher.reader)?;
    within_bounds(event, policy, now).map_err(|refusal| refusal.under(BOUNDS))?;
    // Before the state of its group counts: by the answer to an expired wrap a client would otherwise learn for nothing
    // whether a group exists.
    let rules = rules(event.kind());
    let by_group = rules.needs_group && rules.may_expire;
    if by_group && tag_secs(event, name::EXPIRATION)?.is_some_and(|end| end <= now) {
        return Err(expired());
    }
    Ok(())
}

/// Checks the bounds on an event of any kind.
fn within_bounds(event: &Event, policy: &Policy, now: UnixSecs) -> Result<(), Rejection> {
    if event.json().len() > policy.event_bytes_max {
        return Err(Rejection::invalid(format!("the event is over {} bytes", policy.event_bytes_max)));
    }
    if event.tags().len() > policy.event_tags_max {
        return Err(Rejection::invalid(format!("the event has over {} tags", policy.event_tags_max)));
    }
    if event.created_at() > now.saturating_add(policy.created_at_ahead_secs_max) {
        return Err(Rejection::invalid(format!(
            "created_at is more than {} s ahead of this relay's time; it is in seconds, and the clock must be right",
            policy.created_at_ahead_secs_max
        )));
    }
    Ok(())
}

/// Decides whether an event may be published, how it is kept, and which change storing it makes.
///
/// `group` is the state of the group that [`group_of`] names for the event.
///
/// # Errors
/// The [`Rejection`] for the client.
pub fn admit(
    event: Verified,
    publisher: Publisher<'_>,
    policy: &Policy,
    group: Option<&Group>,
    now: UnixSecs,
) -> Result<Admitted, Rejection> {
    let event = event.into_event();
    let rules = rules(event.kind());
    let cx = Context { policy, publisher, group, now };
    may_send(&event, &cx)?;
    let expiration = tag_secs(&event, name::EXPIRATION)?;
    let verdict = match rules.publication {
        Publication::Checked(admit) => admit(&event, &cx).map_err(|refusal| refusal.under(FORM))?,
        Publication::Refused(refuse) => return Err(refuse(event.kind())),
    };
    let kept_until = match verdict.expires_at {
        NEVER => policy.retained_until(event.kind(), now),
        end => end,
    };
    let expires_at = match expiration {
        Some(_) if !rules.may_expire => {
            let kinds = in_words(|rules| !rules.may_expire);
            let refusal = Rejection::invalid(format!("kinds {kinds} carry no expiration; remove the tag"));
            return Err(refusal.under(Rule("Archive", 3)));
        }
        Some(expiration) => kept_until.min(expiration),
        None => kept_until,
    };
    if expires_at <= now {
        return Err(expired());
    }
    let persistence = rules.kept.persistence(policy);
    let asks_service = policy.sources.contains(&Source::Acl);
    Ok(Admitted { event, received_at: now, expires_at, persistence, effect: verdict.effect, asks_service })
}

/// Checks the rules for the sender of an event of any kind. They depend on no group.
///
/// # Errors
/// The [`Rejection`] for the client.
pub fn check_sender(event: &Event, publisher: Publisher<'_>, policy: &Policy, now: UnixSecs) -> Result<(), Rejection> {
    may_send(event, &Context { policy, publisher, group: None, now })
}

fn expired() -> Rejection {
    Rejection::invalid("the event has expired; give a later expiration in Unix seconds").under(Rule("Archive", 5))
}

/// Whether the event would be refused for want of a key of the reader. The signature is not looked at, so the answer
/// may come before it is checked.
#[must_use]
pub fn lacks_key(
    event: &Event,
    publisher: Publisher<'_>,
    policy: &Policy,
    group: Option<&Group>,
    now: UnixSecs,
) -> bool {
    if !publisher.reader.is_anonymous() {
        return false;
    }
    let cx = Context { policy, publisher, group, now };
    let rules = rules(event.kind());
    let refused = match (may_send(event, &cx), &rules.publication) {
        // The check of a KeyPackage reads its bytes, and asks for a key only where every event needs one.
        (Ok(()), Publication::Checked(admit)) if rules.budget != Budget::KeyPackages => admit(event, &cx).map(drop),
        (sent, _) => sent,
    };
    refused.is_err_and(|rejection| rejection.word == Word::AuthRequired)
}

/// The rules for the sender of an event of any kind.
fn may_send(event: &Event, cx: &Context<'_>) -> Result<(), Rejection> {
    precheck(event, cx.publisher, cx.policy, cx.now)?;
    if event.tags().named(name::PROTECTED).next().is_some() {
        cx.require_author_here(event)?;
    }
    may_write(event, rules(event.kind()).non_residents, cx)
}

/// The whitelist's rule (docs/rules.md, "Identity").
fn may_write(event: &Event, non_residents: NonResidents, cx: &Context<'_>) -> Result<(), Rejection> {
    let is_open = match non_residents {
        NonResidents::Refused => false,
        NonResidents::ToResidents => recipients(event.view()).iter().any(|key| cx.policy.is_resident(key)),
        NonResidents::Checked => true,
    };
    if is_open { Ok(()) } else { cx.require_resident(event) }
}
