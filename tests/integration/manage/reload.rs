//! A configuration that is read again.

use std::fs;

use nostr_relay::config::{Config, Reading};

use super::ends;
use crate::support::{Client, Keys, TestRelay, http};

async fn name_of(relay: &TestRelay) -> String {
    let answer = http(relay.next_address(), "GET /", &[("accept", "application/nostr+json")]).await;
    answer.json()["name"].as_str().expect("a name").to_owned()
}

/// Keys that may change take effect at once, and no connection is dropped for them.
#[tokio::test]
async fn a_change_is_in_force_without_a_dropped_connection() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| config.auth.pubkey_whitelist = vec![alice.public()]).await;
    let mut client = Client::connect(&relay).await;
    client.publish(&alice.event(1).sign()).await.ok();
    client.publish(&bob.event(1).sign()).await.refused("auth-required");
    let mut next = Config::clone(&relay.app().config);
    next.auth.pubkey_whitelist = vec![bob.public()];
    next.information.name = "another".to_owned();
    next.server.ping_interval_secs = 7;
    relay.reconfigure(&next.into());
    client.publish(&bob.event(1).content("2").sign()).await.ok();
    client.publish(&alice.event(1).content("2").sign()).await.refused("auth-required");
    assert_eq!(name_of(&relay).await, "another");
}

/// With `auth.enabled` a key that is no resident any more loses its connection.
#[tokio::test]
async fn a_key_that_is_no_resident_any_more_leaves() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.auth.enabled = true;
        config.auth.pubkey_whitelist = vec![alice.public(), bob.public()];
    })
    .await;
    let mut alices = Client::of(&relay, &[&alice]).await;
    let mut bobs = Client::of(&relay, &[&bob]).await;
    let mut next = Config::clone(&relay.app().config);
    next.auth.pubkey_whitelist = vec![bob.public()];
    relay.reconfigure(&next.into());
    ends(&mut alices).await;
    bobs.publish(&bob.event(1).sign()).await.ok();
}

#[tokio::test]
async fn a_reading_with_faults_changes_nothing() {
    let relay = TestRelay::start(|_| {}).await;
    let text = "[information]\nname = \"another\"\n[server]\nport = \"x\"\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("it is written");
    let faulty = Reading::of(Some(file.path()), []);
    assert_eq!((faulty.faults.len(), faulty.config.information.name.as_str()), (1, "another"));
    relay.reconfigure(&faulty);
    assert_eq!(name_of(&relay).await, "rnostr");
}

/// A file that was cut off, or is being written, opens no relay by the defaults.
#[tokio::test]
async fn a_file_that_sets_nothing_changes_nothing() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| config.auth.pubkey_whitelist = vec![alice.public()]).await;
    let mut client = Client::connect(&relay).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    for text in ["", "# nothing\n", "[auth]\n"] {
        fs::write(file.path(), text).expect("it is written");
        assert!(Reading::of(Some(file.path()), []).faults.is_empty(), "a start takes it");
        relay.reconfigure(&Reading::again(Some(file.path()), []));
    }
    let path = file.path().to_owned();
    drop(file);
    relay.reconfigure(&Reading::again(Some(&path), []));
    client.publish(&bob.event(1).sign()).await.refused("auth-required");
    client.publish(&alice.event(1).sign()).await.ok();
}
