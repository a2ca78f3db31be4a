//! Admission: the one place that decides who may publish, and the only way to [`Admitted`].
//!
//! Source: decisions, "Identity" and "Who may publish, who may read". First the fixed list that holds for every kind,
//! then the kind's own file. What admission found out about the state of the store goes along as part of the
//! [`Effect`] and is checked again by the transaction that commits it.

use nostr_protocol::{
    Event, EventId, Kind, Lifetime, PublicKey, Rejection, UnixSecs, Verified, auth::RelayNames, tag::name,
};

use crate::{
    gate::Reader,
    mls_gateway::{
        deletion, gift_wrap,
        group::{Group, NostrGroupId, RosterChange, SeenEpoch, WrapChange},
        group_message, key_package, key_package_request, noise_dm, roster, welcome,
    },
    policy::Policy,
};

/// Times in tags above this are milliseconds (decisions, "Who may publish, who may read").
pub const TAG_SECS_MAX: u64 = 100_000_000_000;
/// Expiry of what is kept without end.
pub const NEVER: UnixSecs = u64::MAX;

/// Who publishes, and over which connection.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// The reader of the connection.
    pub reader: &'a Reader,
    /// How this connection may name the relay, for NIP-62.
    pub names: &'a RelayNames,
}

/// How an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Stored and found by queries.
    Stored,
    /// Durable in the short-lived log that feeds live delivery, found by no query.
    LogOnly,
    /// Delivered to who is there now, and not written.
    Ephemeral,
}

/// What storing an event changes beside the event, and the preconditions that the transaction checks again.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Takes the place of older events of the same address (NIP-01, replaceable and addressable).
    Replace {
        /// The `d` value; empty for a replaceable kind.
        identifier: Box<str>,
    },
    /// NIP-09.
    Delete(deletion::Deletion),
    /// NIP-62: everything by this key, and wraps and messages to it, up to the event's `created_at`.
    Vanish,
    /// A KeyPackage; one of kind 30443 replaces as well.
    KeyPackage {
        /// What the directory knows about it.
        entry: key_package::DirectoryEntry,
        /// The `d` value of a 30443.
        identifier: Option<Box<str>>,
    },
    /// A group message.
    GroupMessage {
        /// The group.
        group: NostrGroupId,
        /// The reader's keys, of which one must be a member when it is committed, if the group is managed then.
        keys: Vec<PublicKey>,
        /// Whether it is taken if the group is not managed then; the group is marked as having carried messages.
        unlisted: bool,
        /// The MLS epoch, for the registry.
        epoch: SeenEpoch,
    },
    /// A roster.
    Roster(RosterChange),
    /// A gift wrap that names a group.
    Wrap(WrapChange),
}

/// An event that may be stored, with all that storing it means.
#[derive(Clone, Debug)]
pub struct Admitted {
    event: Event,
    received_at: UnixSecs,
    expires_at: UnixSecs,
    persistence: Persistence,
    effect: Effect,
}

impl Admitted {
    /// The event.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// When this relay received it.
    #[must_use]
    pub const fn received_at(&self) -> UnixSecs {
        self.received_at
    }

    /// From when on it is served to nobody; [`NEVER`] for what is kept without end.
    #[must_use]
    pub const fn expires_at(&self) -> UnixSecs {
        self.expires_at
    }

    /// How it is kept.
    #[must_use]
    pub const fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// What it changes.
    #[must_use]
    pub const fn effect(&self) -> &Effect {
        &self.effect
    }

    /// What is wrong with it and was let pass (`verify_keypackages = "log"`), to be logged.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        match &self.effect {
            Effect::KeyPackage { entry, .. } => entry.warning.as_deref(),
            _ => None,
        }
    }
}

/// What a kind's own rules say of an event.
pub(crate) struct Verdict {
    pub(crate) expires_at: UnixSecs,
    pub(crate) persistence: Persistence,
    pub(crate) effect: Effect,
}

impl Verdict {
    pub(crate) const fn stored(expires_at: UnixSecs, effect: Effect) -> Self {
        Self { expires_at, persistence: Persistence::Stored, effect }
    }
}

/// What the kinds' own rules are asked with.
pub(crate) struct Context<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) publisher: Publisher<'a>,
    pub(crate) group: Option<&'a Group>,
    pub(crate) now: UnixSecs,
}

impl Context<'_> {
    /// The owner of a thing must have signed it, and with `auth.enabled` be on this connection.
    pub(crate) fn require_owner(&self, event: &Event) -> Result<(), Rejection> {
        if self.policy.auth_required { self.require_author_here(event) } else { Ok(()) }
    }

    /// The author must be one of the reader's keys, whatever `[auth]` says.
    pub(crate) fn require_author_here(&self, event: &Event) -> Result<(), Rejection> {
        let reader = self.publisher.reader;
        if reader.has(&event.pubkey()) {
            Ok(())
        } else if reader.is_anonymous() {
            Err(Rejection::auth_required("this event is taken from its author alone; AUTH with the key that signed it"))
        } else {
            Err(Rejection::restricted(
                "this event is taken from its author alone; AUTH with the key that signed it too",
            ))
        }
    }

    /// When what is kept in the archive ends, or `off` seconds from now where there is none.
    pub(crate) fn archived(&self, off_secs: u64) -> UnixSecs {
        self.now.saturating_add(self.policy.archive_secs.unwrap_or(off_secs))
    }
}

/// The group whose state [`admit`] must be given, for the kinds whose rules depend on one.
#[must_use]
pub fn group_of(event: &Event) -> Option<NostrGroupId> {
    match event.kind() {
        Kind::GROUP_MESSAGE | Kind::ROSTER | Kind::GIFT_WRAP => {
            event.tags().value(name::GROUP).and_then(NostrGroupId::parse)
        }
        _ => None,
    }
}

/// Checks what holds for every event whatever its signature, so that an event that cannot pass costs no verification.
///
/// # Errors
/// The [`Rejection`] for the client.
pub fn precheck(event: &Event, publisher: Publisher<'_>, policy: &Policy, now: UnixSecs) -> Result<(), Rejection> {
    if policy.auth_required && publisher.reader.is_anonymous() {
        return Err(Rejection::auth_required("this relay takes nothing before AUTH (NIP-42)"));
    }
    welcome::refuse_inner_kinds(event.kind())?;
    if matches!(event.kind(), Kind::AUTH) {
        return Err(Rejection::invalid("kind 22242 is not published; send it as [\"AUTH\", event]"));
    }
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

/// Decides whether an event may be published, and what storing it means.
///
/// `group` is the state of [`group_of`] the event.
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
    precheck(&event, publisher, policy, now)?;
    let cx = Context { policy, publisher, group, now };
    if event.tags().named("-").next().is_some() {
        cx.require_author_here(&event)?;
    }
    may_write(&event, &cx)?;
    let expiration = expiration(&event)?;
    let verdict = match event.kind() {
        Kind::KEY_PACKAGE | Kind::ADDRESSABLE_KEY_PACKAGE => key_package::admit(&event, &cx)?,
        Kind::GROUP_MESSAGE => group_message::admit(&event, &cx)?,
        Kind::NOISE_DM => noise_dm::admit(&event, &cx)?,
        Kind::KEY_PACKAGE_REQUEST => key_package_request::admit(&event, &cx)?,
        Kind::ROSTER => roster::admit(&event, &cx)?,
        Kind::GIFT_WRAP | Kind::EPHEMERAL_GIFT_WRAP => gift_wrap::admit(&event, &cx)?,
        Kind::DELETION => deletion::admit(&event, &cx)?,
        Kind::VANISH => deletion::admit_vanish(&event, &cx)?,
        kind => match kind.lifetime() {
            Lifetime::Regular => Verdict::stored(NEVER, Effect::None),
            Lifetime::Replaceable => Verdict::stored(NEVER, Effect::Replace { identifier: "".into() }),
            Lifetime::Addressable => Verdict::stored(NEVER, Effect::Replace { identifier: identifier(&event) }),
            Lifetime::Ephemeral => {
                Verdict { expires_at: NEVER, persistence: Persistence::Ephemeral, effect: Effect::None }
            }
        },
    };
    let expires_at = match expiration {
        Some(_) if matches!(event.kind(), Kind::DELETION | Kind::VANISH | Kind::ROSTER) => {
            return Err(Rejection::invalid("kinds 5, 62 and 450 carry no expiration; remove the tag"));
        }
        Some(expiration) => verdict.expires_at.min(expiration),
        None => verdict.expires_at,
    };
    if expires_at <= now {
        return Err(Rejection::invalid("the event has expired; give a later expiration in Unix seconds"));
    }
    Ok(Admitted { event, received_at: now, expires_at, persistence: verdict.persistence, effect: verdict.effect })
}

/// The `d` of an addressable event; a missing one is empty (NIP-01).
pub(crate) fn identifier(event: &Event) -> Box<str> {
    event.tags().value(name::IDENTIFIER).unwrap_or("").into()
}

/// The whitelist's rule (decisions, "Identity" 5).
fn may_write(event: &Event, cx: &Context<'_>) -> Result<(), Rejection> {
    let policy = cx.policy;
    let reader = cx.publisher.reader;
    if policy.residents.is_none()
        || policy.is_resident(&event.pubkey())
        || reader.keys().iter().any(|k| policy.is_resident(k))
    {
        return Ok(());
    }
    let open = match event.kind() {
        Kind::GIFT_WRAP | Kind::EPHEMERAL_GIFT_WRAP => {
            crate::audience::recipients(event.view()).iter().any(|key| policy.is_resident(key))
        }
        // Members of a managed group, and whoever knows an unlisted one: the kind's own rules decide.
        Kind::GROUP_MESSAGE => true,
        _ => false,
    };
    if open {
        Ok(())
    } else if reader.is_anonymous() {
        Err(Rejection::auth_required("this relay takes events of its residents; AUTH with a resident's key"))
    } else {
        Err(Rejection::restricted("this relay takes events of its residents; ask its operator to be listed"))
    }
}

/// NIP-40.
fn expiration(event: &Event) -> Result<Option<UnixSecs>, Rejection> {
    tag_secs(event, name::EXPIRATION)
}

/// Unix seconds from a tag, the first of its name.
///
/// # Errors
/// `invalid:` for what is no whole number, and for milliseconds.
pub(crate) fn tag_secs(event: &Event, tag: &'static str) -> Result<Option<UnixSecs>, Rejection> {
    let Some(found) = event.tags().named(tag).next() else { return Ok(None) };
    let text = found.value().unwrap_or("");
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Rejection::invalid(format!(
            "the {tag} tag is no whole number of Unix seconds; write decimal digits"
        )));
    }
    // A number that does not fit 64 bits is over the bound too.
    match decimal(text).filter(|secs| *secs <= TAG_SECS_MAX) {
        Some(secs) => Ok(Some(secs)),
        None => Err(Rejection::invalid(format!("the {tag} tag is in milliseconds; write Unix seconds"))),
    }
}

/// A decimal number of digits alone.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Exactly one tag of this name, and its value.
pub(crate) fn exactly_one<'e>(event: &'e Event, tag: &'static str) -> Result<&'e str, Rejection> {
    let mut found = event.tags().named(tag);
    match (found.next().and_then(|tag| tag.value()), found.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Rejection::invalid(format!("kind {} carries exactly one {tag} tag", event.kind()))),
    }
}

/// The one recipient of an event.
pub(crate) fn one_recipient(event: &Event) -> Result<PublicKey, Rejection> {
    PublicKey::from_hex(exactly_one(event, name::PUBLIC_KEY)?)
        .ok_or_else(|| Rejection::invalid("the p tag is not a public key of 64 lower-case hex digits"))
}

/// The group of an event that carries exactly one `h`.
pub(crate) fn one_group(event: &Event) -> Result<NostrGroupId, Rejection> {
    parse_group(exactly_one(event, name::GROUP)?)
}

/// The group of an event that carries at most one `h`.
pub(crate) fn optional_group(event: &Event) -> Result<Option<NostrGroupId>, Rejection> {
    if event.tags().named(name::GROUP).next().is_none() { Ok(None) } else { one_group(event).map(Some) }
}

fn parse_group(text: &str) -> Result<NostrGroupId, Rejection> {
    NostrGroupId::parse(text).ok_or_else(|| {
        Rejection::invalid("the h tag is no group id: 1 to 128 of A-Z a-z 0-9 _ . : -, the first a letter or digit")
    })
}

/// An id out of an `e` tag.
pub(crate) fn event_id(text: &str) -> Result<EventId, Rejection> {
    EventId::from_hex(text).ok_or_else(|| Rejection::invalid("an e tag is not an id of 64 lower-case hex digits"))
}
