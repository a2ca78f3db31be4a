//! Charges: the buckets that an event was paid from, so that other instances can charge theirs.

use std::hash::{Hash, Hasher as _};

use nostr_extensions::RouteHasher;
use siphasher::sip::SipHasher13;

/// The kind of a bucket, which keeps apart the owners that have buckets of several kinds. Instances send its number to
/// each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum BucketKind {
    /// Events of an address.
    AddressEvents = 0,
    /// KeyPackages of an address.
    AddressKeyPackages = 1,
    /// Events of a key.
    SenderEvents = 2,
    /// KeyPackages of a key.
    SenderKeyPackages = 3,
    /// Messages of a sender to a group.
    GroupOfSender = 4,
    /// Messages to a group.
    Group = 5,
    /// Gift wraps of a sender to a recipient.
    InboxOfSender = 6,
    /// Gift wraps to a recipient.
    Inbox = 7,
    /// KeyPackages of an owner that a reader, or an address, used up.
    Claims = 8,
}

impl BucketKind {
    const ALL: [Self; 9] = [
        Self::AddressEvents,
        Self::AddressKeyPackages,
        Self::SenderEvents,
        Self::SenderKeyPackages,
        Self::GroupOfSender,
        Self::Group,
        Self::InboxOfSender,
        Self::Inbox,
        Self::Claims,
    ];

    /// The kind of this number, if there is one.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// Name of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BucketId {
    pub(crate) kind: BucketKind,
    /// Keyed hash of the bucket's owner.
    pub(crate) hash: u64,
}

/// A number of events that were paid from one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) bucket: BucketId,
    pub(crate) times: u32,
}

/// The one or two buckets that a payment was taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paid([Option<BucketId>; 2]);

impl Paid {
    pub(super) const fn one(bucket: BucketId) -> Self {
        Self([Some(bucket), None])
    }

    pub(super) const fn two(first: BucketId, second: BucketId) -> Self {
        Self([Some(first), Some(second)])
    }
}

/// All buckets that one event was paid from, collected where other instances are told of them.
#[derive(Debug)]
pub(crate) struct Charges(Option<Vec<BucketId>>);

impl Charges {
    /// An empty list, which stays empty unless other instances are told.
    pub(crate) fn new(are_told: bool) -> Self {
        Self(are_told.then(Vec::new))
    }

    /// Adds the buckets of a payment.
    pub(crate) fn add(&mut self, paid: Paid) {
        if let Self(Some(buckets)) = self {
            buckets.extend(paid.0.into_iter().flatten());
        }
    }

    /// The buckets, one for each payment.
    pub(crate) fn into_buckets(self) -> impl Iterator<Item = BucketId> {
        self.0.into_iter().flatten()
    }
}

/// Hashes the owners of buckets under a secret key, so that nobody can find keys that share a bucket with another's.
#[derive(Clone)]
pub(super) struct BucketHasher(SipHasher13);

impl BucketHasher {
    /// The hasher of all instances that share the store of `hasher`.
    pub(super) fn new(hasher: &RouteHasher) -> Self {
        let [a, b] = ["rate limits, 1", "rate limits, 2"].map(|purpose| hasher.derived(purpose));
        Self(SipHasher13::new_with_keys(a, b))
    }

    pub(super) fn hash(&self, kind: BucketKind, owner: impl Hash) -> u64 {
        self.tagged(kind as u8, owner)
    }

    /// The hash of a party that takes turns, which is no bucket's.
    pub(super) fn hash_for_turns(&self, party: impl Hash) -> u64 {
        self.tagged(u8::MAX, party)
    }

    fn tagged(&self, tag: u8, owner: impl Hash) -> u64 {
        let mut hasher = self.0;
        hasher.write_u8(tag);
        owner.hash(&mut hasher);
        hasher.finish()
    }
}
