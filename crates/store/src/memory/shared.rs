//! The oracle's content under the decisions of the shared stores (feature `simulation`): a batch is cut into parts, the
//! facts of a part are loaded, [`decide`] decides on them, and the changes are written, as PostgreSQL and Firestore do.
//!
//! So a simulation runs the code that decides in shared stores, with a database that is a map in memory.

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{
    Admitted, ManagedGroup, NostrGroupId, RouteHasher, Source, Stamp,
    mls_gateway::{
        deletion::is_commit,
        key_package::{DirectoryEntry, describe},
    },
};
use nostr_protocol::PublicKey;

use super::state::{Item, State};
use crate::{
    Saved,
    decide::{
        AUTHOR_ONLY, EPHEMERAL, LOG_ONLY,
        batch::{ChangedGroup, Changes, MemberChange, Put, cut, decide},
        facts::{AddressHolder, Facts, GroupFacts, Origin, OwnedPackage, Referenced, Target, Wanted},
        keys::reference_of,
        lookup::OWNED_MAX,
        prefixes,
    },
};

/// Saves a batch, whose parts see each other's effects.
pub(super) fn save(state: &mut State, batch: Vec<Admitted>, router: &RouteHasher) -> Vec<Saved> {
    let mut saved = Vec::with_capacity(batch.len());
    for part in cut(batch) {
        let decided = decide(&part, load(state, &Wanted::by(&part)), router);
        let head = state.head;
        write(state, &decided.changes);
        saved.extend(decided.answers(|n| head + 1 + n as u64));
    }
    saved
}

fn load(state: &State, wanted: &Wanted) -> Facts {
    let mut facts = Facts {
        tombstones: of(&wanted.tombstones, |key| state.tombstones.get(key).copied()),
        vanished: of(&wanted.vanished, |key| state.vanished.get(key).copied()),
        address_tombstones: of(&wanted.addresses, |address| state.address_tombstones.get(address).copied()),
        claimed: wanted.claimed.iter().filter(|it| state.claimed.contains(*it)).copied().collect(),
        ..Facts::default()
    };
    for id in &wanted.ids {
        if let Some(item) = state.ids.get(id).and_then(|cursor| state.log.get(cursor)) {
            facts.ids.insert(*id, (Origin::Stored(item.stamp.cursor), item.stamp.expires_at));
        }
    }
    for id in &wanted.targets {
        if let Some(item) = state.ids.get(id).and_then(|cursor| state.log.get(cursor)) {
            facts.targets.insert(*id, target(item));
        }
    }
    for item in state.log.values() {
        load_item(item, wanted, &mut facts);
    }
    load_groups(state, wanted, &mut facts);
    load_counts(state, wanted, &mut facts);
    facts
}

/// The values of the keys that have one.
fn of<'k, K: Copy + Eq + std::hash::Hash + 'k, V>(
    keys: impl IntoIterator<Item = &'k K>,
    value: impl Fn(&K) -> Option<V>,
) -> HashMap<K, V> {
    keys.into_iter().filter_map(|key| Some((*key, value(key)?))).collect()
}

/// Rows of the index that go with the event.
fn rows(item: &Item) -> usize {
    prefixes(item.event.view(), item.seal().audience()).len()
}

fn target(item: &Item) -> Target {
    Target {
        at: Origin::Stored(item.stamp.cursor),
        event: item.event.clone(),
        author_only: item.stamp.author_only,
        stays: is_commit(item.event.view()),
        touches: item.touches(),
        rows: rows(item),
        expires_at: item.stamp.expires_at,
    }
}

/// Loads the facts that one stored event makes as the holder of an address and as a KeyPackage.
fn load_item(item: &Item, wanted: &Wanted, facts: &mut Facts) {
    let (at, expires_at) = (Origin::Stored(item.stamp.cursor), item.stamp.expires_at);
    let (id, created_at) = (item.event.id(), item.event.created_at());
    if let Some(address) = item.address.filter(|address| wanted.addresses.contains(address)) {
        facts.holders.insert(address, AddressHolder { at, id, created_at, expires_at, rows: rows(item) });
    }
    let Some(entry) = &item.package else { return };
    let reference = entry.reference.as_ref().map(|text| reference_of(entry.owner, text));
    if let Some(reference) = reference.filter(|reference| wanted.references.contains(reference)) {
        let referenced = Referenced { at, content_hash: entry.content_hash, expires_at };
        facts.references.entry(reference).or_default().push(referenced);
    }
    if wanted.owners.contains(&entry.owner) {
        let (content_hash, last_resort, address) = (entry.content_hash, entry.last_resort, item.address);
        let owned = OwnedPackage { at, id, content_hash, last_resort, created_at, address };
        let packages = facts.packages.entry(entry.owner).or_default();
        if packages.len() < OWNED_MAX {
            packages.push((owned, expires_at));
        }
    }
}

/// Loads groups with as many of their members as are wanted.
fn load_groups(state: &State, wanted: &Wanted, facts: &mut Facts) {
    let leaves = |view: &ManagedGroup| wanted.leaving.iter().any(|key| view.members.contains_key(key));
    for (id, view) in &state.groups {
        let is_left = leaves(view);
        if !is_left && !wanted.groups.contains(id) {
            continue;
        }
        let is_whole = is_left
            || wanted.whole.contains(id)
            || (wanted.wrapped.contains(id) && view.record.source == Source::GiftWrap);
        let mut loaded = ManagedGroup { record: view.record.clone(), members: HashMap::new() };
        for (key, role) in &view.members {
            if is_whole || wanted.members.contains(&(id.clone(), *key)) {
                loaded.members.insert(*key, *role);
                load_invited(state, id, key, facts);
            }
        }
        facts.groups.insert(id.clone(), GroupFacts { view: Some(Arc::new(loaded)), unlisted: false });
    }
    for id in wanted.groups.iter().filter(|id| state.unlisted.contains(*id)) {
        facts.groups.entry(id.clone()).or_default().unlisted = true;
    }
}

fn load_invited(state: &State, group: &NostrGroupId, key: &PublicKey, facts: &mut Facts) {
    if let Some(invited) = state.invited.get(&(group.clone(), *key)) {
        facts.invited.entry(*key).or_default().insert(group.clone(), *invited);
    }
}

/// Loads the numbers of memberships and foundings of keys, and the memberships that give way first.
fn load_counts(state: &State, wanted: &Wanted, facts: &mut Facts) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    for key in &wanted.founders {
        let founded = state.founded.iter().filter(|(founder, at)| founder == key && *at > wanted.day_start);
        facts.founded.insert(*key, count(founded.count()));
    }
    for (key, most) in &wanted.joining {
        let memberships = state.groups.values().filter(|view| view.members.contains_key(key)).count();
        facts.memberships.insert(*key, memberships);
        if memberships.saturating_add(*most) > wanted.memberships_max {
            let mut first: Vec<_> = state.invited.iter().filter(|((_, member), _)| member == key).collect();
            first.sort_by_key(|((group, _), invited)| (invited.rank(), group.clone()));
            for ((group, _), _) in first.into_iter().take(*most) {
                load_invited(state, group, key, facts);
            }
        }
    }
    for key in &wanted.inviters {
        let invited = state.invited.values().filter(|invited| invited.by == Some(*key));
        facts.invited_by.insert(*key, count(invited.count()));
    }
    for (member, inviter) in &wanted.invitations {
        let standing = state.invited.iter().filter(|((_, key), it)| key == member && it.by == Some(*inviter));
        facts.invitations.insert((*member, *inviter), count(standing.count()));
    }
}

/// Writes the changes of a part, removals first.
fn write(state: &mut State, changes: &Changes) {
    for (cursor, _) in &changes.removed {
        state.remove(*cursor);
    }
    for (key, until) in &changes.vanished {
        state.take_along(*key, *until);
    }
    state.tombstones.extend(changes.tombstones.iter().copied());
    for (address, until) in &changes.address_tombstones {
        let known = state.address_tombstones.entry(*address).or_default();
        *known = (*known).max(*until);
    }
    state.claimed.extend(changes.claimed.iter().copied());
    for put in &changes.put {
        write_event(state, put);
    }
    for changed in &changes.groups {
        write_group(state, changed);
    }
    for (group, epoch) in &changes.epochs {
        if let Some(view) = state.groups.get_mut(group) {
            Arc::make_mut(view).record.last_epoch = Some(*epoch);
        }
    }
    state.unlisted.extend(changes.unlisted.iter().cloned());
    state.founded.extend(changes.founded.iter().copied());
    if let Some(mark) = &changes.mark {
        state.head += 1;
        let head = state.head;
        state.marks.insert(head, mark.touches.clone());
    }
}

/// Gives an event its place in the log, and stores it unless it is ephemeral or gone again.
fn write_event(state: &mut State, put: &Put) {
    state.head += 1;
    if put.gone || put.flags & EPHEMERAL != 0 {
        return;
    }
    let stamp = Stamp {
        cursor: state.head,
        received_at: put.received_at,
        expires_at: put.expires_at,
        author_only: put.flags & AUTHOR_ONLY != 0,
    };
    let item = Item {
        stamp,
        found_by_queries: put.flags & LOG_ONLY == 0,
        told: put.told().cloned(),
        address: put.address,
        package: put.package.as_ref().map(|package| DirectoryEntry {
            owner: package.owner,
            reference: describe(put.event.view()).reference.map(Into::into),
            content_hash: package.content_hash,
            last_resort: package.last_resort,
            warning: None,
        }),
        event: put.event.clone(),
    };
    state.ids.insert(item.event.id(), state.head);
    state.log.insert(state.head, item);
}

fn write_group(state: &mut State, changed: &ChangedGroup) {
    let id = &changed.group;
    let known = state.groups.get(id).map(|view| ManagedGroup::clone(view));
    let mut view = match (known, changed.record.record()) {
        (Some(view), None) => view,
        (known, Some(record)) => {
            let last_epoch = known.as_ref().map_or(record.last_epoch, |view| view.record.last_epoch);
            let members = known.map(|view| view.members).unwrap_or_default();
            let mut record = record.clone();
            record.last_epoch = record.last_epoch.max(last_epoch);
            ManagedGroup { record, members }
        }
        (None, None) => return,
    };
    for (key, change) in &changed.members {
        let invited = (id.clone(), *key);
        match change {
            MemberChange::Leaves(_) => {
                view.members.remove(key);
                state.invited.remove(&invited);
            }
            MemberChange::Takes(role) => drop(view.members.insert(*key, *role)),
            MemberChange::Joins(role, by) => {
                view.members.insert(*key, *role);
                match by {
                    Some(by) => drop(state.invited.insert(invited, *by)),
                    None => drop(state.invited.remove(&invited)),
                }
            }
            MemberChange::Acts(_) => drop(state.invited.remove(&invited)),
        }
    }
    state.groups.insert(id.clone(), Arc::new(view));
}
