//! Client that cannot authenticate on its connection for groups.

use mdk_clients::connection::Connection;
use mdk_clients::person::{ADDRESSABLE_KEY_PACKAGE, Person};
use mdk_clients::relay::{Relay, Settings};
use nostr::event::{EventBuilder, Kind};
use nostr::nips::nip09::EventDeletionRequest;
use nostr::{Filter, PublicKey};

/// With `[auth]` off, KeyPackages, their deletion and unlisted groups work without NIP-42.
///
/// White Noise connects to a group's relays without a signer, and publishes KeyPackages on such connections too. It
/// cannot use a relay that asks for authentication there. Only recipients get gift wraps, so Bob has a second
/// connection for them, with his key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_without_signer() {
    let relay = Relay::start(Settings::default()).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::without_signer("Bob", &relay).await;

    let packages = bob.introduce().await;
    let invited = [alice.key_package_of(bob.public_key()).await];
    let admins = [alice.public_key()];
    let welcomes = alice.found_group(&invited, &admins);
    alice.invite(&invited, welcomes).await;
    alice.listen().await;
    let inbox = Connection::open(&relay.url(), Some(&bob.keys)).await;
    let invitation = bob.invitation(&inbox).await;
    inbox.close().await;
    bob.join(invitation);

    let deletion = EventDeletionRequest::new().id(packages.legacy.id);
    let deletion = bob.sign(EventBuilder::delete(deletion));
    bob.connection.publish(&deletion).await;
    let left = key_packages(&relay, bob.public_key()).await;
    assert_eq!(left, [ADDRESSABLE_KEY_PACKAGE]);

    bob.listen().await;
    let words = bob.say("no key on this line").await;
    alice.hear(&words).await;
    let words = alice.say("none needed").await;
    bob.hear(&words).await;
    assert_eq!(bob.words(), ["no key on this line", "none needed"]);

    let gift_wraps = Filter::new().kind(Kind::GiftWrap).pubkey(bob.public_key());
    let reason = bob.connection.refused(gift_wraps).await;
    assert!(reason.starts_with("auth-required:"), "{reason}");
    assert!(!bob.connection.has_authenticated());
}

/// Fetches the kinds of a person's KeyPackages as a stranger without a key.
async fn key_packages(relay: &Relay, owner: PublicKey) -> Vec<Kind> {
    let mut stranger = Connection::open(&relay.url(), None).await;
    let filter = Filter::new().author(owner).kinds([ADDRESSABLE_KEY_PACKAGE, Kind::MlsKeyPackage]);
    let packages = stranger.fetch(filter).await;
    packages.iter().map(|event| event.kind).collect()
}
