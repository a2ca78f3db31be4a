//! What becomes of each event of a batch, and what is to be written.
//!
//! Events see the effects of those before them. Nothing here reads or writes a store: the facts were loaded, and stay true
//! until the changes are committed, by a lock or by preconditions.

use std::sync::Arc;

use nostr_extensions::{
    Admitted, Audience, Effect, NostrGroupId, Persistence, RouteHasher, Sealed, Source, Stamp,
    admit::NEVER,
    gate::Touches,
    mls_gateway::{
        deletion::{Deletion, may_delete, vanishes},
        group::{
            Changed, Refusal, RosterChange, SeenEpoch, WRAPPED_GROUPS_MAX, WrapChange, apply_roster, apply_vanish,
            apply_wrap, leaves_groups, next_epoch,
        },
        key_package::DirectoryEntry,
    },
};
use nostr_protocol::{Event, EventId, Kind, PublicKey, UnixSecs, tag::name};

pub(crate) use super::changes::{Changes, GroupChange, Put, PutPackage};
use super::{
    AUTHOR_ONLY, EPHEMERAL, LOG_ONLY, TOUCHES_GROUPS,
    facts::{
        Address, Buried, Facts, Holder, Place, Referenced, Target, address_bytes, author_of, buried, claimed, deleters,
        owners, reference_of,
    },
    prefixes,
};
use crate::{Cursor, Saved, index::address};

/// What a batch comes to.
#[derive(Debug)]
pub(crate) struct Decided {
    outcomes: Vec<Outcome>,
    pub(crate) changes: Changes,
}

#[derive(Debug)]
enum Outcome {
    /// At this place among the events that are put.
    Put(usize),
    Other(Saved),
}

impl Decided {
    /// Whether every event of the batch is to be stored and none of them is taken out again, so that it shows when it is
    /// written whether one was stored before.
    #[cfg(feature = "firestore")]
    pub(crate) fn puts_all(&self) -> bool {
        let stays = |put: &Put| {
            let id = put.event.id();
            !put.gone && self.changes.removed.iter().all(|(_, removed)| *removed != id)
        };
        self.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Put(_))) && self.changes.put.iter().all(stays)
    }

    /// The answers, when the `n`th event that is put has been committed at `cursor_of(n)`.
    pub(crate) fn answers(self, cursor_of: impl Fn(usize) -> Cursor) -> Vec<Saved> {
        let put = self.changes.put;
        let answer = |outcome| match outcome {
            Outcome::Put(n) => Saved::New(put[n].seal(cursor_of(n))),
            Outcome::Other(saved) => saved,
        };
        self.outcomes.into_iter().map(answer).collect()
    }
}

/// Cuts a batch so that a request to vanish stands alone: what it takes out is found by the store, and what comes after
/// it must find it gone.
pub(crate) fn cut(batch: Vec<Admitted>) -> Vec<Vec<Admitted>> {
    let mut parts: Vec<Vec<Admitted>> = Vec::new();
    let mut open = false;
    for admitted in batch {
        let alone = matches!(admitted.effect(), Effect::Vanish);
        match parts.last_mut().filter(|_| open && !alone) {
            Some(part) => part.push(admitted),
            None => parts.push(vec![admitted]),
        }
        open = !alone;
    }
    parts
}

/// Decides a batch by what is known.
pub(crate) fn decide(batch: &[Admitted], facts: Facts, router: &RouteHasher) -> Decided {
    let mut deciding = Deciding::new(facts, router);
    let outcomes = batch.iter().map(|admitted| deciding.event(admitted)).collect();
    Decided { outcomes, changes: deciding.changes }
}

pub(super) struct Deciding<'a> {
    pub(super) facts: Facts,
    pub(super) changes: Changes,
    pub(super) router: &'a RouteHasher,
}

/// What an event is put with beside what it says.
#[derive(Default)]
pub(super) struct With {
    pub(super) author_only: bool,
    pub(super) touches_groups: bool,
    address: Option<Address>,
    package: Option<PutPackage>,
}

/// Refused or passed over as a whole, or to be put.
pub(super) type Applied = Result<With, Saved>;

impl<'a> Deciding<'a> {
    pub(super) fn new(facts: Facts, router: &'a RouteHasher) -> Self {
        let mut deciding = Self { facts, changes: Changes::default(), router };
        deciding.free_addresses();
        deciding
    }

    /// Takes out what a vanished key left at addresses that are asked about: it is gone for all, and held them.
    fn free_addresses(&mut self) {
        let Facts { holders, vanished, .. } = &self.facts;
        let left = holders.iter().filter(|(address, holder)| {
            vanished.get(&author_of(address)).is_some_and(|until| holder.created_at <= *until)
        });
        let left: Vec<_> = left.map(|(_, holder)| (holder.at, holder.id)).collect();
        for (at, id) in left {
            self.remove(at, id);
        }
    }

    fn event(&mut self, admitted: &Admitted) -> Outcome {
        let event = admitted.event();
        let now = admitted.received_at();
        if admitted.persistence() == Persistence::Ephemeral {
            return Outcome::Put(self.put_admitted(admitted, With::default()));
        }
        // Whether a message is stored is told to those alone who may send it now.
        if let Effect::GroupMessage { group, keys, unlisted, .. } = admitted.effect()
            && !self.may_send(group, keys, *unlisted)
        {
            return Outcome::Other(Saved::Refused(Refusal::no_member(keys)));
        }
        // Asked first: what a vanished key left may be stored still.
        if self.is_gone(event) {
            return Outcome::Other(Saved::Deleted);
        }
        if self.facts.ids.contains(&event.id()) {
            return Outcome::Other(Saved::Duplicate);
        }
        let applied = match admitted.effect() {
            Effect::None => Ok(With::default()),
            Effect::Replace { identifier } => self.replace(event, identifier, now),
            Effect::KeyPackage { entry, identifier } => self.key_package(event, entry, identifier.as_deref(), now),
            Effect::GroupMessage { group, epoch, .. } => Ok(self.group_message(group, *epoch)),
            Effect::Roster(change) => self.roster(change, now),
            Effect::Wrap(change) => self.wrap(change, now),
            Effect::Delete(deletion) => self.delete(event, deletion),
            Effect::Vanish => {
                self.vanish(event, now);
                Ok(With::default())
            }
        };
        match applied {
            Ok(with) => Outcome::Put(self.put_admitted(admitted, with)),
            Err(saved) => Outcome::Other(saved),
        }
    }

    fn put_admitted(&mut self, admitted: &Admitted, with: With) -> usize {
        let flags = match admitted.persistence() {
            Persistence::Stored => 0,
            Persistence::LogOnly => LOG_ONLY,
            Persistence::Ephemeral => EPHEMERAL,
        };
        self.put(admitted.event(), admitted.received_at(), admitted.expires_at(), flags, with)
    }

    /// Its place among the events that are put.
    pub(super) fn put(
        &mut self,
        event: &Event,
        received_at: UnixSecs,
        expires_at: UnixSecs,
        flags: i16,
        with: With,
    ) -> usize {
        let flag = |set: bool, flag: i16| if set { flag } else { 0 };
        let mut put = Put {
            event: event.clone(),
            received_at,
            expires_at,
            flags: flags | flag(with.author_only, AUTHOR_ONLY) | flag(with.touches_groups, TOUCHES_GROUPS),
            prefixes: Vec::new(),
            routes: Vec::new(),
            group: None,
            touches: Touches::Nothing,
            address: with.address,
            package: with.package,
            gone: false,
        };
        let sealed = put.seal(0);
        put.routes = self.router.routes(&sealed);
        put.group = sealed.group().cloned();
        put.touches = if with.touches_groups { Touches::EveryGroup } else { sealed.touches() };
        if flags & (LOG_ONLY | EPHEMERAL) == 0 {
            put.prefixes = prefixes(event.view(), sealed.audience());
        }
        let n = self.changes.put.len();
        if flags & EPHEMERAL == 0 {
            self.know(&put, Place::Put(n));
        }
        self.changes.put.push(put);
        n
    }

    /// Takes an event that is put into what is known.
    fn know(&mut self, put: &Put, at: Place) {
        let (event, expires_at) = (&put.event, put.expires_at);
        let author_only = put.flags & AUTHOR_ONLY != 0;
        self.facts.ids.insert(event.id());
        self.facts.targets.insert(event.id(), Target { at, event: event.clone(), author_only });
        if let Some(address) = put.address {
            let holder = Holder { at, id: event.id(), created_at: event.created_at(), expires_at };
            self.facts.holders.insert(address, holder);
        }
        if let Some(PutPackage { reference: Some(reference), content_hash, .. }) = &put.package {
            let referenced = Referenced { at, content_hash: *content_hash, expires_at };
            self.facts.references.entry(*reference).or_default().push(referenced);
        }
    }

    pub(super) fn remove(&mut self, at: Place, id: EventId) {
        match at {
            Place::Stored(cursor) => self.changes.removed.push((cursor, id)),
            Place::Put(n) => self.changes.put[n].gone = true,
        }
        self.facts.ids.remove(&id);
        self.facts.targets.remove(&id);
        self.facts.holders.retain(|_, holder| holder.at != at);
        for referenced in self.facts.references.values_mut() {
            referenced.retain(|it| it.at != at);
        }
    }

    /// Whether the event's author or recipient took it back before it came: by name, or by vanishing.
    pub(super) fn is_gone(&self, event: &Event) -> bool {
        let vanished = |key: &PublicKey| {
            event.kind() != Kind::VANISH
                && self.facts.vanished.get(key).is_some_and(|at| vanishes(event.view(), key, *at))
        };
        let buried = |key: &PublicKey| self.facts.tombstones.contains_key(&buried(&event.id(), key));
        owners(event).iter().any(vanished) || deleters(event).iter().any(buried)
    }

    pub(super) fn replace(&mut self, event: &Event, identifier: &str, now: UnixSecs) -> Applied {
        let address = address_bytes(&address(&event.pubkey(), event.kind(), identifier));
        if let Some(old) = self.place(event, &address, now)? {
            self.remove(old.at, old.id);
        }
        Ok(With { address: Some(address), ..With::default() })
    }

    /// Whom the event displaces at its address; refused where it may not have it. NIP-01: the newest is kept, of those of
    /// one second the one with the lowest id.
    fn place(&self, event: &Event, address: &Address, now: UnixSecs) -> Result<Option<Holder>, Saved> {
        if self.facts.address_tombstones.get(address).is_some_and(|at| event.created_at() <= *at) {
            return Err(Saved::Deleted);
        }
        let Some(old) = self.facts.holders.get(address) else { return Ok(None) };
        let order = |created_at: UnixSecs, id: EventId| (created_at, std::cmp::Reverse(id));
        let newer = order(old.created_at, old.id) > order(event.created_at(), event.id());
        if old.expires_at > now && newer { Err(Saved::Superseded) } else { Ok(Some(old.clone())) }
    }

    pub(super) fn key_package(
        &mut self,
        event: &Event,
        entry: &DirectoryEntry,
        identifier: Option<&str>,
        now: UnixSecs,
    ) -> Applied {
        if self.facts.claimed.contains(&claimed(&entry.owner, &entry.content_hash)) {
            return Err(Saved::Deleted);
        }
        let address = identifier.map(|it| address_bytes(&address(&event.pubkey(), event.kind(), it)));
        let old = match &address {
            Some(address) => self.place(event, address, now)?,
            None => None,
        };
        let reference = entry.reference.as_ref().map(|text| reference_of(entry.owner, text));
        let named = reference.and_then(|it| self.facts.references.get(&it)).into_iter().flatten();
        if named.into_iter().any(|other| other.expires_at > now && other.content_hash != entry.content_hash) {
            return Err(Saved::Refused(Refusal::ReferenceTaken));
        }
        if let Some(old) = old {
            self.remove(old.at, old.id);
        }
        let package = PutPackage {
            owner: entry.owner,
            reference,
            content_hash: entry.content_hash,
            last_resort: entry.last_resort,
        };
        Ok(With { address, package: Some(package), ..With::default() })
    }

    fn may_send(&self, group: &NostrGroupId, keys: &[PublicKey], unlisted: bool) -> bool {
        match self.facts.groups.get(group).and_then(|facts| facts.view.as_ref()) {
            Some(view) => keys.iter().any(|key| view.members.contains_key(key)),
            None => unlisted,
        }
    }

    fn group_message(&mut self, group: &NostrGroupId, epoch: SeenEpoch) -> With {
        let facts = self.facts.groups.entry(group.clone()).or_default();
        match &mut facts.view {
            Some(view) => {
                let next = next_epoch(view.record.last_epoch, epoch);
                if let Some(epoch) = next.filter(|_| next != view.record.last_epoch) {
                    Arc::make_mut(view).record.last_epoch = next;
                    self.changes.epochs.push((group.clone(), epoch));
                }
            }
            None if !facts.unlisted => {
                facts.unlisted = true;
                self.changes.unlisted.push(group.clone());
            }
            None => {}
        }
        With::default()
    }

    fn roster(&mut self, change: &RosterChange, now: UnixSecs) -> Applied {
        let status = self.facts.groups.get(&change.group).cloned().unwrap_or_default().status();
        match apply_roster(&status, change, now) {
            Ok(changed) => Ok(self.change(&change.group, changed, now)),
            Err(refusal) => Err(Saved::Refused(refusal)),
        }
    }

    fn wrap(&mut self, change: &WrapChange, now: UnixSecs) -> Applied {
        let known = self.facts.groups.get(&change.group).cloned().unwrap_or_default();
        if known.view.as_ref().is_some_and(|view| view.record.source != Source::GiftWrap) {
            return Ok(With::default());
        }
        let founded = change.founder.and_then(|it| self.facts.founded.get(&it)).copied().unwrap_or(0);
        // Anyone may wrap to anyone: it is delivered, and makes no more memberships than a reader can bear.
        let is_full = self.facts.memberships.get(&change.recipient).copied().unwrap_or(0) >= WRAPPED_GROUPS_MAX;
        match apply_wrap(&known.status(), change, founded, now) {
            Ok(Some(_)) if is_full => Ok(With::default()),
            Ok(Some(changed)) => Ok(self.change(&change.group, changed, now)),
            Ok(None) => Ok(With::default()),
            Err(refusal) => Err(Saved::Refused(refusal)),
        }
    }

    fn change(&mut self, group: &NostrGroupId, changed: Changed, now: UnixSecs) -> With {
        for (key, role) in &changed.delta {
            let was = self.facts.groups.get(group).and_then(|it| it.view.as_ref()?.members.get(key)).is_some();
            if let Some(groups) = self.facts.memberships.get_mut(key) {
                *groups =
                    (*groups + usize::from(role.is_some() && !was)).saturating_sub(usize::from(role.is_none() && was));
            }
        }
        if let Some(founder) = changed.founder {
            *self.facts.founded.entry(founder).or_default() += 1;
            self.changes.founded.push((founder, now));
        }
        let record = changed.view.record.clone();
        self.changes.groups.push(GroupChange { group: group.clone(), record, delta: changed.delta });
        self.facts.groups.entry(group.clone()).or_default().view = Some(Arc::new(changed.view));
        With::default()
    }

    fn delete(&mut self, event: &Event, deletion: &Deletion) -> Applied {
        let by = deletion.by;
        let undeletable = deletion.ids.iter().filter_map(|id| self.facts.targets.get(id)).any(|target| {
            matches!(target.event.kind(), Kind::GROUP_MESSAGE | Kind::ROSTER) && target.event.pubkey() == by
        });
        if undeletable {
            return Err(Saved::Refused(Refusal::Undeletable));
        }
        // An address of another author is no target, and nothing is known of it here.
        let foreign = event.tags().named(name::ADDRESS).count() > deletion.addresses.len();
        let mut with = With { author_only: foreign, ..With::default() };
        for id in &deletion.ids {
            with.author_only |= !match self.facts.targets.get(id).cloned() {
                Some(target) => {
                    let public = is_public(&target);
                    if may_delete(target.event.view(), &by) {
                        with.touches_groups |= names_group(&target.event);
                        self.bury(buried(id, &by), public);
                        self.remove(target.at, *id);
                    }
                    public
                }
                None => match self.facts.tombstones.get(&buried(id, &by)) {
                    Some(public) => *public,
                    None => {
                        self.bury(buried(id, &by), false);
                        false
                    }
                },
            };
        }
        for (kind, identifier) in &deletion.addresses {
            let address = address_bytes(&address(&by, *kind, identifier));
            with.author_only |= !self.delete_address(address, event.created_at());
        }
        Ok(with)
    }

    /// Whether anything was known of the address.
    pub(super) fn delete_address(&mut self, address: Address, at: UnixSecs) -> bool {
        let current = self.facts.holders.get(&address).cloned();
        let known = current.is_some() || self.facts.address_tombstones.contains_key(&address);
        if let Some(current) = current.filter(|current| current.created_at <= at) {
            self.remove(current.at, current.id);
        }
        let until = self.facts.address_tombstones.entry(address).or_default();
        *until = (*until).max(at);
        self.changes.address_tombstones.push((address, *until));
        known
    }

    pub(super) fn bury(&mut self, buried: Buried, public: bool) {
        self.facts.tombstones.insert(buried, public);
        self.changes.tombstones.push((buried, public));
    }

    fn vanish(&mut self, event: &Event, now: UnixSecs) {
        let (key, at) = (event.pubkey(), event.created_at());
        let until = self.facts.vanished.get(&key).copied().unwrap_or(0).max(at);
        self.facts.vanished.insert(key, until);
        self.changes.vanished.push((key, until));
        if !leaves_groups(at, now) {
            return;
        }
        let views = self.facts.groups.iter().filter_map(|(id, facts)| Some((id.clone(), facts.view.clone()?)));
        let left: Vec<_> = views.filter_map(|(id, view)| Some((id, apply_vanish(&view, &key)?))).collect();
        for (group, changed) in left {
            self.change(&group, changed, now);
        }
    }
}

/// Whether a removed event leaves groups changed that who follows the log heard of by it alone.
pub(crate) fn names_group(event: &Event) -> bool {
    event.kind() == Kind::GIFT_WRAP && event.tags().value(name::GROUP).is_some()
}

pub(super) fn is_public(target: &Target) -> bool {
    let stamp = Stamp { cursor: 0, received_at: 0, expires_at: NEVER, author_only: target.author_only };
    *Sealed::new(target.event.clone(), stamp).audience() == Audience::Everyone
}
