//! WebSocket frames that are too large, broken, or too many.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::{bounded, served_beside};
use crate::support::{
    Keys,
    process::Process,
    wire::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, Wire, frame, head},
};

const MIB: usize = 1 << 20;
/// The message limit of the default configuration.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

fn start() -> (TempDir, Process) {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    (directory, process)
}

/// Sends the bytes of `next` until it ends or the relay takes no more. Returns the relay's close code.
async fn close_code_after(wire: Wire, mut next: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<u16> {
    let Wire { mut reader, mut writer, .. } = wire;
    let sending = async {
        let mut n = 0;
        while let Some(bytes) = next(n) {
            if writer.raw(&bytes).await.is_err() {
                break;
            }
            n += 1;
        }
        // The sending half stays open until the close code has arrived.
        writer
    };
    let (_writer, code) = tokio::join!(sending, reader.close_code());
    code
}

/// A frame of 64 MiB is refused with 1009 as soon as its head is read; the relay does not buffer it.
#[tokio::test]
async fn a_frame_of_64_mib_is_closed_with_1009() {
    let (_directory, process) = start();
    let before = process.memory_kib();
    let attack = async {
        let wire = Wire::connect(process.address).await;
        let chunk = vec![b'['; MIB];
        close_code_after(wire, |n| match n {
            0 => Some(head(FIN | TEXT, 64 << 20)),
            1..=64 => Some(chunk.clone()),
            _ => None,
        })
        .await
    };
    assert_eq!(served_beside(process.address, attack).await, Some(1009));
    bounded(&process, before, 16);
}

/// Frames whose heads claim 1 TiB and more are closed with 1009.
#[tokio::test]
async fn a_frame_of_impossible_length_is_closed_with_1009() {
    let (_directory, process) = start();
    for bytes in [1 << 63, u64::MAX, 1 << 40] {
        let wire = Wire::connect(process.address).await;
        let code = close_code_after(wire, |n| (n == 0).then(|| head(FIN | TEXT, bytes))).await;
        assert_eq!(code, Some(1009), "{bytes}");
    }
}

/// A message of 64 MiB in fragments of 4 KiB is closed with 1009 at the message limit.
#[tokio::test]
async fn small_fragments_of_a_large_message_are_closed_with_1009() {
    let (_directory, process) = start();
    let before = process.memory_kib();
    let attack = async {
        let wire = Wire::connect(process.address).await;
        let (first, more) = (frame(TEXT, &[b'['; 4096]), frame(CONTINUATION, &[b'['; 4096]));
        close_code_after(wire, |n| match n {
            0 => Some(first.clone()),
            1..=16_384 => Some(more.clone()),
            _ => None,
        })
        .await
    };
    assert_eq!(served_beside(process.address, attack).await, Some(1009));
    bounded(&process, before, 16);
}

/// A million empty fragments cost no memory, and the message that they belong to is answered.
#[tokio::test]
async fn a_million_empty_fragments_cost_no_memory() {
    let (_directory, process) = start();
    let before = process.memory_kib();
    let attack = async {
        let mut wire = Wire::connect(process.address).await;
        wire.writer.raw(&frame(TEXT, b"[\"COUNT\",\"c\",")).await.expect("bytes are sent");
        let empty = frame(CONTINUATION, b"").repeat(10_000);
        for _ in 0..100 {
            wire.writer.raw(&empty).await.expect("bytes are sent");
        }
        wire.writer.raw(&frame(FIN | CONTINUATION, b"{\"ids\":[]}]")).await.expect("bytes are sent");
        wire.reader.message().await.expect("the relay answers")
    };
    assert_eq!(served_beside(process.address, attack).await, json!(["COUNT", "c", {"count": 0}]));
    bounded(&process, before, 8);
}

/// A message at the limit is read; a message one byte longer is not.
#[tokio::test]
async fn the_message_limit_is_exact() {
    let (_directory, process) = start();
    let text = |bytes: usize| {
        let mut text = String::from("[\"CLOSE\",\"");
        text.push_str(&"x".repeat(bytes - text.len() - 2));
        text + "\"]"
    };
    let mut wire = Wire::connect(process.address).await;
    wire.writer.text(&text(MESSAGE_BYTES_MAX)).await.expect("a message is sent");
    assert_eq!(wire.ask(r#"["COUNT","c",{"ids":[]}]"#).await[0], "COUNT");
    wire.writer.text(&text(MESSAGE_BYTES_MAX + 1)).await.expect("a message is sent");
    assert_eq!(wire.reader.close_code().await, Some(1009));
}

/// Compressed messages of a few KB and of 400 KB that inflate to 2 MiB and 64 MiB are closed with 1009 at the message
/// limit.
#[tokio::test]
async fn a_compressed_bomb_is_closed_with_1009() {
    let (_directory, process) = start();
    let before = process.memory_kib();
    for bytes in [2 * MIB, 64 * MIB] {
        let bomb = bomb(bytes);
        assert!(bomb.len() < MESSAGE_BYTES_MAX && bomb.len() * 100 < bytes);
        let attack = async {
            let wire = Wire::compressed(process.address).await;
            close_code_after(wire, |n| (n == 0).then(|| frame(FIN | TEXT | RSV1, &bomb))).await
        };
        assert_eq!(served_beside(process.address, attack).await, Some(1009));
        // The same message in fragments.
        let attack = async {
            let wire = Wire::compressed(process.address).await;
            let chunks: Vec<&[u8]> = bomb.chunks(1024).collect();
            close_code_after(wire, |n| {
                let first = if n == 0 { TEXT | RSV1 } else { CONTINUATION };
                chunks.get(n).map(|chunk| frame(first, chunk))
            })
            .await
        };
        assert_eq!(served_beside(process.address, attack).await, Some(1009));
    }
    bounded(&process, before, 16);
}

/// Valid compression is read; bytes that are no DEFLATE stream end the connection with a close code.
#[tokio::test]
async fn broken_compression_is_closed() {
    let (_directory, process) = start();
    let mut wire = Wire::compressed(process.address).await;
    let honest = stored(br#"["COUNT","c",{"ids":[]}]"#);
    wire.writer.raw(&frame(FIN | TEXT | RSV1, &honest)).await.expect("bytes are sent");
    assert_eq!(wire.reader.message().await.expect("the relay answers")[0], "COUNT");
    wire.writer.raw(&frame(FIN | TEXT | RSV1, &[0xff; 64])).await.expect("bytes are sent");
    assert!(wire.reader.close_code().await.is_some());
    // This connection never agreed on compression.
    let mut wire = Wire::connect(process.address).await;
    wire.writer.raw(&frame(FIN | TEXT | RSV1, &honest)).await.expect("bytes are sent");
    assert_eq!(wire.reader.close_code().await, Some(1002));
}

/// Text that is not UTF-8 is closed with 1007, also where it breaks between fragments.
#[tokio::test]
async fn invalid_utf8_is_closed_with_1007() {
    let (_directory, process) = start();
    let invalid: [&[u8]; 4] = [b"\xff", b"[\"CLOSE\",\"\xc3\x28\"]", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"];
    for bytes in invalid {
        let wire = Wire::connect(process.address).await;
        let code = close_code_after(wire, |n| (n == 0).then(|| frame(FIN | TEXT, bytes))).await;
        assert_eq!(code, Some(1007), "{bytes:x?}");
    }
    let wire = Wire::connect(process.address).await;
    let parts = [frame(TEXT, b"[\"CLOSE\",\"\xc3"), frame(FIN | CONTINUATION, b"\x28\"]")];
    assert_eq!(close_code_after(wire, |n| parts.get(n).cloned()).await, Some(1007));
    // A character that is split between two fragments is whole in the message.
    let mut wire = Wire::connect(process.address).await;
    wire.writer.raw(&frame(TEXT, b"[\"COUNT\",\"\xc3")).await.expect("bytes are sent");
    wire.writer.raw(&frame(FIN | CONTINUATION, b"\xa9\",{\"ids\":[]}]")).await.expect("bytes are sent");
    assert_eq!(wire.reader.message().await.expect("the relay answers")[1], "é");
}

/// Binary messages are closed with 1003.
#[tokio::test]
async fn binary_messages_are_closed_with_1003() {
    let (_directory, process) = start();
    let wire = Wire::connect(process.address).await;
    let code = close_code_after(wire, |n| (n == 0).then(|| frame(FIN | BINARY, b"[\"CLOSE\",\"a\"]"))).await;
    assert_eq!(code, Some(1003));
}

/// Violations of RFC 6455 are closed with 1002 (an unknown opcode with 1003), and nothing follows the close frame.
#[tokio::test]
async fn broken_frames_are_closed_with_1002() {
    let (_directory, process) = start();
    let broken: [(&str, Vec<u8>); 9] = [
        ("not masked", vec![FIN | TEXT, 2, b'[', b']']),
        ("reserved bit", frame(FIN | TEXT | 0x20, b"[]")),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"[]")),
        ("fragmented ping", frame(PING, b"")),
        ("ping over 125 bytes", frame(FIN | PING, &[0; 126])),
        ("message within a message", [frame(TEXT, b"["), frame(FIN | TEXT, b"[]")].concat()),
        ("close of one byte", frame(FIN | CLOSE, &[3])),
        ("close with a code that is not sent", frame(FIN | CLOSE, &1005_u16.to_be_bytes())),
        ("unknown opcode", frame(FIN | 0x3, b"")),
    ];
    for (what, bytes) in broken {
        let mut wire = Wire::connect(process.address).await;
        wire.writer.raw(&bytes).await.expect("bytes are sent");
        let expected = if what == "unknown opcode" { 1003 } else { 1002 };
        assert_eq!(wire.reader.close_code().await, Some(expected), "{what}");
        assert!(wire.reader.is_at_end().await, "{what}: nothing follows the close frame");
    }
}

/// A client that is closed for a violation, and goes on sending, still gets every earlier frame and the close code.
#[tokio::test]
async fn what_was_sent_before_a_close_is_not_lost() {
    let (_directory, process) = start();
    let keys = Keys::random();
    let mut writer = Wire::connect(process.address).await;
    for n in 0..6 {
        let event = keys.event(1).content(format!("{n}{}", "x".repeat(200_000))).sign();
        assert_eq!(writer.publish(&event).await[2], true);
    }
    let mut wire = Wire::connect(process.address).await;
    wire.writer.message(&json!(["REQ", "r", {"authors": [keys.hex()]}])).await.expect("a message is sent");
    wire.writer.raw(&head(FIN | TEXT, 64 << 20)).await.expect("bytes are sent");
    wire.writer.raw(&vec![b'['; 100_000]).await.expect("bytes are sent");
    // The client starts to read long after the relay has closed its side.
    tokio::time::sleep(Duration::from_millis(700)).await;
    for _ in 0..6 {
        assert_eq!(wire.reader.message().await.expect("an event")[0], "EVENT");
    }
    assert_eq!(wire.reader.message().await.expect("an answer")[0], "EOSE");
    assert_eq!(wire.reader.close_code().await, Some(1009));
}

/// A close frame is answered with its code before the connection ends, and events published before it are stored.
#[tokio::test]
async fn a_close_frame_is_answered() {
    let (_directory, process) = start();
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut wire = Wire::connect(process.address).await;
        wire.writer.raw(&frame(FIN | CLOSE, &code.to_be_bytes())).await.expect("bytes are sent");
        assert_eq!(wire.reader.close_code().await, Some(code));
        assert!(wire.reader.is_at_end().await);
    }
    let mut wire = Wire::connect(process.address).await;
    let event = Keys::random().event(1).sign();
    wire.writer.message(&json!(["EVENT", event.0])).await.expect("a message is sent");
    wire.writer.raw(&frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await.expect("bytes are sent");
    assert_eq!(wire.reader.close_code().await, Some(1000));
    let stored = async {
        let filter = json!(["COUNT", "c", {"ids": [event.id()]}]).to_string();
        let mut wire = Wire::connect(process.address).await;
        while wire.ask(&filter).await[2]["count"] != 1 {}
    };
    tokio::time::timeout(Duration::from_secs(5), stored).await.expect("the event is stored");
}

/// Each ping is answered with its payload, in the middle of a fragmented message as well.
#[tokio::test]
async fn pings_are_answered() {
    let (_directory, process) = start();
    let mut wire = Wire::connect(process.address).await;
    wire.writer.raw(&frame(TEXT, b"[\"COUNT\",\"c\",")).await.expect("bytes are sent");
    for payload in [&b""[..], b"\0\xff", &[7; 125]] {
        wire.writer.raw(&frame(FIN | PING, payload)).await.expect("bytes are sent");
        let pong = wire.reader.frame().await.expect("a pong");
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, payload));
    }
    wire.writer.raw(&frame(FIN | PONG, b"unasked")).await.expect("bytes are sent");
    wire.writer.raw(&frame(FIN | CONTINUATION, b"{\"ids\":[]}]")).await.expect("bytes are sent");
    assert_eq!(wire.reader.message().await.expect("the relay answers")[0], "COUNT");
}

/// The relay stops reading from a client that sends endless pings and reads no pong, so no pongs pile up.
#[tokio::test]
async fn pongs_that_nobody_reads_do_not_pile_up() {
    let (_directory, process) = start();
    let before = process.memory_kib();
    let attack = async {
        let mut wire = Wire::connect(process.address).await;
        let pings = frame(FIN | PING, &[7; 125]).repeat(1_000);
        for _ in 0..400 {
            // 50 MB in total, or as much as the relay takes.
            let sent = tokio::time::timeout(Duration::from_millis(500), wire.writer.raw(&pings)).await;
            if !matches!(sent, Ok(Ok(()))) {
                break;
            }
        }
        wire
    };
    let _wire = served_beside(process.address, attack).await;
    bounded(&process, before, 12);
}

/// A compressed message that inflates to `bytes` times "a": a literal, then matches of 258 bytes at distance 1, in the
/// fixed code of DEFLATE (RFC 1951, 3.2.6).
pub(super) fn bomb(bytes: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0b010, 3);
    bits.put_code(0x30 + u32::from(b'a'), 8);
    for _ in 0..bytes / 258 {
        bits.put_code(0b1100_0101, 8);
        bits.put_code(0, 5);
    }
    bits.put_code(0, 7);
    // Head of the empty stored block whose remaining bytes RFC 7692 leaves out.
    bits.put(0, 3);
    bits.bytes
}

/// A compressed message that holds `text` in a stored block.
fn stored(text: &[u8]) -> Vec<u8> {
    let bytes = text.len() as u16;
    [&[0][..], &bytes.to_le_bytes(), &(!bytes).to_le_bytes(), text, &[0]].concat()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// Appends the lowest bit first.
    fn put(&mut self, value: u32, bits: u32) {
        for at in 0..bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("one was pushed");
            *last |= ((value >> at & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
    }

    /// Appends the highest bit first, the order of Huffman codes.
    fn put_code(&mut self, code: u32, bits: u32) {
        (0..bits).rev().for_each(|at| self.put(code >> at & 1, 1));
    }
}
