//! A group of MDK clients, built from KeyPackages that were claimed over REST.

use mdk_clients::claim::claim;
use mdk_clients::group::bring_in;
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};

/// Marmot's KeyPackages are marked as ones of last resort: a claim gives the one that its owner has, to everybody, and
/// uses none up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_built_from_claimed_packages() {
    let relay = Relay::start(Settings::default()).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::with_signer("Bob", &relay).await;
    let mut carol = Person::with_signer("Carol", &relay).await;
    let mut claimed = Vec::new();
    for person in [&bob, &carol] {
        let published = person.introduce().await;
        let (package, is_last_resort) = claim(&relay.url(), &alice.keys, person.public_key()).await;
        assert!(is_last_resort, "MDK marks its KeyPackages");
        assert_eq!(package.content, published.addressable.content);
        claimed.push(package);
    }
    let again = claim(&relay.url(), &carol.keys, bob.public_key()).await;
    assert_eq!(again.0, claimed[0], "given again");

    let welcomes = alice.found_group(&claimed, &[alice.public_key()]);
    bring_in(&mut alice, &mut [&mut bob, &mut carol], &claimed, welcomes).await;
    let words = alice.say("welcome, both").await;
    bob.hear(&words).await;
    carol.hear(&words).await;
    let words = carol.say("good to be here").await;
    alice.hear(&words).await;
    bob.hear(&words).await;
}
