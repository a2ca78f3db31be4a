//! A test for each promise of the specification and of docs/rules.md.
//!
//! Source: MLS Gateway specification, "Event Kinds & Protocol Compliance"; docs/rules.md.

mod answers;
mod archive;
mod auth_required;
mod clients;
mod commit_order;
mod deletions;
mod http;
mod identity;
mod key_packages;
mod kinds;
mod not_visible;
mod payers;
mod quotas;
mod rate_limits;
mod read_cost;
mod requests_447;
mod residents;
mod roster_ops;
mod rosters_450;
mod routing;
mod shapes;
mod strangers;
mod tls;
mod unlisted_groups;
mod waiting_for_auth;
mod wrapped_groups;

use std::collections::BTreeMap;

use nostr_extensions::{
    Group, GroupStatus, NostrGroupId,
    mls_gateway::group::{GroupRecord, Role},
};
use nostr_relay::config::Config;
use serde_json::{Value, json};

use crate::support::{Client, Event, Keys, TestRelay, gateway::roster};

/// A relay with one admin key.
struct World {
    relay: TestRelay,
    admin: Keys,
}

impl World {
    /// Starts a relay with the built-in configuration.
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a relay with a changed configuration.
    async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let admin = Keys::random();
        let relay = TestRelay::start(|config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            configure(config);
        });
        Self { relay: relay.await, admin }
    }

    /// Starts one instance with a changed configuration, for limits that each instance counts by itself.
    async fn alone(configure: impl FnOnce(&mut Config)) -> Self {
        let admin = Keys::random();
        let relay = TestRelay::start_alone(|config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            configure(config);
        });
        Self { relay: relay.await, admin }
    }

    /// Starts a relay that requires AUTH of everyone, and has unlisted groups off, as is the default then.
    async fn closed() -> Self {
        Self::with(|config| {
            config.auth.enabled = true;
            config.mls_gateway.unlisted_groups = false;
        })
        .await
    }

    /// Connects and authenticates with these keys.
    async fn client(&self, keys: &[&Keys]) -> Client {
        Client::of(&self.relay, keys).await
    }

    /// Connects and authenticates with the admin key.
    async fn admin(&self) -> Client {
        self.client(&[&self.admin]).await
    }

    /// Founds a group with these members.
    async fn group(&self, group: &str, members: &[&Keys]) {
        let event = roster(&self.admin, group, 1, "bootstrap", members).sign();
        self.admin().await.publish(&event).await.ok();
    }

    /// Applies `op` to a group by its next roster.
    async fn change(&self, group: &str, seq: u64, op: &str, keys: &[&Keys]) {
        let event = roster(&self.admin, group, seq, op, keys).sign();
        self.admin().await.publish(&event).await.ok();
    }

    /// The stored state of a group.
    async fn state(&self, group: &str) -> Group {
        let id = NostrGroupId::parse(group).expect("a group id");
        self.relay.app().store.group(&id).await.expect("the store answers").0
    }

    /// The members of a managed group, and their roles.
    async fn roles(&self, group: &str) -> BTreeMap<String, Role> {
        match self.state(group).await.status {
            GroupStatus::Managed(view) => view.members.iter().map(|(key, role)| (key.to_hex(), *role)).collect(),
            other => panic!("{group} is not managed: {other:?}"),
        }
    }

    /// The record of a managed group.
    async fn record(&self, group: &str) -> GroupRecord {
        match self.state(group).await.status {
            GroupStatus::Managed(view) => view.record.clone(),
            other => panic!("{group} is not managed: {other:?}"),
        }
    }

    /// Removes the events that have expired by the relay's clock, and returns their number.
    async fn sweep(&self) -> usize {
        self.relay.app().store.sweep(self.relay.now(), 10_000).await.expect("the store sweeps").removed
    }
}

/// The ids that a filter gives to the client, sorted, or the reason of the refusal. Panics if REQ, COUNT and NIP-77
/// differ.
async fn shown(client: &mut Client, filter: Value) -> Result<Vec<String>, String> {
    let stored = client.ids(filter.clone()).await.map(sorted);
    let counted = client.count(std::slice::from_ref(&filter)).await;
    let synced = client.neg_ids(filter.clone()).await;
    assert_eq!(stored.clone().map(|ids| ids.len() as u64), counted, "REQ and COUNT differ on {filter}");
    assert_eq!(stored, synced, "REQ and NEG-OPEN differ on {filter}");
    stored
}

/// Whether the client gets `event`. Panics if asking by its id and asking by its kind differ.
async fn sees(client: &mut Client, event: &Event) -> bool {
    let by_id = shown(client, json!({"ids": [event.id()]})).await.is_ok_and(|ids| ids == [event.id()]);
    let by_kind =
        shown(client, json!({"kinds": [event.kind()]})).await.is_ok_and(|ids| ids.iter().any(|id| id == event.id()));
    assert_eq!(by_id, by_kind, "asking by id and by kind differs for kind {}", event.kind());
    by_id
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

fn ids(events: &[&Event]) -> Vec<String> {
    sorted(events.iter().map(|event| event.id().to_owned()).collect())
}
