//! Person with a Nostr key, an MDK store and a connection, like a user of a Marmot application.

use mdk_core::MDK;
use mdk_core::key_packages::KeyPackageEventData;
use mdk_memory_storage::MdkMemoryStorage;
use nostr::event::{Event, EventBuilder, Kind, Tag, TagKind};
use nostr::{Filter, Keys, PublicKey, RelayUrl};

use crate::connection::Connection;
use crate::group::Membership;
use crate::relay::Relay;

/// Kind of the addressable KeyPackage, which MDK 0.8 publishes beside the older 443.
pub const ADDRESSABLE_KEY_PACKAGE: Kind = Kind::Custom(30443);

/// A user.
#[derive(Debug)]
pub struct Person {
    /// The name in messages of failed assertions.
    pub name: &'static str,
    /// The Nostr identity, which is the MLS credential's identity too.
    pub keys: Keys,
    /// The MLS state.
    pub mdk: MDK<MdkMemoryStorage>,
    /// The connection for groups.
    pub connection: Connection,
    pub(crate) relay_url: RelayUrl,
    pub(crate) membership: Option<Membership>,
}

/// One MLS KeyPackage in its two Nostr forms.
#[derive(Debug)]
pub struct KeyPackages {
    /// Kind 30443.
    pub addressable: Event,
    /// Kind 443.
    pub legacy: Event,
}

impl Person {
    /// Makes a person whose connection has the key and authenticates when the relay asks.
    pub async fn with_signer(name: &'static str, relay: &Relay) -> Self {
        let keys = Keys::generate();
        let url = relay.url();
        let connection = Connection::open(&url, Some(&keys)).await;
        Self::new(name, keys, connection, url)
    }

    /// Makes a person whose connection never has the key. The events that it publishes are signed elsewhere.
    pub async fn without_signer(name: &'static str, relay: &Relay) -> Self {
        let url = relay.url();
        let connection = Connection::open(&url, None).await;
        Self::new(name, Keys::generate(), connection, url)
    }

    fn new(name: &'static str, keys: Keys, connection: Connection, relay_url: RelayUrl) -> Self {
        Self { name, keys, mdk: MDK::new(MdkMemoryStorage::default()), connection, relay_url, membership: None }
    }

    /// The Nostr identity.
    pub fn public_key(&self) -> PublicKey {
        self.keys.public_key()
    }

    /// Closes the connection. The MLS state stays.
    pub async fn disconnect(&mut self) {
        self.connection.close().await;
    }

    /// Opens a new connection, without subscriptions.
    pub async fn reconnect(&mut self) {
        self.connection = Connection::open(&self.relay_url, Some(&self.keys)).await;
    }

    /// Signs with the Nostr identity.
    pub fn sign(&self, builder: EventBuilder) -> Event {
        builder.sign_with_keys(&self.keys).expect("a well-formed event can be signed")
    }

    /// Publishes all events that others need to invite this person: the lists of relays for reading (10002), for
    /// messages (10050) and for KeyPackages (10051), and a KeyPackage in both forms.
    pub async fn introduce(&self) -> KeyPackages {
        let relay = self.relay_url.to_string();
        let lists = [
            (Kind::RelayList, TagKind::custom("r")),
            (Kind::InboxRelays, TagKind::Relay),
            (Kind::MlsKeyPackageRelays, TagKind::Relay),
        ];
        for (kind, tag) in lists {
            let list = EventBuilder::new(kind, "").tag(Tag::custom(tag, [relay.clone()]));
            self.connection.publish(&self.sign(list)).await;
        }
        let packages = self.new_key_packages();
        self.connection.publish(&packages.addressable).await;
        self.connection.publish(&packages.legacy).await;
        packages
    }

    /// Fetches another person's KeyPackage.
    ///
    /// # Panics
    /// Unless the relay has it once in each form, with the same bytes, and has the owner's three lists of relays.
    pub async fn key_package_of(&mut self, owner: PublicKey) -> Event {
        let lists = Filter::new().author(owner).kinds([Kind::RelayList, Kind::InboxRelays, Kind::MlsKeyPackageRelays]);
        assert_eq!(self.connection.fetch(lists).await.len(), 3);
        let packages = Filter::new().author(owner).kinds([ADDRESSABLE_KEY_PACKAGE, Kind::MlsKeyPackage]);
        let packages = self.connection.fetch(packages).await;
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].content, packages[1].content);
        packages.into_iter().find(|event| event.kind == ADDRESSABLE_KEY_PACKAGE).expect("one of the two is addressable")
    }

    fn new_key_packages(&self) -> KeyPackages {
        let KeyPackageEventData { content, tags_30443, tags_443, .. } = self
            .mdk
            .create_key_package_for_event(&self.public_key(), [self.relay_url.clone()])
            .expect("MDK makes a KeyPackage");
        let addressable = EventBuilder::new(ADDRESSABLE_KEY_PACKAGE, content.clone()).tags(tags_30443);
        let legacy = EventBuilder::new(Kind::MlsKeyPackage, content).tags(tags_443);
        KeyPackages { addressable: self.sign(addressable), legacy: self.sign(legacy) }
    }
}
