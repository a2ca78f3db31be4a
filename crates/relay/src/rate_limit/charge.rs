//! Charges: the buckets that an event was paid from, so that other instances can charge theirs.

use std::hash::{Hash, Hasher as _};

use nostr_extensions::RouteHasher;
use siphasher::sip::SipHasher13;

use super::payer::Width;

/// The kind of a bucket, which keeps apart the owners that have buckets of several kinds. Instances send its number to
/// each other, so a number keeps its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum BucketKind {
    /// Events of an address: of one of IPv4, of a /64 of IPv6.
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
    /// Events of a /56.
    WideEvents = 9,
    /// Events of a /48.
    WidestEvents = 10,
    /// KeyPackages of a /56.
    WideKeyPackages = 11,
    /// KeyPackages of a /48.
    WidestKeyPackages = 12,
    /// KeyPackages of an owner that a /56 used up.
    WideClaims = 13,
    /// KeyPackages of an owner that a /48 used up.
    WidestClaims = 14,
    /// Events of a key that pays alone.
    KeyEvents = 15,
    /// Events that a member of a group that anyone can found sent from a block.
    MemberOfAddress = 16,
    /// Events of all such members from a block.
    AddressMembers = 17,
    /// AUTHs of an address.
    AddressAuths = 18,
    /// AUTHs of a /56.
    WideAuths = 19,
    /// AUTHs of a /48.
    WidestAuths = 20,
    /// Malformed messages of an address.
    AddressFaults = 21,
    /// Malformed messages of a /56.
    WideFaults = 22,
    /// Malformed messages of a /48.
    WidestFaults = 23,
    /// New connections of an address.
    AddressHandshakes = 24,
    /// New connections of a /56.
    WideHandshakes = 25,
    /// New connections of a /48.
    WidestHandshakes = 26,
    /// Groups that were looked up for an address before an event was paid for.
    AddressLookups = 27,
    /// The same of a /56.
    WideLookups = 28,
    /// The same of a /48.
    WidestLookups = 29,
    /// HTTP requests of an address.
    AddressRequests = 30,
    /// HTTP requests of a /56.
    WideRequests = 31,
    /// HTTP requests of a /48.
    WidestRequests = 32,
}

impl BucketKind {
    const ALL: [Self; 33] = [
        Self::AddressEvents,
        Self::AddressKeyPackages,
        Self::SenderEvents,
        Self::SenderKeyPackages,
        Self::GroupOfSender,
        Self::Group,
        Self::InboxOfSender,
        Self::Inbox,
        Self::Claims,
        Self::WideEvents,
        Self::WidestEvents,
        Self::WideKeyPackages,
        Self::WidestKeyPackages,
        Self::WideClaims,
        Self::WidestClaims,
        Self::KeyEvents,
        Self::MemberOfAddress,
        Self::AddressMembers,
        Self::AddressAuths,
        Self::WideAuths,
        Self::WidestAuths,
        Self::AddressFaults,
        Self::WideFaults,
        Self::WidestFaults,
        Self::AddressHandshakes,
        Self::WideHandshakes,
        Self::WidestHandshakes,
        Self::AddressLookups,
        Self::WideLookups,
        Self::WidestLookups,
        Self::AddressRequests,
        Self::WideRequests,
        Self::WidestRequests,
    ];

    /// The kind of this number, if there is one.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// The kinds of the buckets that the blocks of one address have, by their width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockKinds {
    narrow: BucketKind,
    wide: BucketKind,
    widest: BucketKind,
}

impl BlockKinds {
    pub(super) const EVENTS: Self =
        Self::new(BucketKind::AddressEvents, BucketKind::WideEvents, BucketKind::WidestEvents);
    pub(super) const KEY_PACKAGES: Self =
        Self::new(BucketKind::AddressKeyPackages, BucketKind::WideKeyPackages, BucketKind::WidestKeyPackages);
    pub(super) const CLAIMS: Self = Self::new(BucketKind::Claims, BucketKind::WideClaims, BucketKind::WidestClaims);
    pub(super) const AUTHS: Self = Self::new(BucketKind::AddressAuths, BucketKind::WideAuths, BucketKind::WidestAuths);
    pub(super) const FAULTS: Self =
        Self::new(BucketKind::AddressFaults, BucketKind::WideFaults, BucketKind::WidestFaults);
    pub(super) const HANDSHAKES: Self =
        Self::new(BucketKind::AddressHandshakes, BucketKind::WideHandshakes, BucketKind::WidestHandshakes);

    pub(super) const LOOKUPS: Self =
        Self::new(BucketKind::AddressLookups, BucketKind::WideLookups, BucketKind::WidestLookups);

    pub(super) const REQUESTS: Self =
        Self::new(BucketKind::AddressRequests, BucketKind::WideRequests, BucketKind::WidestRequests);

    /// Three kinds, from the narrowest block to the widest.
    pub(super) const fn new(narrow: BucketKind, wide: BucketKind, widest: BucketKind) -> Self {
        Self { narrow, wide, widest }
    }

    /// The kind of a block of this width.
    pub(super) const fn of(self, width: Width) -> BucketKind {
        match width {
            Width::Narrow => self.narrow,
            Width::Wide => self.wide,
            Width::Widest => self.widest,
        }
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

/// Most buckets that one payment is taken from: those of three blocks, of two classes.
const PAID_BUCKETS_MAX: usize = 6;

/// The buckets that a payment was taken from, each as often as `times` says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paid {
    pub(super) buckets: [Option<BucketId>; PAID_BUCKETS_MAX],
    pub(super) times: u32,
}

impl Paid {
    /// A payment of `times` events from each bucket.
    pub(super) fn new(buckets: impl IntoIterator<Item = BucketId>, times: u32) -> Self {
        let mut paid = Self { buckets: [None; PAID_BUCKETS_MAX], times };
        for (place, bucket) in paid.buckets.iter_mut().zip(buckets) {
            *place = Some(bucket);
        }
        paid
    }
}

/// All payments for one event, collected where other instances are told of them.
#[derive(Debug)]
pub(crate) struct Charges(Option<Vec<Charge>>);

impl Charges {
    /// An empty list, which stays empty unless other instances are told.
    pub(crate) fn new(are_told: bool) -> Self {
        Self(are_told.then(Vec::new))
    }

    /// Adds a payment.
    pub(crate) fn add(&mut self, Paid { buckets, times }: Paid) {
        if let Self(Some(charges)) = self {
            charges.extend(buckets.into_iter().flatten().map(|bucket| Charge { bucket, times }));
        }
    }

    /// The buckets, each once for each event that was taken from it.
    pub(crate) fn into_buckets(self) -> impl Iterator<Item = BucketId> {
        let charges = self.0.into_iter().flatten();
        charges.flat_map(|Charge { bucket, times }| std::iter::repeat_n(bucket, times as usize))
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
