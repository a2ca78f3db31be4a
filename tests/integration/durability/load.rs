//! Writers that send without waiting for answers.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Event, Keys,
    process::Process,
    wire::{CLOSE, TEXT, Wire},
};

/// Record of a writer.
#[derive(Debug, Default)]
pub struct Load {
    /// Ids in the order in which they were sent.
    pub sent: Vec<String>,
    /// Ids that had their `OK true`.
    pub acked: BTreeSet<String>,
    /// Ids that had `OK false`.
    pub refused: Vec<String>,
    /// The code of the close frame.
    pub close_code: Option<u16>,
}

/// Sends events as fast as the relay takes them, until the connection ends. Counts each `OK true` in `acked`.
pub async fn pump(
    address: SocketAddr,
    by: Option<Keys>,
    mut next: impl FnMut() -> Event + Send + 'static,
    acked: Arc<AtomicUsize>,
) -> Load {
    let mut wire = Wire::connect(address).await;
    if let Some(keys) = &by {
        wire.auth(keys).await;
    }
    let Wire { mut reader, mut writer, .. } = wire;
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        loop {
            let event = next();
            sent.push(event.id().to_owned());
            if writer.message(&json!(["EVENT", event.0])).await.is_err() {
                return sent;
            }
        }
    });
    let mut load = Load::default();
    while let Ok(frame) = reader.frame().await {
        match frame.opcode {
            TEXT => {
                let answer: Value = serde_json::from_slice(&frame.payload).expect("a frame is JSON");
                let id = answer[1].as_str().unwrap_or_default().to_owned();
                if answer[0] == "OK" && answer[2] == true {
                    load.acked.insert(id);
                    acked.fetch_add(1, Ordering::Relaxed);
                } else {
                    load.refused.push(id);
                }
            }
            CLOSE => load.close_code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
            _ => {}
        }
    }
    load.sent = sending.await.expect("the sender does not panic");
    load
}

/// Notes by one new key.
pub fn notes(text: String) -> impl FnMut() -> Event + Send + 'static {
    let keys = Keys::random();
    let mut n = 0_u64;
    move || {
        n += 1;
        keys.event(1).content(format!("{text} {n}")).sign()
    }
}

/// Messages to one new group, each by a new key.
pub fn messages() -> impl FnMut() -> Event + Send + 'static {
    let group = crate::support::gateway::capability();
    move || crate::support::gateway::message(&group).sign()
}

/// Waits until `count` is at least `least`.
pub async fn reaches(count: &AtomicUsize, least: usize) {
    let reached = async {
        while count.load(Ordering::Relaxed) < least {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the relay takes events in time");
}

/// The `ids` that the relay serves to this reader.
pub async fn found<'a>(wire: &mut Wire, ids: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let ids: Vec<&String> = ids.into_iter().collect();
    let mut found = BTreeSet::new();
    for chunk in ids.chunks(500) {
        wire.writer.message(&json!(["REQ", "found", {"ids": chunk}])).await.expect("a message is sent");
        loop {
            let frame = wire.reader.message().await.expect("the relay answers");
            match frame[0].as_str() {
                Some("EVENT") => found.insert(frame[2]["id"].as_str().expect("an id").to_owned()),
                Some("EOSE") => break,
                _ => panic!("expected events: {frame}"),
            };
        }
    }
    found
}

/// A connection to the relay, authenticated with `keys`.
pub async fn reader(process: &Process, keys: &Keys) -> Wire {
    let mut wire = Wire::connect(process.address).await;
    wire.auth(keys).await;
    wire
}
