//! The gate: the one place that decides about reading.
//!
//! Source: docs/rules.md, "Who may publish, who may read". Every path to a reader (a stored REQ, its claim of
//! KeyPackages, live delivery, COUNT, NIP-77) gets events as [`Sealed`] and sends their content only as [`Released`],
//! which only [`Gate::release`] and [`Gate::release_prepared`] make, by one decision. The types guard the content
//! alone: [`Sealed`] shows its id, time, kind, group and recipients, and the caller vouches for the [`Reader`], the
//! claims and the [`Group`] that it hands to the gate.

mod hidden;

use bytes::Bytes;
use nostr_protocol::{Event, EventId, EventRef, Filter, Kind, Matcher, Rejection, UnixSecs, mutation};

pub use self::hidden::Hidden;
use crate::{
    audience::{Audience, audience_of, is_for_admin_keys, is_for_group, may_be_for_keys, may_be_public},
    kinds::{GROUP_KINDS, GroupChange, KindRules, Readers, rules},
    mls_gateway::group::{Group, GroupStatus, NostrGroupId, Source},
    moderation::{BANNED_KEY, BANNED_KEYS},
    policy::{CurrentPolicy, KeyPackageConsumption},
    reader::Reader,
    route::Condition,
    tags,
};

/// Most groups that one event is said to have changed: those of a roster of most keys, each of which gives up another
/// group. An event that touches more touches every group.
pub const TOUCHED_GROUPS_MAX: usize = 2_048;

/// A reader with its request: `#h` values and ids in the filter open unlisted groups.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The reader.
    pub reader: &'a Reader,
    /// The filter through which the event would be sent.
    pub filter: &'a Filter,
    /// KeyPackages that this query has claimed (docs/rules.md, "Consumption on read").
    pub claimed: &'a [EventId],
}

impl<'a> Asker<'a> {
    /// An asker that has claimed nothing.
    #[must_use]
    pub const fn new(reader: &'a Reader, filter: &'a Filter) -> Self {
        Self { reader, filter, claimed: &[] }
    }
}

/// Data that a store holds beside an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Place in the store's log.
    pub cursor: u64,
    /// Time at which this relay received it.
    pub received_at: UnixSecs,
    /// Time from which on no reader is served it; `u64::MAX` for never.
    pub expires_at: UnixSecs,
    /// Whether it is for its author alone, as a deletion with a target that is not public.
    pub author_only: bool,
}

/// An event as a store gives it back: nothing of it can be sent before [`Gate::release`].
///
/// Live delivery finds the subscriptions that may ask for it by its routes ([`crate::RouteHasher::routes`]).
#[derive(Clone)]
pub struct Sealed {
    event: Event,
    stamp: Stamp,
    audience: Audience,
    /// The rules of its kind, looked up once for the event and not once for each reader.
    rules: &'static KindRules,
    /// See [`Sealed::touching`].
    told: Option<Touches>,
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
        let rules = rules(event.kind());
        let audience = if stamp.author_only {
            Audience::Keys(vec![event.pubkey()])
        } else {
            audience_of(event.view(), rules.readers)
        };
        Self { event, stamp, audience, rules, told: None }
    }

    /// The same event, of which the store that committed it says what it changed; `None` where its kind says all. Only
    /// an event of a kind that changes groups is told of: the groups of events that a deletion removes are named in
    /// the log alone.
    #[must_use]
    pub fn touching(self, told: Option<Touches>) -> Self {
        let told = told.filter(|_| self.rules.changes != GroupChange::Nothing);
        Self { told, ..self }
    }

    /// Place in the log.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.stamp.cursor
    }

    /// Time from which on no reader is served it.
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

    /// The readers that it is for.
    #[must_use]
    pub const fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Its kind, for the counters.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.event.kind()
    }

    /// The rules of its kind.
    pub(crate) const fn rules(&self) -> &'static KindRules {
        self.rules
    }

    /// The place from which the store goes on after this event.
    #[must_use]
    pub fn position(&self) -> crate::query::Position {
        crate::query::Position { created_at: self.event.created_at(), id: self.event.id() }
    }

    /// Bytes that it takes in memory; pages are bounded by them.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.event.record().len()
    }

    /// The event, made ready to be released to many readers.
    #[must_use]
    pub fn prepare(&self) -> Prepared<'_> {
        Prepared { sealed: self, matcher: Matcher::new(self.event.view()) }
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

    /// The groups whose cached states this event makes stale.
    #[must_use]
    pub fn touches(&self) -> Touches {
        self.told.clone().unwrap_or_else(|| Touches::by_kind(self.event.view()))
    }
}

/// A sealed event whose tags were read and sorted once, for [`Gate::release_prepared`].
pub struct Prepared<'a> {
    sealed: &'a Sealed,
    matcher: Matcher<'a>,
}

/// See [`Sealed::touches`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Touches {
    /// No group.
    #[default]
    Nothing,
    /// These, in ascending order.
    Groups(Vec<NostrGroupId>),
    /// Any number of groups.
    EveryGroup,
}

impl Touches {
    /// These groups, each once.
    #[must_use]
    pub fn groups(groups: impl IntoIterator<Item = NostrGroupId>) -> Self {
        let mut groups: Vec<NostrGroupId> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        match groups.len() {
            0 => Self::Nothing,
            1..=TOUCHED_GROUPS_MAX => Self::Groups(groups),
            _ => Self::EveryGroup,
        }
    }

    /// The groups that an event of this kind may change, as far as the event alone tells.
    #[must_use]
    pub fn by_kind(event: EventRef<'_>) -> Self {
        match rules(event.kind()).changes {
            GroupChange::Nothing => Self::Nothing,
            GroupChange::NamedGroup => Self::groups(tags::group(event)),
            GroupChange::EveryGroup => Self::EveryGroup,
        }
    }

    /// Everything that a store has to keep, so that it knows later that the event touched this; `None` where the event
    /// alone tells it.
    #[must_use]
    pub fn kept_of(self, event: EventRef<'_>) -> Option<Self> {
        (self != Self::by_kind(event)).then_some(self)
    }

    /// Adds what another event touched.
    pub fn add(&mut self, other: Self) {
        *self = match (std::mem::replace(self, Self::Nothing), other) {
            (Self::Groups(these), Self::Groups(those)) => Self::groups(these.into_iter().chain(those)),
            (Self::EveryGroup, _) | (_, Self::EveryGroup) => Self::EveryGroup,
            (Self::Nothing, it) | (it, Self::Nothing) => it,
        };
    }
}

/// An event that the reader it was released to may see.
#[derive(Clone)]
pub struct Released {
    event: Event,
    expires_at: UnixSecs,
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

    /// Time from which on no reader is served it; `u64::MAX` for never.
    #[must_use]
    pub const fn expires_at(&self) -> UnixSecs {
        self.expires_at
    }

    /// The event itself, for callers that show or read parts of it.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// The event's JSON, one copy for all readers.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.event.json()
    }
}

/// The read decision, under the policy in force.
#[derive(Clone, Debug)]
pub struct Gate {
    policy: CurrentPolicy,
}

impl Gate {
    /// A gate under `policy`.
    #[must_use]
    pub const fn new(policy: CurrentPolicy) -> Self {
        Self { policy }
    }

    /// The policy that it decides by.
    #[must_use]
    pub const fn policy(&self) -> &CurrentPolicy {
        &self.policy
    }

    /// Whether a request with these filters is answered at all.
    ///
    /// # Errors
    /// `auth-required:` where the reader has no keys and the relay, or a kind that a filter names, needs one: clients
    /// repeat after AUTH only the requests that were CLOSED. `restricted:` for a banned key,
    /// and `error:` while the orders over NIP-86 are not known.
    pub fn admit_request(&self, reader: &Reader, filters: &[Filter]) -> Result<(), Rejection> {
        let policy = self.policy.now();
        policy.require_orders()?;
        if policy.is_banned_reader(reader) {
            return Err(Rejection::restricted(BANNED_KEY).under(BANNED_KEYS));
        }
        if !reader.is_anonymous() {
            return Ok(());
        }
        if policy.auth_required {
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
            kinds.iter().any(|kind| match rules(*kind).readers {
                Readers::Everyone | Readers::EveryoneOrAuthor => {
                    kind.is_key_package() && policy.keypackage_consumption == KeyPackageConsumption::OnRead
                }
                Readers::Recipients | Readers::AuthorAndRecipients | Readers::Group { unlisted: false, .. } => true,
                Readers::Group { unlisted: true, .. } => !names_capability(),
                Readers::Nobody => false,
            })
        };
        if filters.iter().any(needs_key) {
            return Err(Rejection::auth_required("a kind in this filter is for members or recipients; AUTH first"));
        }
        Ok(())
    }

    /// Whether the asker may read events of a group that are for `readers`. The filter opens an unlisted group by
    /// naming the group, or the `id` of the event.
    pub(crate) fn opens(&self, group: &Group, asker: Asker<'_>, readers: Readers, id: Option<EventId>) -> bool {
        self.opening_of(group, asker, readers, id).is_ok()
    }

    fn opening_of(&self, group: &Group, asker: Asker<'_>, readers: Readers, id: Option<EventId>) -> Result<(), Hidden> {
        let Readers::Group { unlisted, admin_keys } = readers else { return Err(Hidden::FromEveryone) };
        if self.is_closed(group) {
            return Err(Hidden::GroupClosed);
        }
        if (admin_keys || mutation!("gate-admin")) && self.has_admin_key(asker.reader) {
            return Ok(());
        }
        match &group.status {
            GroupStatus::Managed(_) if group.has_member(asker.reader.keys()) || mutation!("gate-members") => Ok(()),
            GroupStatus::Managed(_) => Err(Hidden::NoMember),
            GroupStatus::Unknown | GroupStatus::Unlisted => {
                let named = asker.filter.tag_values(b'h');
                let names = || named.binary_search_by(|text| (**text).cmp(group.id.as_str())).is_ok();
                let names_id =
                    |id: EventId| asker.filter.ids.as_ref().is_some_and(|ids| ids.binary_search(&id).is_ok());
                let is_open = unlisted
                    && group.id.is_capability()
                    && (names() || id.is_some_and(names_id))
                    && self.policy.now().unlisted_groups;
                if is_open { Ok(()) } else { Err(Hidden::NotOpened) }
            }
        }
    }

    /// Whether nobody may read of a group: the access service decides about groups, and no answer about this one counts
    /// (docs/rules.md, "Access service" 9).
    #[must_use]
    pub fn is_closed(&self, group: &Group) -> bool {
        group.awaits_answer() && self.policy.now().sources.contains(&Source::Acl)
    }

    /// Whether the reader may see an event of a closed group at another time, by the state that the group has now.
    #[must_use]
    pub fn opens_later(&self, sealed: &Sealed, group: &Group, reader: &Reader) -> bool {
        let Readers::Group { admin_keys, .. } = sealed.rules.readers else { return false };
        let is_inside = group.has_member(reader.keys()) || admin_keys && self.has_admin_key(reader);
        self.is_closed(group) && is_inside
    }

    fn has_admin_key(&self, reader: &Reader) -> bool {
        self.policy.now().has_admin_key(reader.keys())
    }

    /// Whether a store need look into a group at all for this asker: a group that stays shut is never scanned.
    #[must_use]
    pub fn may_scan(&self, group: &Group, asker: Asker<'_>) -> bool {
        GROUP_KINDS
            .iter()
            .any(|kind| asker.filter.asks_kind(*kind) && self.opens(group, asker, rules(*kind).readers, None))
    }

    /// The audiences that a store need look into for this asker, groups aside.
    #[must_use]
    pub fn scans(&self, asker: Asker<'_>) -> Scans {
        let kinds = asker.filter.kinds.as_deref();
        let any = |test: fn(Kind) -> bool| kinds.is_none_or(|kinds| kinds.iter().any(|kind| test(*kind)));
        Scans {
            everyone: any(may_be_public) && (!asker.reader.is_anonymous() || !self.policy.now().auth_required),
            keys: any(may_be_for_keys),
            groups: any(is_for_group),
            all_rosters: any(is_for_admin_keys) && self.has_admin_key(asker.reader),
        }
    }

    /// Releases a sealed event to an asker; `None` where the asker may not read it, or its filter does not match.
    ///
    /// `group` is the state of [`Sealed::group`] as of now; without it, or with another group's, an event of a group
    /// stays sealed.
    #[must_use]
    pub fn release(&self, sealed: &Sealed, asker: Asker<'_>, group: Option<&Group>, now: UnixSecs) -> Option<Released> {
        self.verdict(sealed, asker, group, now).ok()
    }

    /// Releases as [`Gate::release`] does, or says why not.
    ///
    /// # Errors
    /// The first reason. It is for those alone who may know of the event.
    pub fn verdict(
        &self,
        sealed: &Sealed,
        asker: Asker<'_>,
        group: Option<&Group>,
        now: UnixSecs,
    ) -> Result<Released, Hidden> {
        let matches = || asker.filter.matches(sealed.event.view());
        self.release_if(sealed, asker, group, now, matches)
    }

    /// Releases as [`Gate::release`] does, and adds the conditions and keys that it looks at to `looked_at`.
    #[must_use]
    pub fn release_prepared(
        &self,
        prepared: &Prepared<'_>,
        asker: Asker<'_>,
        group: Option<&Group>,
        now: UnixSecs,
        looked_at: &mut usize,
    ) -> Option<Released> {
        let matches = || {
            let matches = prepared.matcher.matches(asker.filter, looked_at);
            *looked_at += if matches { asker.reader.keys().len() } else { 0 };
            matches
        };
        self.release_if(prepared.sealed, asker, group, now, matches).ok()
    }

    fn release_if(
        &self,
        sealed: &Sealed,
        asker: Asker<'_>,
        group: Option<&Group>,
        now: UnixSecs,
        matches: impl FnOnce() -> bool,
    ) -> Result<Released, Hidden> {
        let event = &sealed.event;
        if sealed.stamp.expires_at <= now && !mutation!("expiry") {
            return Err(Hidden::Expired);
        }
        if !matches() {
            return Err(Hidden::NotAskedFor);
        }
        let policy = self.policy.now();
        if policy.auth_required && asker.reader.is_anonymous() {
            return Err(Hidden::BeforeAuth);
        }
        if let Some(hidden) = policy.hides(event, asker.reader) {
            return Err(hidden);
        }
        match &sealed.audience {
            Audience::Everyone if self.serves_key_package(event, asker) => {}
            Audience::Everyone => return Err(Hidden::NotClaimed),
            Audience::Keys(keys) if asker.reader.keys().iter().any(|key| keys.binary_search(key).is_ok()) => {}
            Audience::Keys(_) if mutation!("gate-recipients") => {}
            Audience::Keys(_) => return Err(Hidden::ForOthers),
            Audience::Group(id) => {
                let group = group.filter(|group| group.id == *id).ok_or(Hidden::GroupUnknown)?;
                self.opening_of(group, asker, sealed.rules.readers, Some(event.id()))?;
            }
            Audience::Nobody => return Err(Hidden::FromEveryone),
        }
        Ok(Released { event: event.clone(), expires_at: sealed.stamp.expires_at })
    }

    /// Whether an event for everyone goes to this asker: if reading consumes, another owner's KeyPackage goes only to
    /// the query that claimed it.
    fn serves_key_package(&self, event: &Event, asker: Asker<'_>) -> bool {
        self.policy.now().keypackage_consumption == KeyPackageConsumption::Never
            || !event.kind().is_key_package()
            || asker.reader.has(&event.pubkey())
            || (!asker.reader.is_anonymous() && asker.claimed.contains(&event.id()))
    }
}

/// See [`Gate::scans`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scans {
    /// Events for everyone.
    pub everyone: bool,
    /// Events for the reader's keys.
    pub keys: bool,
    /// Events of groups.
    pub groups: bool,
    /// Rosters of all groups, which admin keys read.
    pub all_rosters: bool,
}
