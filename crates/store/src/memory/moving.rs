//! Export and import.

use std::sync::Arc;

use async_trait::async_trait;
use nostr_extensions::{
    Audience, Effect, EventMeta, Restored, Sealed, Stamp,
    gate::Touches,
    mls_gateway::{
        deletion::{Deletion, may_delete},
        group::Refusal,
    },
};
use nostr_protocol::{DAY_SECS, PublicKey, UnixSecs};

use super::{
    Memory,
    state::{Item, State, StoredWith},
};
use crate::{
    Cursor, Saved, StoreError,
    decide::keys::{address, tombstone_key},
    index::front,
    moving::{
        ExportBounds, ExportPage, ExportPosition, Exported, Imported, Moving, Part, Record, Removal, after_part,
        foundings_missing, merge_group,
    },
};

type Keyed = (Vec<u8>, Record<Exported>);

impl State {
    /// All records of a part, in an order that stays.
    fn part(&self, from: &ExportPosition, now: UnixSecs) -> Vec<Keyed> {
        let mut all: Vec<Keyed> = match from.part() {
            Part::Vanished => {
                let record = |(key, at): (&PublicKey, &UnixSecs)| Record::Vanished { key: *key, at: *at };
                self.vanished.iter().map(|it| (it.0.as_bytes().to_vec(), record(it))).collect()
            }
            Part::Tombstones => {
                let each = self.tombstones.iter().map(|((target, deleter), public)| {
                    let record = Record::Tombstone { target: *target, deleter: *deleter, public: *public };
                    ([*target, *deleter].concat(), record)
                });
                each.collect()
            }
            Part::AddressTombstones => {
                let each = self.address_tombstones.iter().map(|(address, until)| {
                    (address.to_vec(), Record::AddressTombstone { address: *address, until: *until })
                });
                each.collect()
            }
            Part::Claimed => {
                let each = self.claimed.iter().map(|(owner, content)| {
                    ([*owner, *content].concat(), Record::Claimed { owner: *owner, content: *content })
                });
                each.collect()
            }
            Part::Founded => {
                let mut founders: Vec<PublicKey> = self.founded.iter().map(|(key, _)| *key).collect();
                founders.sort_unstable();
                founders.dedup();
                let times = |key: PublicKey| {
                    let of = self.founded.iter().filter(|(founder, at)| *founder == key && at + DAY_SECS > now);
                    let mut times: Vec<UnixSecs> = of.map(|(_, at)| *at).collect();
                    times.sort_unstable();
                    times
                };
                let each = founders.into_iter().map(|key| (key, times(key))).filter(|(_, at)| !at.is_empty());
                each.map(|(key, at)| (key.as_bytes().to_vec(), Record::Founded { key, at })).collect()
            }
            Part::Unlisted => {
                let each = self.unlisted.iter();
                each.map(|id| (id.as_str().as_bytes().to_vec(), Record::Unlisted(id.clone()))).collect()
            }
            Part::Groups => {
                let each = self.groups.iter().map(|(id, view)| {
                    let invited = self.invited.iter().filter(|((group, _), _)| group == id);
                    let invited = invited.map(|((_, key), invited)| (*key, *invited)).collect();
                    let record = Record::Group { id: id.clone(), view: (**view).clone(), invited };
                    (id.as_str().as_bytes().to_vec(), record)
                });
                each.collect()
            }
            Part::Events => {
                let live = self.log.range(..=from.up_to()).filter(|(_, item)| item.stamp.expires_at > now);
                live.map(|(cursor, item)| (cursor.to_be_bytes().to_vec(), Record::Event(item.exported()))).collect()
            }
        };
        all.retain(|(key, _)| &key[..] > from.behind());
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    fn import(&mut self, record: Record<Restored>, now: UnixSecs) -> Imported {
        match record {
            Record::Vanished { key, at } => {
                let known = self.vanished.get(&key).is_some_and(|here| *here >= at);
                if !known {
                    self.take_along(key, at);
                }
                Imported::new_if(!known)
            }
            Record::Tombstone { target, deleter, public } => {
                let known = self.tombstones.contains_key(&(target, deleter));
                self.tombstones.entry((target, deleter)).or_insert(public);
                Imported::new_if(!known)
            }
            Record::AddressTombstone { address, until } => {
                let known = self.address_tombstones.get(&address).is_some_and(|here| *here >= until);
                if !known {
                    self.delete_address(address, until);
                }
                Imported::new_if(!known)
            }
            Record::Claimed { owner, content } => {
                let known = !self.claimed.insert((owner, content));
                let taken = |item: &Item| {
                    item.package
                        .as_ref()
                        .is_some_and(|it| front(it.owner.as_bytes()) == owner && front(&it.content_hash) == content)
                };
                let gone: Vec<Cursor> =
                    self.log.iter().filter(|(_, item)| taken(item)).map(|(cursor, _)| *cursor).collect();
                gone.into_iter().for_each(|cursor| self.remove(cursor));
                Imported::new_if(!known)
            }
            Record::Founded { key, at } => {
                let recent = |(founder, at): &&(PublicKey, UnixSecs)| *founder == key && at + DAY_SECS > now;
                let missing = foundings_missing(self.founded.iter().filter(recent).count(), &at, now);
                let known = missing.is_empty();
                self.founded.extend(missing.into_iter().map(|at| (key, at)));
                Imported::new_if(!known)
            }
            Record::Unlisted(group) => Imported::new_if(self.unlisted.insert(group)),
            Record::Group { id, view, invited } => {
                let here = self.groups.get(&id).cloned();
                let (imported, view) = merge_group(here.as_deref(), &view);
                if matches!(imported, Imported::New | Imported::Replaced) {
                    self.invited.retain(|(group, key), _| *group != id || view.members.contains_key(key));
                    let is_new = |key: &PublicKey| here.as_ref().is_none_or(|here| !here.members.contains_key(key));
                    for (key, invited) in invited.into_iter().filter(|(key, _)| is_new(key)) {
                        self.invited.insert((id.clone(), key), invited);
                    }
                    self.groups.insert(id, Arc::new(view));
                }
                imported
            }
            Record::Event(restored) => self.restore(&restored, now),
            Record::Removal(removal) => Imported::new_if(self.take_out(&removal)),
        }
    }

    /// Removes an event by the operator's word. Returns whether it was stored.
    fn take_out(&mut self, removal: &Removal) -> bool {
        let Some(cursor) = self.ids.get(&removal.id).copied() else { return false };
        let Some(item) = self.log.get(&cursor) else { return false };
        if removal.is_marked {
            let public = *item.seal().audience() == Audience::Everyone;
            self.tombstones.insert(tombstone_key(&removal.id, &removal.author), public);
        }
        self.remove(cursor);
        true
    }

    fn restore(&mut self, restored: &Restored, now: UnixSecs) -> Imported {
        let (event, kept) = (restored.event(), restored.meta());
        if kept.expires_at <= now {
            return Imported::Expired;
        }
        if let Some(saved) = self.is_known(event, now) {
            return Imported::from(&saved);
        }
        let applied = match restored.effect() {
            Effect::Replace { identifier } => {
                self.replace(event, identifier, now).map(|it| StoredWith { address: Some(it), ..StoredWith::default() })
            }
            Effect::KeyPackage { entry, identifier, kept_max } => {
                self.key_package(event, entry, identifier.as_deref(), *kept_max, now)
            }
            Effect::Delete(deletion) if restored.is_foreign() => self.delete(event, deletion, now),
            Effect::Delete(deletion) => Ok(self.take_back(event.created_at(), deletion, now)),
            Effect::Vanish => {
                self.take_along(event.pubkey(), event.created_at());
                Ok(StoredWith::default())
            }
            Effect::GroupMessage { group, .. } if self.groups.contains_key(group) => Ok(StoredWith::default()),
            Effect::GroupMessage { unlisted: false, .. } => Err(Saved::Refused(Refusal::NoGroup)),
            Effect::GroupMessage { group, .. } => {
                self.unlisted.insert(group.clone());
                Ok(StoredWith::default())
            }
            Effect::None | Effect::Roster(_) | Effect::Wrap(_) => Ok(StoredWith::default()),
        };
        let placement = match applied {
            Ok(placement) => placement,
            Err(saved) => return Imported::from(&saved),
        };
        self.make_room(&event.id());
        let stamp = Stamp {
            cursor: 0,
            received_at: kept.received_at,
            expires_at: kept.expires_at,
            author_only: kept.author_only || placement.author_only,
        };
        let mut touches = placement.touches;
        touches.add(kept.touches.clone().unwrap_or_else(|| Touches::by_kind(event.view())));
        let _: Sealed = self.put(event.clone(), stamp, !kept.log_only, StoredWith { touches, ..placement });
        Imported::New
    }

    /// Takes back the targets of a deletion that was published elsewhere. The tombstone of a target that is not here is
    /// a record of its own.
    fn take_back(&mut self, at: UnixSecs, deletion: &Deletion, now: UnixSecs) -> StoredWith {
        let by = deletion.by;
        let mut placement = StoredWith::default();
        for id in &deletion.ids {
            let stored = self.ids.get(id).and_then(|cursor| Some((*cursor, self.log.get(cursor)?)));
            let is_own = |item: &Item| item.stamp.expires_at > now && may_delete(item.event.view(), &by);
            if let Some((cursor, item)) = stored.filter(|(_, item)| is_own(item)) {
                placement.touches.add(item.touches());
                let public = *item.seal().audience() == Audience::Everyone;
                self.tombstones.insert(tombstone_key(id, &by), public);
                self.remove(cursor);
            }
        }
        for (kind, identifier) in &deletion.addresses {
            self.delete_address(address(&by, *kind, identifier), at);
        }
        placement
    }
}

impl Item {
    fn exported(&self) -> Exported {
        let kept = EventMeta {
            received_at: self.stamp.received_at,
            expires_at: self.stamp.expires_at,
            author_only: self.stamp.author_only,
            log_only: !self.found_by_queries,
            touches: self.told.clone(),
        };
        Exported { event: self.event.clone(), kept }
    }
}

#[async_trait]
impl Moving for Memory {
    async fn export(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, StoreError> {
        let mut records = Vec::new();
        let (mut bytes, mut last) = (0, None);
        let all = self.state.lock().part(from, now);
        let count = all.len();
        for (key, record) in all {
            bytes += record.byte_len();
            records.push(record);
            if records.len() >= bounds.records_max || bytes >= bounds.bytes_max {
                last = (records.len() < count).then_some(key);
                break;
            }
        }
        Ok(ExportPage { next: after_part(from, last), records })
    }

    async fn import(&self, records: Vec<Record<Restored>>, now: UnixSecs) -> Result<Vec<Imported>, StoreError> {
        let mut state = self.state.lock();
        let imported = records.into_iter().map(|record| state.import(record, now)).collect();
        Ok(imported)
    }
}
