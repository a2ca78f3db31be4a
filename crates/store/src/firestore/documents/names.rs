//! Names of collections, fields and documents.
//!
//! Names of documents are hex digits, so that no text of a client can break a path.

use nostr_extensions::NostrGroupId;
use nostr_protocol::{EventId, PublicKey};
use sha2::{Digest as _, Sha256};

use crate::{
    OnceName, ReceiptName,
    decide::facts::{Address, Claimed, TombstoneKey},
    firestore::wire::value::hex,
};

/// Fields that queries name.
pub(crate) mod field {
    /// The time at which the service received the document, in milliseconds: of the log, and of an event that is listed
    /// in the order of receipt.
    pub(crate) const AT: &str = "at";
    pub(crate) const CREATED_AT: &str = "created_at";
    /// The time up to which an address was deleted.
    pub(crate) const DELETED_UNTIL: &str = "deleted_until";
    pub(crate) const RECEIVED_AT: &str = "received_at";
    /// The time from which the service's lifetime policy, or a sweep, may remove the document.
    pub(crate) const EXPIRES_AT: &str = "expires_at";
    pub(crate) const PREFIXES: &str = "prefixes";
    /// A group's id.
    pub(crate) const GROUP: &str = "group";
    /// Members of a group, as numbers.
    pub(crate) const KEYS: &str = "keys";
    pub(crate) const MANAGED: &str = "managed";
    pub(crate) const PENDING: &str = "pending";
    /// The groups that an event touched, where its kind does not say that.
    pub(crate) const TOUCHED: &str = "touched";
    /// The document's own name.
    pub(crate) const NAME: &str = "__name__";
}

/// Collections of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    /// Events, by id.
    Events,
    /// Log entries, one document for each commit.
    Log,
    /// Addresses with the events that hold them.
    Addresses,
    /// KeyPackages, by owner.
    Owners,
    /// KeyPackages that were claimed.
    Claimed,
    /// Answers to claims, kept for repetitions, by reader and name.
    Receipts,
    /// Tombstones of deleted events, by target and deleter.
    Tombstones,
    /// Keys that vanished.
    Vanished,
    /// Groups.
    Groups,
    /// Members of large groups, in shards.
    Members,
    /// Memberships in which the key has not acted, by key and time.
    Invited,
    /// Last epochs of groups.
    Epochs,
    /// Logs of commits, of groups that keep an order of them.
    Commits,
    /// Foundings of groups in the last day, by key.
    Founders,
    /// How many memberships in which nobody has acted count against a founder, by key.
    Inviters,
    /// Names that are used once.
    Once,
    /// Single documents of the store itself.
    Meta,
}

impl Collection {
    pub(crate) const ALL: [Self; 17] = [
        Self::Events,
        Self::Log,
        Self::Addresses,
        Self::Owners,
        Self::Claimed,
        Self::Receipts,
        Self::Tombstones,
        Self::Vanished,
        Self::Groups,
        Self::Members,
        Self::Invited,
        Self::Epochs,
        Self::Commits,
        Self::Founders,
        Self::Inviters,
        Self::Once,
        Self::Meta,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Log => "log",
            Self::Addresses => "addresses",
            Self::Owners => "owners",
            Self::Claimed => "claimed",
            Self::Receipts => "receipts",
            Self::Tombstones => "tombstones",
            Self::Vanished => "vanished",
            Self::Groups => "groups",
            Self::Members => "members",
            Self::Invited => "invited",
            Self::Epochs => "epochs",
            Self::Commits => "commits",
            Self::Founders => "founders",
            Self::Inviters => "inviters",
            Self::Once => "once",
            Self::Meta => "meta",
        }
    }

    /// The fields of its documents.
    pub(crate) const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Events => &[
                "head",
                "json",
                field::RECEIVED_AT,
                field::EXPIRES_AT,
                "flags",
                "place",
                field::PREFIXES,
                field::CREATED_AT,
                "address",
                field::TOUCHED,
                field::AT,
            ],
            Self::Log => &[field::AT, "place", "entries", field::TOUCHED],
            Self::Addresses => &["event", field::CREATED_AT, "expires", field::DELETED_UNTIL],
            Self::Owners => &["packages", "ledger"],
            Self::Claimed => &[],
            Self::Receipts => &["answer", field::EXPIRES_AT],
            Self::Tombstones => &["public"],
            Self::Vanished => &["until", field::PENDING],
            Self::Groups => &[field::GROUP, "unlisted", field::MANAGED, "record", "members", "shards", field::KEYS],
            Self::Members => &[field::GROUP, "members", field::KEYS],
            Self::Epochs => &["epoch"],
            Self::Commits => &["log"],
            Self::Invited => &["by"],
            Self::Founders => &["times"],
            Self::Inviters => &["count"],
            Self::Once => &[field::EXPIRES_AT],
            Self::Meta => &["version", "router", "swept", "value"],
        }
    }
}

/// Names of collections and documents in one database.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    root: String,
    prefix: String,
}

impl Names {
    /// Names under `root`, in collections that begin with `prefix`.
    pub(crate) fn new(root: &str, prefix: &str) -> Self {
        Self { root: root.to_owned(), prefix: prefix.to_owned() }
    }

    pub(crate) fn collection(&self, collection: Collection) -> String {
        format!("{}_{}", self.prefix, collection.name())
    }

    fn document(&self, collection: Collection, id: impl std::fmt::Display) -> String {
        format!("{}/{}_{}/{id}", self.root, self.prefix, collection.name())
    }

    pub(crate) fn event(&self, id: &EventId) -> String {
        self.document(Collection::Events, id.to_hex())
    }

    pub(crate) fn log(&self, id: &str) -> String {
        self.document(Collection::Log, id)
    }

    pub(crate) fn address(&self, address: &Address) -> String {
        self.document(Collection::Addresses, hex(address))
    }

    /// A document by the last part of its name.
    pub(crate) fn named(&self, collection: Collection, id: &str) -> String {
        self.document(collection, id)
    }

    pub(crate) fn owner(&self, owner: &PublicKey) -> String {
        self.document(Collection::Owners, owner.to_hex())
    }

    pub(crate) fn claimed(&self, (owner, content): &Claimed) -> String {
        self.document(Collection::Claimed, format_args!("{}_{}", hex(owner), hex(content)))
    }

    pub(crate) fn receipt(&self, receipt: &ReceiptName) -> String {
        self.document(Collection::Receipts, format_args!("{}_{}", receipt.reader.to_hex(), hex(&receipt.name)))
    }

    pub(crate) fn tombstone(&self, (target, by): &TombstoneKey) -> String {
        self.document(Collection::Tombstones, format_args!("{}_{}", hex(target), hex(by)))
    }

    pub(crate) fn vanished(&self, key: &PublicKey) -> String {
        self.document(Collection::Vanished, key.to_hex())
    }

    pub(crate) fn group(&self, group: &NostrGroupId) -> String {
        self.document(Collection::Groups, group_hash(group))
    }

    pub(crate) fn epoch(&self, group: &NostrGroupId) -> String {
        self.document(Collection::Epochs, group_hash(group))
    }

    pub(crate) fn commits(&self, group: &NostrGroupId) -> String {
        self.document(Collection::Commits, group_hash(group))
    }

    pub(crate) fn members(&self, shard: &str) -> String {
        self.document(Collection::Members, shard)
    }

    /// The document of a membership in which the key has not acted. The names of a key's documents are in the order in
    /// which the memberships give way.
    pub(crate) fn invited(&self, key: &PublicKey, rank: u64, group: &NostrGroupId) -> String {
        let group = hex(group.as_str().as_bytes());
        self.document(Collection::Invited, format_args!("{}_{rank:016x}_{group}", key.to_hex()))
    }

    /// How many memberships count against a key.
    pub(crate) fn inviter(&self, inviter: &PublicKey) -> String {
        self.document(Collection::Inviters, inviter.to_hex())
    }

    /// How many memberships of a member count against a key.
    pub(crate) fn invitations(&self, member: &PublicKey, inviter: &PublicKey) -> String {
        self.document(Collection::Inviters, format_args!("{}_{}", inviter.to_hex(), member.to_hex()))
    }

    pub(crate) fn founder(&self, founder: &PublicKey) -> String {
        self.document(Collection::Founders, founder.to_hex())
    }

    /// A name that is used once.
    pub(crate) fn once(&self, name: &OnceName) -> String {
        self.document(Collection::Once, hex(name))
    }

    /// A single document of the store: the layout with the key of the route hasher, or the time up to which the log was
    /// swept.
    pub(crate) fn meta(&self, id: &str) -> String {
        self.document(Collection::Meta, id)
    }
}

fn group_hash(group: &NostrGroupId) -> String {
    hex(&Sha256::digest(group.as_str().as_bytes()))
}
