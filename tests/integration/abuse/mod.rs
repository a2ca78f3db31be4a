//! Harmful or broken clients: the relay answers each with a reason or cuts it off, its memory stays bounded, and all
//! other clients are served as before.

mod connections;
mod filters;
mod frames;
mod memory;
mod messages;
mod sessions;
mod slow;
mod values;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    pin::pin,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Keys, process::Process, wire::Wire};

/// Longest time in which another client publishes and reads back, on a busy machine.
const SERVED_MAX: Duration = Duration::from_secs(3);

/// Freed memory in MiB that the allocator may keep.
const ALLOCATOR_MIB: u64 = 24;
/// Longest time after which freed memory is back at the system.
const FREED_MAX: Duration = Duration::from_secs(15);

/// Runs an attack while another client publishes and reads in a loop. Returns the result of the attack.
async fn served_beside<T>(address: SocketAddr, attack: impl Future<Output = T>) -> T {
    let mut attack = pin!(attack);
    let mut other = Wire::connect(address).await;
    loop {
        tokio::select! {
            seen = &mut attack => {
                serve(&mut Wire::connect(address).await).await;
                return seen;
            }
            () = serve(&mut other) => {}
        }
    }
}

/// Publishes an event, reads it back, and ends the subscription.
async fn serve(wire: &mut Wire) {
    let started = Instant::now();
    let event = Keys::random().event(1).content("from someone else").sign();
    let answer = wire.publish(&event).await;
    assert_eq!(answer[2], true, "{answer}");
    wire.writer.message(&json!(["REQ", "mine", {"ids": [event.id()]}])).await.expect("a message is sent");
    let found = wire.reader.message().await.expect("the relay answers");
    assert_eq!(found[2], event.0);
    let eose = wire.reader.message().await.expect("the relay answers");
    assert_eq!(eose, json!(["EOSE", "mine", ["finish"]]));
    wire.writer.message(&json!(["CLOSE", "mine"])).await.expect("a message is sent");
    assert!(started.elapsed() < SERVED_MAX, "another client waits {:?}", started.elapsed());
}

/// Panics if the process's memory has grown by `mib_max` MiB since `before_kib`, beyond the part that its allocator
/// keeps, and stays so: the allocator gives freed memory back after a moment, in threads that have something to do.
#[track_caller]
fn bounded(process: &Process, before_kib: u64, mib_max: u64) {
    let (began, bound) = (Instant::now(), before_kib + (mib_max + ALLOCATOR_MIB) * 1024);
    loop {
        let now = process.memory_kib();
        if now < bound {
            return;
        }
        assert!(began.elapsed() < FREED_MAX, "memory was {before_kib} KiB and is {now} KiB");
        std::thread::sleep(Duration::from_millis(100));
        let mut asking = TcpStream::connect(process.address).expect("it listens");
        asking.write_all(b"GET /health HTTP/1.0\r\n\r\n").expect("it is sent");
        asking.read_to_end(&mut Vec::new()).expect("it answers");
    }
}
