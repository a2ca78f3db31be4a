//! The gate: the one place that decides who may read.
//!
//! Source: decisions, "Who may publish, who may read". Every door (stored REQ, live, COUNT, NIP-77, REST) gets its events
//! as [`Sealed`] and can send nothing but [`Released`]; [`Gate::release`] is the only way from one to the other.

use std::sync::Arc;

use bytes::Bytes;
use nostr_protocol::{Event, EventId, Filter, Kind, PublicKey, Rejection, UnixSecs, tag::name};

use crate::{
    audience::{Audience, audience, is_for_recipients, may_be_for_keys, may_be_public},
    mls_gateway::group::{Group, GroupStatus, NostrGroupId},
    policy::{KeyPackageConsumption, Policy},
    route::Condition,
};

/// Most keys that one connection authenticates (decisions, "Identity" 2).
pub const READER_KEYS_MAX: usize = 16;

/// A connection's set of authenticated keys; the first is the primary one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    keys: Arc<[PublicKey]>,
}

impl Reader {
    /// A reader of these keys, which the caller has seen authenticated.
    #[must_use]
    pub fn new(keys: &[PublicKey]) -> Self {
        Self { keys: keys.into() }
    }

    /// The keys in the order in which they were authenticated.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn has(&self, key: &PublicKey) -> bool {
        self.keys.contains(key)
    }

    /// The key that authenticated first.
    #[must_use]
    pub fn primary(&self) -> Option<PublicKey> {
        self.keys.first().copied()
    }

    /// Whether nobody has authenticated.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Who asks, and what for: the filter's `#h` values and ids are what opens an unlisted group.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The reader.
    pub reader: &'a Reader,
    /// The filter through which the event would be sent.
    pub filter: &'a Filter,
    /// KeyPackages that this query has claimed (decisions, "KeyPackages" 4).
    pub claimed: &'a [EventId],
}

impl<'a> Asker<'a> {
    /// An asker that has claimed nothing.
    #[must_use]
    pub const fn new(reader: &'a Reader, filter: &'a Filter) -> Self {
        Self { reader, filter, claimed: &[] }
    }
}

/// What a store knows of an event beside the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Place in the store's log.
    pub cursor: u64,
    /// When this relay received it.
    pub received_at: UnixSecs,
    /// From when on it is served to nobody; `u64::MAX` for never.
    pub expires_at: UnixSecs,
    /// Whether it is for its author alone, as a deletion that names what is not public.
    pub author_only: bool,
}

/// An event as a store gives it back: nothing of it can be sent before [`Gate::release`].
///
/// What can be asked of it without a reader is what live delivery needs to find the subscriptions to ask for.
#[derive(Clone)]
pub struct Sealed {
    event: Event,
    stamp: Stamp,
    audience: Audience,
}

impl std::fmt::Debug for Sealed {
    /// Shows the place in the log and nothing of the event.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("cursor", &self.stamp.cursor).finish_non_exhaustive()
    }
}

impl Sealed {
    /// Seals an event that a store holds.
    #[must_use]
    pub fn new(event: Event, stamp: Stamp) -> Self {
        let audience = if stamp.author_only { Audience::Keys(vec![event.pubkey()]) } else { audience(event.view()) };
        Self { event, stamp, audience }
    }

    /// Place in the log.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.stamp.cursor
    }

    /// From when on it is served to nobody.
    #[must_use]
    pub const fn expires_at(&self) -> UnixSecs {
        self.stamp.expires_at
    }

    /// The group whose state [`Gate::release`] must be given.
    #[must_use]
    pub const fn group(&self) -> Option<&NostrGroupId> {
        match &self.audience {
            Audience::Group(group) => Some(group),
            _ => None,
        }
    }

    /// Who it is for.
    #[must_use]
    pub const fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Its kind, to be counted.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.event.kind()
    }

    /// Where the store goes on after this event.
    #[must_use]
    pub fn position(&self) -> crate::query::Position {
        crate::query::Position { created_at: self.event.created_at(), id: self.event.id() }
    }

    /// Bytes that it takes in memory, to bound a page.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.event.record().len()
    }

    /// Calls `visit` with its id, author, kind and each tag that a filter can name.
    pub(crate) fn visit_conditions(&self, mut visit: impl FnMut(Condition<'_>)) {
        visit(Condition::Id(self.event.id()));
        visit(Condition::Author(self.event.pubkey()));
        visit(Condition::Kind(self.event.kind()));
        for (letter, value) in self.event.tags().indexed() {
            visit(Condition::Tag(letter, value));
        }
    }

    /// Which cached states of groups this event makes stale.
    #[must_use]
    pub fn touches(&self) -> Touches {
        match self.event.kind() {
            Kind::ROSTER | Kind::GIFT_WRAP => self
                .event
                .tags()
                .value(name::GROUP)
                .and_then(NostrGroupId::parse)
                .map_or(Touches::Nothing, Touches::Group),
            Kind::VANISH => Touches::EveryGroup,
            _ => Touches::Nothing,
        }
    }
}

/// See [`Sealed::touches`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touches {
    /// No group.
    Nothing,
    /// This one.
    Group(NostrGroupId),
    /// Any number of groups.
    EveryGroup,
}

/// An event that the reader it was released to may see.
#[derive(Clone)]
pub struct Released {
    event: Event,
}

impl Released {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id()
    }

    /// Its `created_at`.
    #[must_use]
    pub fn created_at(&self) -> UnixSecs {
        self.event.created_at()
    }

    /// The event itself, for doors that show parts of it.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// The event's JSON, shared by all who get it.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.event.json()
    }
}

/// The read decision, under one policy.
#[derive(Clone, Debug)]
pub struct Gate {
    policy: Arc<Policy>,
}

impl Gate {
    /// A gate under `policy`.
    #[must_use]
    pub const fn new(policy: Arc<Policy>) -> Self {
        Self { policy }
    }

    /// The policy it stands under.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether a request with these filters is answered at all.
    ///
    /// # Errors
    /// `auth-required:` where the reader has no keys and the relay, or a kind that a filter names, needs one: clients
    /// repeat after AUTH only what was CLOSED.
    pub fn admit_request(&self, reader: &Reader, filters: &[Filter]) -> Result<(), Rejection> {
        if !reader.is_anonymous() {
            return Ok(());
        }
        if self.policy.auth_required {
            return Err(Rejection::auth_required("this relay answers nothing before AUTH (NIP-42)"));
        }
        let needs_key = |filter: &Filter| {
            let kinds = filter.kinds.as_deref().unwrap_or_default();
            let names_capability = || {
                filter
                    .tag_values(b'h')
                    .iter()
                    .any(|h| NostrGroupId::parse(h).is_some_and(|group| group.is_capability()))
            };
            kinds.iter().any(|kind| match *kind {
                Kind::GROUP_MESSAGE => !names_capability(),
                kind if kind.is_key_package() => self.policy.keypackage_consumption == KeyPackageConsumption::OnRead,
                kind => is_for_recipients(kind),
            })
        };
        if filters.iter().any(needs_key) {
            return Err(Rejection::auth_required("a kind in this filter is for members or recipients; AUTH first"));
        }
        Ok(())
    }

    /// Whether the reader may see anything of `kind` in a group, asked with `filter` or, for `event`, by its id.
    fn opens(&self, group: &Group, asker: Asker<'_>, kind: Kind, id: Option<EventId>) -> bool {
        if kind == Kind::ROSTER && asker.reader.keys().iter().any(|key| self.policy.is_admin(key)) {
            return true;
        }
        match &group.status {
            GroupStatus::Managed(_) => group.has_member(asker.reader.keys()),
            GroupStatus::Unknown | GroupStatus::Unlisted => {
                let names = || asker.filter.tag_values(b'h').iter().any(|text| **text == *group.id.as_str());
                let names_id = |id: EventId| asker.filter.ids.as_ref().is_some_and(|ids| ids.contains(&id));
                kind == Kind::GROUP_MESSAGE
                    && self.policy.unlisted_groups
                    && group.id.is_capability()
                    && (names() || id.is_some_and(names_id))
            }
        }
    }

    /// Whether a store need look into a group at all for this asker: a group that stays shut is never scanned.
    #[must_use]
    pub fn may_scan(&self, group: &Group, asker: Asker<'_>) -> bool {
        [Kind::GROUP_MESSAGE, Kind::ROSTER]
            .into_iter()
            .any(|kind| asker.filter.asks_kind(kind) && self.opens(group, asker, kind, None))
    }

    /// Which audiences a store need look into for this asker, groups aside.
    #[must_use]
    pub fn scans(&self, asker: Asker<'_>) -> Scans {
        let kinds = asker.filter.kinds.as_deref();
        let any = |test: fn(Kind) -> bool| kinds.is_none_or(|kinds| kinds.iter().any(|kind| test(*kind)));
        Scans {
            everyone: any(may_be_public) && (!asker.reader.is_anonymous() || !self.policy.auth_required),
            keys: any(may_be_for_keys),
            groups: any(crate::audience::is_for_group),
            all_rosters: asker.filter.asks_kind(Kind::ROSTER)
                && asker.reader.keys().iter().any(|key| self.policy.is_admin(key)),
        }
    }

    /// Releases a sealed event to an asker, or does not.
    ///
    /// `group` is the state of [`Sealed::group`] as of now; without it, or with another group's, an event of a group
    /// stays sealed. The event must fit the asker's filter.
    #[must_use]
    pub fn release(&self, sealed: &Sealed, asker: Asker<'_>, group: Option<&Group>, now: UnixSecs) -> Option<Released> {
        let event = &sealed.event;
        if sealed.stamp.expires_at <= now || !asker.filter.matches(event.view()) {
            return None;
        }
        if self.policy.auth_required && asker.reader.is_anonymous() {
            return None;
        }
        let open = match &sealed.audience {
            Audience::Everyone => self.serves_key_package(event, asker),
            Audience::Keys(keys) => keys.iter().any(|key| asker.reader.has(key)),
            Audience::Group(id) => group
                .filter(|group| group.id == *id)
                .is_some_and(|group| self.opens(group, asker, event.kind(), Some(event.id()))),
            Audience::Nobody => false,
        };
        open.then(|| Released { event: event.clone() })
    }

    /// Where reading consumes, a KeyPackage of another goes only to the query that claimed it.
    fn serves_key_package(&self, event: &Event, asker: Asker<'_>) -> bool {
        self.policy.keypackage_consumption == KeyPackageConsumption::Never
            || !event.kind().is_key_package()
            || asker.reader.has(&event.pubkey())
            || (!asker.reader.is_anonymous() && asker.claimed.contains(&event.id()))
    }
}

/// See [`Gate::scans`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scans {
    /// What is for everyone.
    pub everyone: bool,
    /// What is for the reader's keys.
    pub keys: bool,
    /// What is for groups.
    pub groups: bool,
    /// The rosters of all groups, for admin keys.
    pub all_rosters: bool,
}
