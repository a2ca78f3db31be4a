//! The client of `docs/clients.md`: two people talk, one of them was away, and a relay refuses a third.

use mdk_clients::WAIT;
use mdk_clients::guide::{
    catch_up, connect, follow, found_group, h, join, next, publish, publish_key_package, read, say,
};
use mdk_clients::relay::{Relay, Settings};
use mdk_core::MDK;
use mdk_memory_storage::MdkMemoryStorage;
use nostr::event::{EventBuilder, Kind};
use nostr::{Filter, Keys, Timestamp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_talk_and_one_catches_up() {
    let relay = Relay::start(Settings::default()).await;
    let url = relay.url();
    let [alice, bob] = [Keys::generate(), Keys::generate()];
    let [of_alice, of_bob] = [MDK::new(MdkMemoryStorage::default()), MDK::new(MdkMemoryStorage::default())];
    let at = connect(&url, &alice).await.expect("Alice connects");
    let bt = connect(&url, &bob).await.expect("Bob connects");

    publish_key_package(&bt, &of_bob, &bob, &url).await.expect("a KeyPackage is published");
    let packages = Filter::new().author(bob.public_key()).kind(Kind::Custom(30443));
    let invited = at.fetch_events(packages, WAIT).await.expect("an answer").first_owned().expect("Bob's KeyPackage");
    let mut founded = found_group(&at, &of_alice, &alice, invited.clone(), url.clone()).await;
    // A store that fails once is asked again, as the answer says.
    if founded.as_ref().is_err_and(|reason| reason.to_string().contains("try again")) {
        founded = found_group(&at, &of_alice, &alice, invited, url.clone()).await;
    }
    let in_alice = founded.expect("a group is founded");
    let in_bob = join(&bt, &of_bob, &bob).await.expect("the inbox is read").expect("a Welcome");
    assert_eq!(in_bob, in_alice);
    let group = h(&of_alice, &in_alice).expect("its h");

    let mut notifications = bt.notifications();
    let following = follow(&bt, &group).await.expect("a subscription");
    say(&at, &of_alice, &alice, &in_alice, "good morning").await.expect("a message is sent");
    let event = tokio::time::timeout(WAIT, next(&mut notifications, &following));
    let event = event.await.expect("in time").expect("an event");
    assert_eq!(read(&of_bob, &event).as_deref(), Some("good morning"));

    let since = event.created_at;
    bt.shutdown().await;
    say(&at, &of_alice, &alice, &in_alice, "while you were away").await.expect("a message is sent");
    let bt = connect(&url, &bob).await.expect("Bob connects");
    let missed = catch_up(&bt, &group, since).await.expect("the messages");
    let texts: Vec<_> = missed.iter().filter(|it| it.id != event.id).filter_map(|it| read(&of_bob, it)).collect();
    assert_eq!(texts, ["while you were away"]);
    for client in [at, bt] {
        client.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_has_the_reason() {
    let relay = Relay::start(Settings::default()).await;
    let eve = Keys::generate();
    let client = connect(&relay.url(), &eve).await.expect("Eve connects");
    let event = EventBuilder::new(Kind::Custom(450), "").sign_with_keys(&eve).expect("a signature");
    let reason = publish(&client, &event).await.expect_err("a roster without h is refused").to_string();
    assert!(reason.contains("invalid: "), "{reason}");
    let none = catch_up(&client, "team", Timestamp::zero()).await.expect("an answer");
    assert!(none.is_empty());
    client.shutdown().await;
}
