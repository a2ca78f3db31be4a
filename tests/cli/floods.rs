//! Relays that always have a frame ready: no command waits for them longer than for a silent one.

use std::time::{Duration, Instant};

use nostr_protocol::{hex, testing::keypair};
use tokio::io::AsyncWriteExt as _;

use super::{
    run::{command, rnostr, run},
    sync::{serving, sync},
};

/// Time for which a relay sends, if the client stays.
const FLOOD: Duration = Duration::from_secs(40);
/// Time in which a command ends. It is longer than any wait of the commands here.
const ENDS: Duration = Duration::from_secs(25);
/// Frames of one write, so that the client always has one to read.
const FRAMES: usize = 20_000;

/// A message without a meaning, as a relay frames it.
const MESSAGE: &[u8] = b"\x81\x07[\"x\",1]";
const PING: &[u8] = b"\x89\x00";

/// A relay that sends a frame again and again, and closes the connection once the client has sent a message, where it
/// is one that reads.
fn flood(frame: &'static [u8], reads: bool) -> String {
    serving(move |mut socket| {
        Box::pin(async move {
            let (begun, frames) = (Instant::now(), frame.repeat(FRAMES));
            let stream = socket.get_mut();
            while begun.elapsed() < FLOOD && stream.write_all(&frames).await.is_ok() {
                if reads && stream.try_read(&mut [0; 64]).is_ok() {
                    return;
                }
            }
        })
    })
}

#[test]
fn a_flood_of_messages_does_not_hold_up_a_request() {
    let (begun, at) = (Instant::now(), tempfile::tempdir().expect("a directory"));
    let error = rnostr(at.path(), &["req", "--relay", &flood(MESSAGE, false), r#"{"kinds":[1]}"#]).fails();
    assert!(begun.elapsed() < ENDS && error.contains("does not answer within 10 s"), "{:?}: {error}", begun.elapsed());
}

/// The command waits for a challenge for 3 s, and then asks without one.
#[test]
fn a_flood_of_messages_does_not_hold_up_a_filling() {
    let (begun, at) = (Instant::now(), tempfile::tempdir().expect("a directory"));
    let secret = hex::to_hex(&keypair("reader").to_secret_bytes());
    let words = ["sync", "--from", &flood(MESSAGE, true)];
    let error = run(command(at.path(), &words).env("RNOSTR_KEY", &secret)).fails();
    assert!(begun.elapsed() < ENDS, "{:?}: {error}", begun.elapsed());
}

/// A relay that sends pings and reads no answer fills no memory, and is left.
#[test]
fn a_flood_of_pings_ends_the_connection() {
    let at = tempfile::tempdir().expect("a directory");
    let why = "over 1000 frames without a message in a minute";
    let begun = Instant::now();
    let error = sync(at.path(), &flood(PING, false), &[]).fails();
    assert!(begun.elapsed() < ENDS && error.contains(why), "{:?}: {error}", begun.elapsed());
    let begun = Instant::now();
    let error = rnostr(at.path(), &["req", "--relay", &flood(PING, false), r#"{"kinds":[1]}"#]).fails();
    assert!(begun.elapsed() < ENDS && error.contains(why), "{:?}: {error}", begun.elapsed());
}
