//! The facts that deciding a batch takes: those that are wanted of the store, and those that it loaded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use nostr_extensions::{
    Admitted, Effect, GroupStatus, ManagedGroup, NostrGroupId, Persistence,
    gate::Touches,
    mls_gateway::{
        deletion::{deleters, owners},
        group::{Invited, leaves_groups},
    },
};
use nostr_protocol::{DAY_SECS, Event, EventId, PublicKey, UnixSecs};

use super::keys::{address, reference_of};
pub(crate) use super::{
    keys::{Address, Claimed, Reference, TombstoneKey, claimed, tombstone_key},
    lookup::{AddressHolder, OwnedPackage},
};
use crate::Cursor;

/// The questions to which a store loads the answers before a batch can be decided.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Whether events of these ids are stored, and until when.
    pub(crate) ids: BTreeSet<EventId>,
    /// Stored events of these ids: author, kind, time, and the tags that say to whom each belongs. No decision needs
    /// more of them.
    pub(crate) targets: BTreeSet<EventId>,
    /// The same ids, each with the keys whose deletions name it.
    pub(crate) named: BTreeSet<(EventId, PublicKey)>,
    /// Tombstones.
    pub(crate) tombstones: BTreeSet<TombstoneKey>,
    /// Whether these keys vanished.
    pub(crate) vanished: BTreeSet<PublicKey>,
    /// The events at these addresses, and the times up to which the addresses were deleted.
    pub(crate) addresses: BTreeSet<Address>,
    /// KeyPackages of these references.
    pub(crate) references: BTreeSet<Reference>,
    /// Whether these KeyPackages were claimed.
    pub(crate) claimed: BTreeSet<Claimed>,
    /// The directory of these keys' KeyPackages.
    pub(crate) owners: BTreeSet<PublicKey>,
    /// The stored events of these KeyPackages, which were claimed elsewhere.
    pub(crate) taken: BTreeSet<Claimed>,
    /// The records of these groups, and whether the groups carried unlisted messages.
    pub(crate) groups: BTreeSet<NostrGroupId>,
    /// All members of these groups, which the batch changes; each is one of [`Wanted::groups`]. An effect that only
    /// relies on a group asks by [`Wanted::members`], because Firestore guards no group that stands here.
    pub(crate) whole: BTreeSet<NostrGroupId>,
    /// All members of these groups, where gift wraps decide the group; each is one of [`Wanted::groups`].
    pub(crate) wrapped: BTreeSet<NostrGroupId>,
    /// Whether these keys are members of these groups.
    pub(crate) members: BTreeSet<(NostrGroupId, PublicKey)>,
    /// The logs of commits of these groups; each is one of [`Wanted::groups`].
    pub(crate) ordered: BTreeSet<NostrGroupId>,
    /// How many groups these keys founded since [`Wanted::day_start`].
    pub(crate) founders: BTreeSet<PublicKey>,
    /// 24 hours before the first event that may found a group was received.
    pub(crate) day_start: UnixSecs,
    /// Keys that may become members of groups, with the number of times that the batch names each. How many groups
    /// they are members of, and if that comes near [`Wanted::memberships_max`], as many of the memberships that
    /// give way first.
    pub(crate) joining: BTreeMap<PublicKey, usize>,
    /// The least bound on memberships in the batch.
    pub(crate) memberships_max: usize,
    /// How many memberships count against these keys.
    pub(crate) inviters: BTreeSet<PublicKey>,
    /// Pairs of a key that may become a member, and of one that may make it a member: how many memberships of the first
    /// count against the second.
    pub(crate) invitations: BTreeSet<(PublicKey, PublicKey)>,
    /// All groups of these keys, with all members: the keys leave them.
    pub(crate) leaving: BTreeSet<PublicKey>,
}

impl Wanted {
    /// The facts that deciding a batch takes.
    pub(crate) fn by(batch: &[Admitted]) -> Self {
        let mut wanted = Self { day_start: UnixSecs::MAX, memberships_max: usize::MAX, ..Self::default() };
        let mut named: HashMap<PublicKey, usize> = HashMap::new();
        for admitted in batch.iter().filter(|admitted| admitted.persistence() != Persistence::Ephemeral) {
            wanted.add(admitted);
            for key in members_named(admitted.effect()) {
                *named.entry(key).or_default() += 1;
            }
        }
        for (key, times) in &mut wanted.joining {
            *times = named.get(key).copied().unwrap_or_default();
        }
        wanted
    }

    fn add(&mut self, admitted: &Admitted) {
        let event = admitted.event();
        self.add_event(event, admitted.effect());
        match admitted.effect() {
            Effect::None | Effect::Replace { .. } | Effect::KeyPackage { .. } | Effect::Delete(_) => {}
            Effect::GroupMessage { group, keys, order, .. } => {
                self.groups.insert(group.clone());
                if order.is_some_and(|order| order.asks_for_log()) {
                    self.ordered.insert(group.clone());
                }
                self.members.extend(keys.iter().map(|key| (group.clone(), *key)));
            }
            Effect::Roster(change) => {
                self.groups.insert(change.group.clone());
                self.whole.insert(change.group.clone());
                self.ordered.insert(change.group.clone());
                self.memberships_max = self.memberships_max.min(change.bounds.memberships_max);
                if change.may_add() {
                    self.joining.extend(change.keys.iter().chain([&change.signer]).map(|key| (*key, 0)));
                    self.inviters.insert(change.signer);
                    self.invitations.extend(change.keys.iter().map(|key| (*key, change.signer)));
                }
            }
            Effect::Wrap(change) => {
                self.groups.insert(change.group.clone());
                self.wrapped.insert(change.group.clone());
                self.members.extend(change.publishers.iter().map(|key| (change.group.clone(), *key)));
                self.founders.extend(change.founder);
                self.memberships_max = self.memberships_max.min(change.bounds.memberships_max);
                self.joining.extend([change.recipient].into_iter().chain(change.founder).map(|key| (key, 0)));
                let inviters = || change.publishers.iter().copied().chain(change.founder);
                self.inviters.extend(inviters());
                self.invitations.extend(inviters().map(|inviter| (change.recipient, inviter)));
                self.day_start = self.day_start.min(admitted.received_at().saturating_sub(DAY_SECS));
            }
            Effect::Vanish => {
                if leaves_groups(event.created_at(), admitted.received_at()) {
                    self.leaving.insert(event.pubkey());
                }
            }
        }
    }

    /// Adds the facts that an event takes, but for its effect on groups.
    pub(super) fn add_event(&mut self, event: &Event, effect: &Effect) {
        let (id, author) = (event.id(), event.pubkey());
        self.ids.insert(id);
        self.vanished.extend(owners(event.view()));
        self.tombstones.extend(deleters(event.view()).map(|key| tombstone_key(&id, &key)));
        match effect {
            Effect::Replace { identifier } => {
                self.addresses.insert(address(&author, event.kind(), identifier));
            }
            Effect::KeyPackage { entry, identifier, .. } => {
                self.claimed.insert(claimed(&entry.owner, &entry.content_hash));
                self.owners.insert(entry.owner);
                self.references.extend(entry.reference.as_ref().map(|text| reference_of(entry.owner, text)));
                let at = identifier.as_ref().map(|it| address(&author, event.kind(), it));
                self.addresses.extend(at);
            }
            Effect::Delete(deletion) => {
                self.targets.extend(&deletion.ids);
                self.named.extend(deletion.ids.iter().map(|id| (*id, deletion.by)));
                self.tombstones.extend(deletion.ids.iter().map(|id| tombstone_key(id, &deletion.by)));
                let at = deletion.addresses.iter().map(|(kind, it)| address(&deletion.by, *kind, it));
                self.addresses.extend(at);
            }
            Effect::None | Effect::GroupMessage { .. } | Effect::Roster(_) | Effect::Wrap(_) | Effect::Vanish => {}
        }
    }
}

/// The keys that an event names as members of a group, or as keys that join or leave it.
fn members_named(effect: &Effect) -> Vec<PublicKey> {
    match effect {
        Effect::GroupMessage { keys, .. } => keys.clone(),
        Effect::Roster(change) => change.keys.iter().copied().chain([change.signer]).collect(),
        Effect::Wrap(change) => {
            change.publishers.iter().copied().chain([change.recipient]).chain(change.founder).collect()
        }
        _ => Vec::new(),
    }
}

/// Tells the events of a decision apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// It was stored before.
    Stored(Cursor),
    /// This batch puts it, as the event of this number.
    Batch(usize),
}

/// A KeyPackage of a reference.
#[derive(Clone, Debug)]
pub(crate) struct Referenced {
    pub(crate) at: Origin,
    pub(crate) content_hash: [u8; 32],
    pub(crate) expires_at: UnixSecs,
}

/// A stored event that a deletion names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) at: Origin,
    /// The event, which may lack its content, and tags that no decision needs.
    pub(crate) event: Event,
    pub(crate) author_only: bool,
    /// Whether it stays when the key that signed it vanishes, which its content says.
    pub(crate) stays: bool,
    /// The groups that it touched.
    pub(crate) touches: Touches,
    /// Rows of the index that go with it.
    pub(crate) rows: usize,
    pub(crate) expires_at: UnixSecs,
}

/// A group as far as it was loaded: with all its members, or with those that were asked about.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupFacts {
    pub(crate) view: Option<Arc<ManagedGroup>>,
    pub(crate) unlisted: bool,
}

impl GroupFacts {
    pub(crate) fn status(&self) -> GroupStatus {
        match &self.view {
            Some(view) => GroupStatus::Managed(Arc::clone(view)),
            None if self.unlisted => GroupStatus::Unlisted,
            None => GroupStatus::Unknown,
        }
    }
}

/// The facts: at first as the store loaded them for a batch, then as the batch's events change them.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The events of [`Wanted::ids`] that are stored, expired ones too, with the ends of their times.
    pub(crate) ids: HashMap<EventId, (Origin, UnixSecs)>,
    /// The events of [`Wanted::targets`] that are stored.
    pub(crate) targets: HashMap<EventId, Target>,
    /// Tombstones, and whether the target was public.
    pub(crate) tombstones: HashMap<TombstoneKey, bool>,
    /// Vanished keys, and the times up to which they vanished.
    pub(crate) vanished: HashMap<PublicKey, UnixSecs>,
    /// The event at an address, expired or not.
    pub(crate) holders: HashMap<Address, AddressHolder<Origin>>,
    /// The times up to which addresses were deleted.
    pub(crate) address_tombstones: HashMap<Address, UnixSecs>,
    /// KeyPackages by reference.
    pub(crate) references: HashMap<Reference, Vec<Referenced>>,
    /// The KeyPackage events of [`Wanted::owners`], from the oldest to the newest, with the ends of their times.
    pub(crate) packages: HashMap<PublicKey, Vec<(OwnedPackage<Origin>, UnixSecs)>>,
    /// The KeyPackages of [`Wanted::claimed`] that were claimed.
    pub(crate) claimed: HashSet<Claimed>,
    /// The stored events of [`Wanted::taken`].
    pub(crate) taken: HashMap<Claimed, Vec<(Cursor, EventId)>>,
    /// Groups that are managed or unlisted.
    pub(crate) groups: HashMap<NostrGroupId, GroupFacts>,
    /// Groups founded in the last 24 hours.
    pub(crate) founded: HashMap<PublicKey, u32>,
    /// How many groups a key is a member of.
    pub(crate) memberships: HashMap<PublicKey, usize>,
    /// Memberships in which the key has not acted: those of members that were loaded, and those that give way first.
    pub(crate) invited: HashMap<PublicKey, BTreeMap<NostrGroupId, Invited>>,
    /// How many memberships count against a key.
    pub(crate) invited_by: HashMap<PublicKey, u32>,
    /// How many memberships of the first key count against the second.
    pub(crate) invitations: HashMap<(PublicKey, PublicKey), u32>,
}
