//! Faults of one instance, of its way to the others and of its clock, by rounds: each round chooses the moment, the
//! extent and the sort of its fault from a seed (`support::rounds`).

mod clock;
mod forged;
mod frozen;
mod removed;
mod restored;
mod silent;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rnostr_test_services::{self as services, FirestoreEmulator, Postgres, Proxy};

use super::{Cluster, Database as OwnDatabase, Setting, StoreConfig, gateway, is_firestore};
use crate::support::{Client, Event, Keys, Response, http};

/// Longest time until an instance is ready again.
const READY_SECS_MAX: u64 = 20;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A database, and the ways to it.
enum Database {
    Postgres { url: String, _drops: OwnDatabase },
    Firestore { project: String },
}

impl Database {
    /// A new database; `None` if the engine is missing and the tests may run without it.
    fn new() -> Option<Self> {
        if is_firestore() {
            services::require(FirestoreEmulator::shared_available())?;
            return Some(Self::Firestore { project: FirestoreEmulator::shared().project() });
        }
        services::require(Postgres::shared_available())?;
        let url = Postgres::shared().create_database();
        Some(Self::Postgres { _drops: OwnDatabase(url.clone()), url })
    }

    /// The server's address, for a proxy.
    fn address(&self) -> String {
        match self {
            Self::Postgres { .. } => Postgres::shared().address(),
            Self::Firestore { .. } => FirestoreEmulator::shared().host(),
        }
    }

    fn direct(&self) -> StoreConfig {
        match self {
            Self::Postgres { url, .. } => StoreConfig::postgres(url),
            Self::Firestore { project } => StoreConfig::firestore(&FirestoreEmulator::shared().host(), project),
        }
    }

    fn through(&self, proxy: &Proxy) -> StoreConfig {
        match self {
            Self::Postgres { url, .. } => {
                let name = url.rsplit('/').next().expect("a name");
                StoreConfig::postgres(&Postgres::shared().url_at(&proxy.address(), name))
            }
            Self::Firestore { project } => StoreConfig::firestore(&proxy.address(), project),
        }
    }
}

fn admins(admin: &Keys) -> Setting {
    gateway(format!("admin_pubkeys = [\"{}\"]", admin.hex()))
}

async fn client(url: &str, keys: &Keys) -> Client {
    let mut client = Client::open(url, &[]).await.expect("it connects");
    client.auth(keys).await.ok();
    client
}

async fn ready(address: SocketAddr) -> Response {
    http(address, "GET /ready", &[]).await
}

/// Waits until `/ready` has this status, at most [`READY_SECS_MAX`], and returns its text.
async fn until_ready_is(address: SocketAddr, status: u16) -> String {
    let until = Instant::now() + Duration::from_secs(READY_SECS_MAX);
    loop {
        let answer = ready(address).await;
        if answer.status == status {
            return answer.body;
        }
        assert!(Instant::now() < until, "it is not {status}: {}", answer.body);
        tokio::time::sleep(LOOK).await;
    }
}

/// Publishes an event until the relay accepts it, and returns how long that took. The relay may ask to try again.
async fn accepted(client: &mut Client, event: &Event, secs_max: u64) -> Duration {
    let began = Instant::now();
    loop {
        let answer = client.publish(event).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(secs_max), "{took:?}: {answer:?}");
        if answer.accepted {
            return took;
        }
        assert_eq!(answer.reason, "error: storage unavailable, try again");
        tokio::time::sleep(LOOK).await;
    }
}

/// The value of a metric; 0 if it is not there.
async fn metric(address: SocketAddr, name: &str) -> f64 {
    let page = http(address, "GET /metrics", &[]).await.body;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}
