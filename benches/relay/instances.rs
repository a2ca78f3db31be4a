//! Two relays over one database: the time a message takes from a publisher on one of them to a subscriber on the other.
//! PostgreSQL runs with fsync on; the Firestore emulator answers more slowly than Firestore does.

use std::time::{Duration, Instant};

use rnostr_test_services as services;

use super::{
    load::{Client, frame, group, group_message},
    process::RelayProcess,
    report::{line, percentiles},
};

/// Number of messages measured; few enough that no relay sends a ping in between.
const MESSAGES: usize = 500;

/// Measures each shared store whose database this machine has.
pub async fn latency() {
    if services::require(services::Postgres::available()).is_some() {
        let server = services::Postgres::start(services::Options::durable());
        let store = |database: String| format!("storage_backend = \"cloudsql\"\ndatabase_url = \"{database}\"\n");
        measure("PostgreSQL", &store(server.create_database()), None).await;
        if services::require(services::Redis::available()).is_some() {
            let redis = services::Redis::start();
            let wake = format!("wake = \"redis\"\nredis_url = \"{}\"\n", redis.url());
            measure("PostgreSQL, woken by Redis", &(store(server.create_database()) + &wake), None).await;
        }
    }
    #[cfg(feature = "mls_gateway_firestore")]
    if services::require(services::FirestoreEmulator::available()).is_some() {
        let emulator = services::FirestoreEmulator::start();
        let store = format!("storage_backend = \"firestore\"\nproject_id = \"{}\"\n", emulator.project());
        measure("Firestore's emulator", &store, Some(("FIRESTORE_EMULATOR_HOST", &emulator.host()))).await;
    }
}

async fn measure(name: &str, gateway: &str, variable: Option<(&str, &str)>) {
    let [from, to] = [0, 1].map(|_| RelayProcess::over_shared(gateway, variable));
    let group = group(7);
    let mut reader = Client::connect(to.port).await;
    reader.send(&frame(&format!("[\"REQ\",\"live\",{{\"kinds\":[445],\"#h\":[\"{group}\"]}}]"))).await;
    assert!(reader.next().await.starts_with(b"[\"EOSE\""));
    let mut writer = Client::connect(from.port).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut times = Vec::new();
    for n in 0..MESSAGES {
        let message = frame(&format!("[\"EVENT\",{}]", group_message(&group, now - n as u64)));
        let started = Instant::now();
        writer.send(&message).await;
        let delivered = reader.next().await;
        times.push(started.elapsed());
        assert!(delivered.starts_with(b"[\"EVENT\""), "{}", String::from_utf8_lossy(&delivered));
        let answer = writer.next().await;
        assert!(answer.windows(6).any(|part| part == b",true,"), "{}", String::from_utf8_lossy(&answer));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    line(&format!("to another relay, {name}"), &percentiles(times));
}
