//! What becomes of each record of an import, and what is to be written.
//!
//! As with a batch of events the store loads what is [`Wanted`], and writes the [`Changes`].

use nostr_extensions::{
    Effect, ManagedGroup, NostrGroupId, Restored, Role, RouteHasher,
    mls_gateway::{
        deletion::{Deletion, may_delete},
        group::GROUP_MEMBERS_MAX,
    },
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    LOG_ONLY,
    batch::{Changes, Deciding, GroupChange, With, is_public, names_group},
    facts::{Facts, Place, Wanted, address_bytes, buried},
};
use crate::{
    Saved,
    index::address,
    moving::{DAY_SECS, Imported, Record, foundings_missing, merge_group},
};

/// Most members of the groups of one part that [`cut`] gives.
const PART_MEMBERS_MAX: usize = 2 * GROUP_MEMBERS_MAX;

/// What a part of an import comes to.
#[derive(Debug)]
pub(crate) struct Restoring {
    pub(crate) outcomes: Vec<Imported>,
    pub(crate) changes: Changes,
}

/// Most vanished keys of one part: each is searched for.
const PART_VANISHED_MAX: usize = 100;

/// Cuts a batch into parts that are each decided and written at once: what vanishes takes out what the store finds, and
/// what comes after it must find it gone; and groups are bounded by their members.
pub(crate) fn cut(records: Vec<Record<Restored>>) -> Vec<Vec<Record<Restored>>> {
    let mut parts: Vec<Vec<Record<Restored>>> = Vec::new();
    let (mut open, mut weight) = (None, 0);
    for record in records {
        // What may stand together, how much of it may, and how much of that this is.
        let (sort, weight_max, adds) = match &record {
            Record::Vanished { .. } => (Some(0), PART_VANISHED_MAX, 1),
            Record::Event(event) if matches!(event.effect(), Effect::Vanish) => (None, 0, 0),
            Record::Event(_) => (Some(2), usize::MAX, 0),
            Record::Group { view, .. } => (Some(1), PART_MEMBERS_MAX, view.members.len()),
            _ => (Some(1), usize::MAX, 0),
        };
        let fits = sort.is_some() && sort == open && weight + adds <= weight_max;
        (open, weight) = (sort, if fits { weight + adds } else { adds });
        match parts.last_mut().filter(|_| fits) {
            Some(part) => part.push(record),
            None => parts.push(vec![record]),
        }
    }
    parts
}

impl Wanted {
    /// What records want.
    pub(crate) fn by_records(records: &[Record<Restored>], now: UnixSecs) -> Self {
        let mut wanted = Self { day_start: now.saturating_sub(DAY_SECS), ..Self::default() };
        for record in records {
            match record {
                Record::Vanished { key, .. } => drop(wanted.vanished.insert(*key)),
                Record::Tombstone { target, deleter, .. } => drop(wanted.tombstones.insert((*target, *deleter))),
                Record::AddressTombstone { address, .. } => drop(wanted.addresses.insert(*address)),
                Record::Claimed { owner, content } => {
                    wanted.claimed.insert((*owner, *content));
                    wanted.taken.insert((*owner, *content));
                }
                Record::Founded { key, .. } => drop(wanted.founders.insert(*key)),
                Record::Unlisted(group) => drop(wanted.groups.insert(group.clone())),
                Record::Group { id, .. } => {
                    wanted.groups.insert(id.clone());
                    wanted.whole.insert(id.clone());
                }
                Record::Event(restored) => wanted.add_event(restored.event(), restored.effect()),
            }
        }
        wanted
    }
}

/// Decides a part by what is known.
pub(crate) fn decide(records: &[Record<Restored>], facts: Facts, router: &RouteHasher, now: UnixSecs) -> Restoring {
    let mut deciding = Deciding::new(facts, router);
    let outcomes = records.iter().map(|record| deciding.record(record, now)).collect();
    let mut changes = deciding.changes;
    changes.mark = (!(changes.groups.is_empty() && changes.vanished.is_empty())).then_some(now);
    Restoring { outcomes, changes }
}

/// What becomes of a record of which everything is known or not.
pub(crate) const fn new_unless(known: bool) -> Imported {
    if known { Imported::Unchanged } else { Imported::New }
}

/// What becomes of an event that was not stored.
pub(crate) const fn refused(saved: &Saved) -> Imported {
    match saved {
        Saved::New(_) | Saved::Duplicate => Imported::Unchanged,
        Saved::Superseded => Imported::Superseded,
        Saved::Deleted => Imported::Deleted,
        Saved::Refused(_) => Imported::Conflicting,
    }
}

impl Deciding<'_> {
    fn record(&mut self, record: &Record<Restored>, now: UnixSecs) -> Imported {
        match record {
            Record::Vanished { key, at } => new_unless(!self.take_along(*key, *at)),
            Record::Tombstone { target, deleter, public } => {
                let known = self.facts.tombstones.contains_key(&(*target, *deleter));
                if !known {
                    self.bury((*target, *deleter), *public);
                }
                new_unless(known)
            }
            Record::AddressTombstone { address, until } => {
                let known = self.facts.address_tombstones.get(address).is_some_and(|here| here >= until);
                if !known {
                    self.delete_address(*address, *until);
                }
                new_unless(known)
            }
            Record::Claimed { owner, content } => {
                let claimed = (*owner, *content);
                let known = !self.facts.claimed.insert(claimed);
                if !known {
                    self.changes.claimed.push(claimed);
                    for (cursor, id) in self.facts.taken.remove(&claimed).unwrap_or_default() {
                        self.remove(Place::Stored(cursor), id);
                    }
                }
                new_unless(known)
            }
            Record::Founded { key, at } => {
                let here = self.facts.founded.entry(*key).or_default();
                let missing = foundings_missing(*here as usize, at, now);
                *here = here.saturating_add(u32::try_from(missing.len()).unwrap_or(u32::MAX));
                let known = missing.is_empty();
                self.changes.founded.extend(missing.into_iter().map(|at| (*key, at)));
                new_unless(known)
            }
            Record::Unlisted(group) => {
                let facts = self.facts.groups.entry(group.clone()).or_default();
                let known = std::mem::replace(&mut facts.unlisted, true);
                if !known {
                    self.changes.unlisted.push(group.clone());
                }
                new_unless(known)
            }
            Record::Group { id, view } => self.group(id, view),
            Record::Event(restored) => self.restored(restored, now),
        }
    }

    /// Whether the key had not vanished up to `at`.
    fn take_along(&mut self, key: PublicKey, at: UnixSecs) -> bool {
        let is_new = self.facts.vanished.get(&key).is_none_or(|here| *here < at);
        if is_new {
            self.facts.vanished.insert(key, at);
            self.changes.vanished.push((key, at));
        }
        is_new
    }

    fn group(&mut self, id: &NostrGroupId, given: &ManagedGroup) -> Imported {
        let here = self.facts.groups.get(id).and_then(|facts| facts.view.as_deref());
        let (imported, view) = merge_group(here, given);
        if matches!(imported, Imported::New | Imported::Replaced) {
            let delta = delta(here, &view);
            if let Some(epoch) = view.record.last_epoch {
                self.changes.epochs.push((id.clone(), epoch));
            }
            self.changes.groups.push(GroupChange { group: id.clone(), record: view.record.clone(), delta });
            self.facts.groups.entry(id.clone()).or_default().view = Some(std::sync::Arc::new(view));
        }
        imported
    }

    fn restored(&mut self, restored: &Restored, now: UnixSecs) -> Imported {
        let (event, kept) = (restored.event(), restored.meta());
        if kept.expires_at <= now {
            return Imported::Expired;
        }
        if self.is_gone(event) {
            return Imported::Deleted;
        }
        if self.facts.ids.contains(&event.id()) {
            return Imported::Unchanged;
        }
        let applied = match restored.effect() {
            Effect::Replace { identifier } => self.replace(event, identifier, now),
            Effect::KeyPackage { entry, identifier } => self.key_package(event, entry, identifier.as_deref(), now),
            Effect::Delete(deletion) => Ok(self.take_back(event.created_at(), deletion)),
            Effect::Vanish => {
                self.take_along(event.pubkey(), event.created_at());
                Ok(With::default())
            }
            Effect::None | Effect::GroupMessage { .. } | Effect::Roster(_) | Effect::Wrap(_) => Ok(With::default()),
        };
        let mut with = match applied {
            Ok(with) => with,
            Err(saved) => return refused(&saved),
        };
        with.author_only = kept.author_only;
        with.touches_groups |= kept.touches_groups;
        let flags = if kept.log_only { LOG_ONLY } else { 0 };
        self.put(event, kept.received_at, kept.expires_at, flags, with);
        Imported::New
    }

    /// What a deletion does where it was not published: what it took back elsewhere goes here too, and nothing refuses it.
    /// What is not here has its tombstone as a record of its own.
    fn take_back(&mut self, at: UnixSecs, deletion: &Deletion) -> With {
        let by = deletion.by;
        let mut with = With::default();
        for id in &deletion.ids {
            if let Some(target) = self.facts.targets.get(id).filter(|it| may_delete(it.event.view(), &by)).cloned() {
                with.touches_groups |= names_group(&target.event);
                self.bury(buried(id, &by), is_public(&target));
                self.remove(target.at, *id);
            }
        }
        for (kind, identifier) in &deletion.addresses {
            self.delete_address(address_bytes(&address(&by, *kind, identifier)), at);
        }
        with
    }
}

/// Each key whose membership differs.
pub(crate) fn delta(here: Option<&ManagedGroup>, given: &ManagedGroup) -> Vec<(PublicKey, Option<Role>)> {
    let gone = here.into_iter().flat_map(|here| here.members.keys()).filter(|key| !given.members.contains_key(key));
    let was = |key: &PublicKey| here.and_then(|here| here.members.get(key));
    let changed = given.members.iter().filter(|(key, role)| was(key) != Some(role));
    gone.map(|key| (*key, None)).chain(changed.map(|(key, role)| (*key, Some(*role)))).collect()
}
