//! The rules by which each record of an import is written.
//!
//! As with a batch of events, a shared store loads the facts that are [`Wanted`] and writes the [`Changes`].

use std::collections::BTreeMap;

use nostr_extensions::{
    Effect, GroupStatus, ManagedGroup, NostrGroupId, Restored, Role, RouteHasher,
    gate::Touches,
    mls_gateway::group::{Changed, GROUP_MEMBERS_MAX, Invited, Join, Refusal},
};
use nostr_protocol::{DAY_SECS, PublicKey, UnixSecs};

use super::{
    changes::{Changes, Mark},
    collect::Collecting,
    event::{Decider, NotPut},
    facts::{Facts, Wanted},
    keys::tombstone_key,
    lookup::{Apply, Placement},
};
use crate::moving::{Imported, Record, Removal, foundings_missing, merge_group};

/// Most members of the groups of one part that [`cut`] gives.
const PART_MEMBERS_MAX: usize = 2 * GROUP_MEMBERS_MAX;

/// The outcomes of a part of an import, and the changes to be written for it.
#[derive(Debug)]
pub(crate) struct Restoring {
    pub(crate) outcomes: Vec<Imported>,
    pub(crate) changes: Changes,
}

/// Most vanished keys of one part: each is searched for.
const PART_VANISHED_MAX: usize = 100;

/// Cuts a batch into parts that are each decided and written at once. Vanished keys have parts of their own: the store
/// finds and removes their events when it writes them, and the records after them must find the events gone. The number
/// of members bounds a part of groups.
pub(crate) fn cut(records: Vec<Record<Restored>>) -> Vec<Vec<Record<Restored>>> {
    let mut parts: Vec<Vec<Record<Restored>>> = Vec::new();
    let (mut open, mut weight) = (None, 0);
    for record in records {
        // A part holds records of one sort, whose weights together are at most `weight_max`. This record weighs `adds`.
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
    /// The facts that deciding the records takes.
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
                    wanted.ordered.insert(id.clone());
                }
                Record::Removal(removal) => {
                    wanted.targets.insert(removal.id);
                    wanted.named.insert((removal.id, removal.author));
                    wanted.tombstones.insert(tombstone_key(&removal.id, &removal.author));
                }
                Record::Event(restored) => {
                    wanted.add_event(restored.event(), restored.effect());
                    if let Effect::GroupMessage { group, .. } = restored.effect() {
                        wanted.groups.insert(group.clone());
                    }
                }
            }
        }
        wanted
    }
}

/// Decides a part on loaded facts.
pub(crate) fn decide(
    records: &[Record<Restored>],
    facts: Facts,
    route_hasher: &RouteHasher,
    now: UnixSecs,
) -> Restoring {
    // A follower may have missed what an event changed that is removed now.
    let mut removed = Touches::Nothing;
    for record in records {
        if let Record::Removal(removal) = record
            && let Some(target) = facts.targets.get(&removal.id)
        {
            removed.add(target.touches.clone());
        }
    }
    let mut collecting = Collecting::new(facts, route_hasher);
    let mut outcomes = Vec::with_capacity(records.len());
    for record in records {
        let Ok(imported) = Decider(&mut collecting).record(record, now);
        outcomes.push(imported);
    }
    let mut changes = collecting.changes;
    let touches = if changes.groups.is_empty() && changes.vanished.is_empty() { removed } else { Touches::EveryGroup };
    changes.mark = (touches != Touches::Nothing).then_some(Mark { at: now, touches });
    Restoring { outcomes, changes }
}

impl<S: Apply> Decider<'_, S> {
    /// Writes one record.
    ///
    /// # Errors
    /// The store's; the transaction is to be given up.
    pub(crate) fn record(&mut self, record: &Record<Restored>, now: UnixSecs) -> Result<Imported, S::Error> {
        let is_new = match record {
            Record::Vanished { key, at } => self.mark_vanished(key, *at)?,
            Record::Tombstone { target, deleter, public } => {
                let key = (*target, *deleter);
                let is_new = self.0.tombstone(&key)?.is_none();
                if is_new {
                    self.0.bury(&key, *public)?;
                }
                is_new
            }
            Record::AddressTombstone { address, until } => {
                let is_new = self.0.address_tombstone(address)?.is_none_or(|here| here < *until);
                if is_new {
                    self.delete_address(address, *until)?;
                }
                is_new
            }
            Record::Claimed { owner, content } => {
                let claimed = (*owner, *content);
                let is_new = !self.0.is_claimed(&claimed)?;
                if is_new {
                    self.0.claim(&claimed)?;
                }
                is_new
            }
            Record::Founded { key, at } => {
                let missing = foundings_missing(self.0.founded(key, now)? as usize, at, now);
                for at in &missing {
                    self.0.count_founding(key, *at)?;
                }
                !missing.is_empty()
            }
            Record::Unlisted(group) => self.0.mark_unlisted(group)?,
            Record::Group { id, view, invited } => return self.restore_group(id, view, invited, now),
            Record::Event(restored) => return self.restore_event(restored, now),
            Record::Removal(removal) => self.remove_event(removal)?,
        };
        Ok(Imported::new_if(is_new))
    }

    fn restore_group(
        &mut self,
        id: &NostrGroupId,
        given: &ManagedGroup,
        invited: &BTreeMap<PublicKey, Invited>,
        now: UnixSecs,
    ) -> Result<Imported, S::Error> {
        let status = self.0.group(id)?;
        let here = match &status {
            GroupStatus::Managed(here) => Some(&**here),
            GroupStatus::Unlisted | GroupStatus::Unknown => None,
        };
        let (imported, view) = merge_group(here, given);
        if matches!(imported, Imported::New | Imported::Replaced) {
            let (delta, last_epoch) = (delta(here, &view), view.record.last_epoch);
            let new = delta
                .iter()
                .filter(|(key, role)| role.is_some() && here.is_none_or(|here| !here.members.contains_key(key)));
            let joined = new.map(|(key, _)| Join { key: *key, invited: invited.get(key).copied() }).collect();
            self.0.change_group(id, Changed { view, delta, joined, founder: None }, now)?;
            if let Some(epoch) = last_epoch {
                self.0.raise_epoch(id, epoch)?;
            }
        }
        Ok(imported)
    }

    /// Removes an event by the operator's word, whatever its kind. Returns whether it was stored.
    fn remove_event(&mut self, removal: &Removal) -> Result<bool, S::Error> {
        let Some(target) = self.0.target(&removal.id)? else { return Ok(false) };
        let (at, is_public) = (target.at, target.is_public());
        if removal.is_marked {
            self.0.bury(&tombstone_key(&removal.id, &removal.author), is_public)?;
        }
        self.0.remove(at, &removal.id)?;
        Ok(true)
    }

    fn restore_event(&mut self, restored: &Restored, now: UnixSecs) -> Result<Imported, S::Error> {
        if restored.meta().expires_at <= now {
            return Ok(Imported::Expired);
        }
        match self.restored_placement(restored, now) {
            Ok(placement) => self.0.put(restored.event(), placement).map(|_| Imported::New),
            Err(NotPut::Answer(saved)) => Ok(Imported::from(&saved)),
            Err(NotPut::Failed(error)) => Err(error),
        }
    }

    fn restored_placement<'e>(
        &mut self,
        restored: &'e Restored,
        now: UnixSecs,
    ) -> Result<Placement<'e>, NotPut<S::Error>> {
        let event = restored.event().view();
        let expired = self.check_new(event, now)?;
        let mut placement = Placement::new(restored.meta().clone());
        match restored.effect() {
            Effect::Replace { identifier } => placement.address = Some(self.replace(event, identifier, now)?),
            Effect::KeyPackage { entry, identifier, kept_max } => {
                self.key_package(event, entry, (identifier.as_deref(), *kept_max), (&mut placement, now))?;
            }
            // The removals of an export are records of their own. Another relay's deletion removes as a client's does.
            Effect::Delete(deletion) if restored.is_foreign() => {
                let touches = self.delete(event, deletion, &mut placement.meta)?;
                placement.meta.touches = touches.kept_of(event);
            }
            Effect::Delete(deletion) => {
                let mut touches = self.restore_deletion(event.created_at(), deletion, now)?;
                touches.add(placement.meta.touches.take().unwrap_or_else(|| Touches::by_kind(event)));
                placement.meta.touches = touches.kept_of(event);
            }
            Effect::Vanish => drop(self.mark_vanished(&event.pubkey(), event.created_at())?),
            Effect::GroupMessage { group, unlisted, .. } => self.foreign_message(group, *unlisted)?,
            Effect::None | Effect::Roster(_) | Effect::Wrap(_) => {}
        }
        self.make_room(event, expired)?;
        Ok(placement)
    }
}

impl<S: Apply> Decider<'_, S> {
    /// Takes another relay's message in. A managed group stays as it is. Any other one is marked as unlisted, or the
    /// message is refused where the id is none of an unlisted group.
    fn foreign_message(&mut self, group: &NostrGroupId, unlisted: bool) -> Result<(), NotPut<S::Error>> {
        if self.0.is_managed(group)? {
            return Ok(());
        }
        if !unlisted {
            return Err(NotPut::refused(Refusal::NoGroup));
        }
        self.0.mark_unlisted(group)?;
        Ok(())
    }
}

/// Each key whose membership differs.
fn delta(here: Option<&ManagedGroup>, given: &ManagedGroup) -> Vec<(PublicKey, Option<Role>)> {
    let gone = here.into_iter().flat_map(|here| here.members.keys()).filter(|key| !given.members.contains_key(key));
    let was = |key: &PublicKey| here.and_then(|here| here.members.get(key));
    let changed = given.members.iter().filter(|(key, role)| was(key) != Some(role));
    gone.map(|key| (*key, None)).chain(changed.map(|(key, role)| (*key, Some(*role)))).collect()
}
