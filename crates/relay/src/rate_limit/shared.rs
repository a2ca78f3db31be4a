//! What was paid from which bucket, so that other instances can take it from theirs.

use std::hash::{Hash, Hasher as _};

use nostr_extensions::RouteHasher;
use siphasher::sip::SipHasher13;

use crate::random;

/// What a bucket is for; it keeps owners apart that have buckets of several sorts. The numbers go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purse {
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

impl Purse {
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

    /// The purse of this number, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// One bucket, from which one event was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Debit {
    /// What it is for.
    pub purse: Purse,
    /// Its owner, hashed.
    pub hash: u64,
}

/// How many events were paid from one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The bucket.
    pub debit: Debit,
    /// How often.
    pub times: u32,
}

/// The buckets from which something was paid.
#[derive(Clone, Copy, Debug)]
pub struct Paid([Option<Debit>; 2]);

impl Paid {
    pub(super) const fn one(debit: Debit) -> Self {
        Self([Some(debit), None])
    }

    pub(super) const fn two(first: Debit, second: Debit) -> Self {
        Self([Some(first), Some(second)])
    }
}

/// All that one event has cost, where other instances are told of it.
#[derive(Debug, Default)]
pub struct Receipt(Option<Vec<Debit>>);

impl Receipt {
    /// An empty one, which stays so where nobody is told.
    #[must_use]
    pub fn new(is_told: bool) -> Self {
        Self(is_told.then(Vec::new))
    }

    /// Adds what was paid.
    pub fn add(&mut self, paid: Paid) {
        if let Self(Some(debits)) = self {
            debits.extend(paid.0.into_iter().flatten());
        }
    }

    /// What was paid.
    pub fn into_debits(self) -> impl Iterator<Item = Debit> {
        self.0.into_iter().flatten()
    }
}

/// Under what owners are hashed.
#[derive(Clone)]
pub(super) struct Key(SipHasher13);

impl Key {
    /// A key of this process.
    pub(super) fn random() -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&random::bytes32()[..16]);
        Self(SipHasher13::new_with_key(&key))
    }

    /// The key of all who share the store of `router`.
    pub(super) fn of(router: &RouteHasher) -> Self {
        let [a, b] = ["rate limits, 1", "rate limits, 2"].map(|purpose| router.derived(purpose));
        Self(SipHasher13::new_with_keys(a, b))
    }

    pub(super) fn hash(&self, purse: Purse, owner: impl Hash) -> u64 {
        let mut hasher = self.0;
        hasher.write_u8(purse as u8);
        owner.hash(&mut hasher);
        hasher.finish()
    }
}
