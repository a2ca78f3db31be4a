//! Questions that deciding asks of a store, and changes that it makes there.
//!
//! A shared store answers from facts that it loaded before, and collects the changes. The embedded store reads and
//! writes in its open transaction, and may fail. Each answer takes the changes so far into account.

use std::{borrow::Cow, cmp::Reverse};

use nostr_extensions::{
    Admitted, Audience, EventMeta, GroupRecord, GroupStatus, NostrGroupId, Source,
    audience::audience,
    gate::Touches,
    mls_gateway::{
        group::{Changed, CommitLog, Invited},
        key_package::DirectoryEntry,
    },
};
use nostr_protocol::{Event, EventId, EventRef, PublicKey, UnixSecs};

use super::{
    keys::{Address, Claimed, TombstoneKey},
    stock::Rank,
};

/// An event of the store, read in place.
#[derive(Clone)]
pub(crate) struct StoredEvent<'a, A> {
    pub(crate) at: A,
    /// The event, which may lack its content, and tags that no decision needs.
    pub(crate) event: EventRef<'a>,
    pub(crate) author_only: bool,
    /// The groups that it touched.
    pub(crate) touches: Touches,
    /// Rows of the index that go with it.
    pub(crate) rows: usize,
    pub(crate) expires_at: UnixSecs,
}

impl<A> StoredEvent<'_, A> {
    /// Whether the event, as it is stored, is for everyone.
    pub(super) fn is_public(&self) -> bool {
        !self.author_only && audience(self.event) == Audience::Everyone
    }
}

/// The event that holds an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressHolder<A> {
    pub(crate) at: A,
    pub(crate) id: EventId,
    pub(crate) created_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
    /// Rows of the index that go with it; 0 in a store that does not know them.
    pub(crate) rows: usize,
}

/// A KeyPackage event of an owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnedPackage<A> {
    pub(crate) at: A,
    pub(crate) id: EventId,
    pub(crate) content_hash: [u8; 32],
    pub(crate) last_resort: bool,
    pub(crate) created_at: UnixSecs,
    /// The address that it holds, if it is a 30443.
    pub(crate) address: Option<Address>,
}

impl<A> OwnedPackage<A> {
    /// The event's place among its owner's.
    pub(super) const fn rank(&self) -> Rank {
        (self.created_at, Reverse(self.id))
    }
}

/// The membership of one key in one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership {
    /// Set while the key has not acted in the group.
    pub(crate) invited: Option<Invited>,
}

/// How an event is stored.
#[derive(Clone, Debug)]
pub(crate) struct Placement<'e> {
    pub(crate) meta: EventMeta,
    /// The address that it holds from now on.
    pub(crate) address: Option<Address>,
    /// Its entry in the directory of KeyPackages.
    pub(crate) package: Option<Cow<'e, DirectoryEntry>>,
}

impl Placement<'_> {
    pub(super) const fn new(meta: EventMeta) -> Self {
        Self { meta, address: None, package: None }
    }
}

/// Most KeyPackage events of one owner that a decision goes through, which are all that the configuration lets an owner
/// keep ([`super::stock::KEY_PACKAGES_KEPT_MAX`]).
pub(crate) const OWNED_MAX: usize = 1_000;

/// The questions. A vanished key hides the events that it left: they are no answer, but for [`Lookup::stored`].
pub(crate) trait Lookup {
    /// Why a look-up or a change fails.
    type Error;
    /// Tells an event from all others.
    type At: Copy;

    /// The stored event of this id with the end of its time, expired or not; a hidden one may count.
    fn stored(&self, id: &EventId) -> Result<Option<(Self::At, UnixSecs)>, Self::Error>;

    /// The stored event of this id, expired or not, where a deletion names it.
    fn target(&self, id: &EventId) -> Result<Option<StoredEvent<'_, Self::At>>, Self::Error>;

    /// The time up to which the key vanished.
    fn vanished(&self, key: &PublicKey) -> Result<Option<UnixSecs>, Self::Error>;

    /// Whether the deleted event was public, where there is a tombstone.
    fn tombstone(&self, key: &TombstoneKey) -> Result<Option<bool>, Self::Error>;

    /// The event that holds the address, expired or not.
    fn holder(&self, address: &Address) -> Result<Option<AddressHolder<Self::At>>, Self::Error>;

    /// The time up to which the address was deleted.
    fn address_tombstone(&self, address: &Address) -> Result<Option<UnixSecs>, Self::Error>;

    /// Whether the KeyPackage was claimed, in any of its events.
    fn is_claimed(&self, claimed: &Claimed) -> Result<bool, Self::Error>;

    /// Whether the reference of `entry` names other bytes of its owner, in an event that has not expired at `now`.
    fn is_reference_taken(&self, entry: &DirectoryEntry, now: UnixSecs) -> Result<bool, Self::Error>;

    /// The owner's KeyPackage events that have not expired at `now`, from the oldest to the newest, at most
    /// [`OWNED_MAX`].
    fn packages(&self, owner: &PublicKey, now: UnixSecs) -> Result<Vec<OwnedPackage<Self::At>>, Self::Error>;

    /// Whether the group is managed. The store may remember the answer.
    fn is_managed(&mut self, group: &NostrGroupId) -> Result<bool, Self::Error>;

    /// The key's membership of the group, if it is a member.
    fn membership(&self, group: &NostrGroupId, key: &PublicKey) -> Result<Option<Membership>, Self::Error>;

    /// The last epoch of a managed group. The store may remember the answer.
    fn last_epoch(&mut self, group: &NostrGroupId) -> Result<Option<u64>, Self::Error>;

    /// The record of a managed group. Its last epoch may be older than [`Self::last_epoch`], and its log of commits may
    /// be missing where no event of the batch asks for that ([`OrderedMessage::asks_for_log`]).
    ///
    /// [`OrderedMessage::asks_for_log`]: nostr_extensions::mls_gateway::group::OrderedMessage::asks_for_log
    fn record(&self, group: &NostrGroupId) -> Result<Option<GroupRecord>, Self::Error>;

    /// The source that decides a managed group.
    fn source(&self, group: &NostrGroupId) -> Result<Option<Source>, Self::Error>;

    /// The group with all its members and its last epoch.
    fn group(&self, group: &NostrGroupId) -> Result<GroupStatus, Self::Error>;

    /// The managed groups of which the key is a member.
    fn groups_of(&self, key: &PublicKey) -> Result<Vec<NostrGroupId>, Self::Error>;

    /// How many groups the key is a member of. A number below the bound that is asked about may be too high.
    fn memberships(&self, key: &PublicKey) -> Result<usize, Self::Error>;

    /// The membership of the least [`Invited::rank`] among those in which the key has not acted; of one rank the one
    /// with the lowest id.
    fn first_to_give_way(&self, key: &PublicKey) -> Result<Option<(NostrGroupId, Invited)>, Self::Error>;

    /// How many memberships in which nobody has acted count against this key.
    fn invited_by(&self, inviter: &PublicKey) -> Result<u32, Self::Error>;

    /// How many of those are memberships of this member.
    fn invitations(&self, member: &PublicKey, inviter: &PublicKey) -> Result<u32, Self::Error>;

    /// How many groups the key founded by gift wraps in the 24 hours before `now`.
    fn founded(&self, key: &PublicKey, now: UnixSecs) -> Result<u32, Self::Error>;
}

/// The changes.
pub(crate) trait Apply: Lookup {
    /// An event that was put.
    type Put;

    /// Puts an event after all others.
    fn put(&mut self, event: &Event, placement: Placement<'_>) -> Result<Self::Put, Self::Error>;

    /// Gives an ephemeral event its cursor, for delivery.
    fn put_ephemeral(&mut self, admitted: &Admitted) -> Result<Self::Put, Self::Error>;

    /// Removes an event with every entry that leads to it.
    fn remove(&mut self, at: Self::At, id: &EventId) -> Result<(), Self::Error>;

    /// Writes a tombstone, and whether the deleted event was public.
    fn bury(&mut self, key: &TombstoneKey, public: bool) -> Result<(), Self::Error>;

    /// Marks the address as deleted up to `until`.
    fn bury_address(&mut self, address: &Address, until: UnixSecs) -> Result<(), Self::Error>;

    /// Hides the key's events up to `until`, and has a sweep remove them.
    fn vanish(&mut self, key: &PublicKey, until: UnixSecs) -> Result<(), Self::Error>;

    /// Marks a KeyPackage as claimed, and removes its events.
    fn claim(&mut self, claimed: &Claimed) -> Result<(), Self::Error>;

    /// Marks a membership as acted in.
    fn act(&mut self, group: &NostrGroupId, key: &PublicKey, was: &Invited) -> Result<(), Self::Error>;

    /// Takes a member out of a group without any other change.
    fn give_way(&mut self, group: &NostrGroupId, key: &PublicKey, was: &Invited) -> Result<(), Self::Error>;

    /// Writes a change of a group, and counts its founding.
    fn change_group(&mut self, group: &NostrGroupId, changed: Changed, now: UnixSecs) -> Result<(), Self::Error>;

    /// Sets the last epoch of a managed group.
    fn raise_epoch(&mut self, group: &NostrGroupId, epoch: u64) -> Result<(), Self::Error>;

    /// Sets the log of commits of a managed group.
    fn set_commits(&mut self, group: &NostrGroupId, commits: Option<CommitLog>) -> Result<(), Self::Error>;

    /// Marks that the group carried unlisted messages. Returns whether it was not marked before.
    fn mark_unlisted(&mut self, group: &NostrGroupId) -> Result<bool, Self::Error>;

    /// Counts a group that the key founded at `at`.
    fn count_founding(&mut self, key: &PublicKey, at: UnixSecs) -> Result<(), Self::Error>;
}
