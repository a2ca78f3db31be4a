//! What a batch has to know of what is stored, and what is known.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use nostr_extensions::{
    Admitted, Effect, GroupStatus, ManagedGroup, NostrGroupId, Persistence, audience::recipients,
    mls_gateway::group::leaves_groups,
};
use nostr_protocol::{Event, EventId, Kind, PublicKey, UnixSecs};

use crate::{
    Cursor,
    index::{Front, Key, address, front, hash16},
};

/// An address: key, kind and hash of the `d` value.
pub(crate) type Address = [u8; 50];

/// An address as it is compared and stored.
pub(crate) fn address_bytes(key: &Key) -> Address {
    let mut bytes = [0; 50];
    bytes.copy_from_slice(&key[..50]);
    bytes
}

/// The key of an address.
pub(crate) fn author_of(address: &Address) -> PublicKey {
    let mut key = [0; 32];
    key.copy_from_slice(&address[..32]);
    PublicKey::from_bytes(key)
}

/// A reference of a KeyPackage: its owner and a hash of its text.
pub(crate) type Reference = (PublicKey, [u8; 16]);

/// See [`Reference`].
pub(crate) fn reference_of(owner: PublicKey, text: &str) -> Reference {
    (owner, hash16(text.as_bytes()))
}

/// What names a tombstone: what was deleted, and by whom.
pub(crate) type Buried = (Front, Front);

/// See [`Buried`].
pub(crate) fn buried(target: &EventId, by: &PublicKey) -> Buried {
    (front(target.as_bytes()), front(by.as_bytes()))
}

/// What names a KeyPackage that was claimed: its owner and its bytes.
pub(crate) type Claimed = (Front, Front);

/// See [`Claimed`].
pub(crate) fn claimed(owner: &PublicKey, content_hash: &[u8; 32]) -> Claimed {
    (front(owner.as_bytes()), front(content_hash))
}

/// What has to be loaded before a batch can be decided.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Whether events of these ids are stored.
    pub(crate) ids: BTreeSet<EventId>,
    /// Stored events of these ids, whole.
    pub(crate) targets: BTreeSet<EventId>,
    /// Tombstones.
    pub(crate) tombstones: BTreeSet<Buried>,
    /// Whether these keys vanished.
    pub(crate) vanished: BTreeSet<PublicKey>,
    /// The events at these addresses, and what was deleted there.
    pub(crate) addresses: BTreeSet<Address>,
    /// KeyPackages of these references.
    pub(crate) references: BTreeSet<Reference>,
    /// Whether these KeyPackages were claimed.
    pub(crate) claimed: BTreeSet<Claimed>,
    /// What these keys have in the directory of KeyPackages.
    pub(crate) owners: BTreeSet<PublicKey>,
    /// Stored KeyPackages that some claim took elsewhere.
    pub(crate) taken: BTreeSet<Claimed>,
    /// Groups of which the record is needed, and whether they carried unlisted messages.
    pub(crate) groups: BTreeSet<NostrGroupId>,
    /// Those of them of which all members are needed.
    pub(crate) whole: BTreeSet<NostrGroupId>,
    /// Those of which all members are needed if gift wraps decide them.
    pub(crate) wrapped: BTreeSet<NostrGroupId>,
    /// Whether these keys are members of these groups.
    pub(crate) members: BTreeSet<(NostrGroupId, PublicKey)>,
    /// How many groups these keys founded since [`Wanted::day_start`].
    pub(crate) founders: BTreeSet<PublicKey>,
    /// 24 hours before the first event that may found a group was received.
    pub(crate) day_start: UnixSecs,
    /// How many groups these keys are members of.
    pub(crate) memberships: BTreeSet<PublicKey>,
    /// Keys that leave their groups: all groups of these, whole.
    pub(crate) leaving: BTreeSet<PublicKey>,
}

/// Keys that may take an event back by name, its author first; none for what nobody takes back.
pub(crate) fn deleters(event: &Event) -> Vec<PublicKey> {
    match event.kind() {
        Kind::GROUP_MESSAGE | Kind::ROSTER | Kind::DELETION | Kind::VANISH => Vec::new(),
        _ => owners(event),
    }
}

/// The author, and the recipients of what a recipient may take back.
pub(crate) fn owners(event: &Event) -> Vec<PublicKey> {
    let mut keys = vec![event.pubkey()];
    if matches!(event.kind(), Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP) {
        keys.extend(recipients(event.view()));
    }
    keys
}

const DAY_SECS: u64 = 86_400;

impl Wanted {
    /// What a batch wants.
    pub(crate) fn by(batch: &[Admitted]) -> Self {
        let mut wanted = Self { day_start: UnixSecs::MAX, ..Self::default() };
        for admitted in batch.iter().filter(|admitted| admitted.persistence() != Persistence::Ephemeral) {
            wanted.add(admitted);
        }
        wanted
    }

    fn add(&mut self, admitted: &Admitted) {
        let event = admitted.event();
        self.add_event(event, admitted.effect());
        match admitted.effect() {
            Effect::None | Effect::Replace { .. } | Effect::KeyPackage { .. } | Effect::Delete(_) => {}
            Effect::GroupMessage { group, keys, .. } => {
                self.groups.insert(group.clone());
                self.members.extend(keys.iter().map(|key| (group.clone(), *key)));
            }
            Effect::Roster(change) => {
                self.groups.insert(change.group.clone());
                self.whole.insert(change.group.clone());
            }
            Effect::Wrap(change) => {
                self.groups.insert(change.group.clone());
                self.wrapped.insert(change.group.clone());
                self.founders.extend(change.founder);
                self.memberships.insert(change.recipient);
                self.day_start = self.day_start.min(admitted.received_at().saturating_sub(DAY_SECS));
            }
            Effect::Vanish => {
                if leaves_groups(event.created_at(), admitted.received_at()) {
                    self.leaving.insert(event.pubkey());
                }
            }
        }
    }

    /// What an event wants whose effect on groups does not matter.
    pub(super) fn add_event(&mut self, event: &Event, effect: &Effect) {
        let (id, author) = (event.id(), event.pubkey());
        self.ids.insert(id);
        self.vanished.extend(owners(event));
        self.tombstones.extend(deleters(event).iter().map(|key| buried(&id, key)));
        match effect {
            Effect::Replace { identifier } => {
                self.addresses.insert(address_bytes(&address(&author, event.kind(), identifier)));
            }
            Effect::KeyPackage { entry, identifier } => {
                self.claimed.insert(claimed(&entry.owner, &entry.content_hash));
                self.owners.insert(entry.owner);
                self.references.extend(entry.reference.as_ref().map(|text| reference_of(entry.owner, text)));
                let at = identifier.as_ref().map(|it| address_bytes(&address(&author, event.kind(), it)));
                self.addresses.extend(at);
            }
            Effect::Delete(deletion) => {
                self.targets.extend(&deletion.ids);
                self.tombstones.extend(deletion.ids.iter().map(|id| buried(id, &deletion.by)));
                let at = deletion.addresses.iter().map(|(kind, it)| address_bytes(&address(&deletion.by, *kind, it)));
                self.addresses.extend(at);
            }
            Effect::None | Effect::GroupMessage { .. } | Effect::Roster(_) | Effect::Wrap(_) | Effect::Vanish => {}
        }
    }
}

/// Where an event lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In the store.
    Stored(Cursor),
    /// Among the events that this batch puts.
    Put(usize),
}

/// The event that holds an address.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) at: Place,
    pub(crate) id: EventId,
    pub(crate) created_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
}

/// A KeyPackage of a reference.
#[derive(Clone, Debug)]
pub(crate) struct Referenced {
    pub(crate) at: Place,
    pub(crate) content_hash: [u8; 32],
    pub(crate) expires_at: UnixSecs,
}

/// An event that may be deleted.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) at: Place,
    pub(crate) event: Event,
    pub(crate) author_only: bool,
}

/// What is known of a group: the members are all of them, or those that were asked about.
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

/// What is known: at first what was loaded for a batch, and then what its events make of that.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Those of [`Wanted::ids`] that are stored, expired ones too.
    pub(crate) ids: HashSet<EventId>,
    /// Those of [`Wanted::targets`] that are stored.
    pub(crate) targets: HashMap<EventId, Target>,
    /// Tombstones, and whether the target was public.
    pub(crate) tombstones: HashMap<Buried, bool>,
    /// When keys vanished.
    pub(crate) vanished: HashMap<PublicKey, UnixSecs>,
    /// Who holds an address, expired or not.
    pub(crate) holders: HashMap<Address, Holder>,
    /// Up to when addresses were deleted.
    pub(crate) address_tombstones: HashMap<Address, UnixSecs>,
    /// KeyPackages by reference.
    pub(crate) references: HashMap<Reference, Vec<Referenced>>,
    /// KeyPackages that were claimed.
    pub(crate) claimed: HashSet<Claimed>,
    /// Those of [`Wanted::taken`] that are stored.
    pub(crate) taken: HashMap<Claimed, Vec<(Cursor, EventId)>>,
    /// Groups that are managed or unlisted.
    pub(crate) groups: HashMap<NostrGroupId, GroupFacts>,
    /// Groups founded in the last 24 hours.
    pub(crate) founded: HashMap<PublicKey, u32>,
    /// How many groups a key is in.
    pub(crate) memberships: HashMap<PublicKey, usize>,
}
