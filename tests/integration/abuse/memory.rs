//! Memory that clients together make grow.

use serde_json::json;

use super::{bounded, served_beside};
use crate::support::{
    process::Process,
    wire::{CLOSE, Wire},
};

/// The least `memory_bytes_max` that can be configured.
const BYTES_MAX: usize = 16 << 20;
/// WebSocket's code for "try again later" (RFC 6455's registry).
const AGAIN: u16 = 1013;

/// Clients at many addresses hold as many filters as one connection may. Those that hold the most are closed with the
/// reason, the small one beside them is served all the while, and what they held is given back.
#[tokio::test]
async fn memory_of_all_clients_is_bounded_and_falls_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes_max = format!("trusted_proxies = [\"127.0.0.0/8\"]\nmemory_bytes_max = {BYTES_MAX}");
    let process = Process::start(directory.path(), &[("server", &bytes_max)]);
    let before = process.memory_kib();
    let attack = async {
        let tags: Vec<String> = (0..1_000).map(|n| format!("{n}")).collect();
        let filters = (0..50).map(|n| json!({"kinds": [5_000 + n], "#t": tags, "limit": 0}).to_string());
        let filters = filters.collect::<Vec<_>>().join(",");
        let mut codes = Vec::new();
        let mut wires = Vec::new();
        for client in 0..12 {
            let address = format!("x-forwarded-for: 192.0.2.{client}\r\n");
            let mut wire = Wire::open(process.address, &address).await.expect("it connects");
            let request = |n: usize| format!("[\"REQ\",\"s{n}\",{filters}]");
            for n in 0..2 {
                if wire.writer.text(&request(n)).await.is_err() {
                    break;
                }
                let frame = wire.reader.frame().await.expect("an answer");
                if frame.opcode == CLOSE {
                    let (code, reason) = frame.payload.split_at(2);
                    codes.push(u16::from_be_bytes([code[0], code[1]]));
                    assert!(String::from_utf8_lossy(reason).contains("short of memory"), "{frame:?}");
                    break;
                }
            }
            wires.push(wire);
        }
        assert!(!codes.is_empty(), "some connection is closed");
        assert!(codes.iter().all(|code| *code == AGAIN), "{codes:?}");
    };
    served_beside(process.address, attack).await;
    bounded(&process, before, (BYTES_MAX >> 20) as u64 * 2);
}
