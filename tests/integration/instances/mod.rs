//! Several relays over one store: each delivers, finds and obeys the events that another one accepted.

mod boundary;
mod claims;
mod delivery;
mod failures;
mod freshness;
mod group_states;
mod overtaken;
mod postgres;
mod redis;
mod restore;
mod skew;
mod strangers;

use std::sync::{Arc, atomic::Ordering};

use nostr_relay::config::Config;

use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::roster,
    shared::{Link, Shared},
};

/// Two relays over one store, and an admin key of both.
struct Pair {
    a: TestRelay,
    b: TestRelay,
    /// The link between `a` and the store.
    link_a: Arc<Link>,
    /// The link between `b` and the store.
    link_b: Arc<Link>,
    admin: Keys,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(configure: impl Fn(&mut Config)) -> Self {
        let admin = Keys::random();
        let shared = Shared::new();
        let ((store_a, link_a), (store_b, link_b)) = (shared.instance(), shared.instance());
        let configure = |config: &mut Config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            configure(config);
        };
        let a = TestRelay::start_over(store_a, configure).await;
        let b = TestRelay::start_over(store_b, configure).await;
        Self { a, b, link_a, link_b, admin }
    }

    /// Connects the admin to `a`.
    async fn admin_on_a(&self) -> Client {
        Client::of(&self.a, &[&self.admin]).await
    }

    /// Founds a group of these members through `a`.
    async fn found(&self, group: &str, members: &[&Keys]) {
        let mut admins = self.admin_on_a().await;
        admins.publish(&roster(&self.admin, group, 1, "bootstrap", members).sign()).await.ok();
    }

    async fn stop(self) {
        self.a.stop().await;
        self.b.stop().await;
    }
}

/// Panics unless `/metrics` has this line.
async fn metric(relay: &TestRelay, line: &str) {
    let page = crate::support::http(relay.address, "GET /metrics", &[]).await;
    assert!(page.body.lines().any(|it| it == line), "{line} is not in {}", page.body);
}

fn fetches(link: &Link) -> u64 {
    link.fetches.load(Ordering::Relaxed)
}

fn contents(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.0["content"].as_str().expect("content is text")).collect()
}
