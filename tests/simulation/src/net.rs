//! The network between clients and instances: bytes arrive in their order, each piece after a delay of its own. A
//! connection may stand still for a while in one direction, or break in both at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex},
    sync::mpsc,
    time::sleep,
};

use crate::{chance::Chance, seam};

/// Bytes of one direction that wait for their reader.
const BUFFER_BYTES: usize = 64 << 10;
/// Most bytes that travel as one piece.
const PIECE_BYTES_MAX: usize = 8 << 10;

/// Most pieces of one direction that are under way.
const PIECES_MAX: usize = 64;

/// One connection, as the faults see it.
#[derive(Debug, Default)]
pub struct Wire {
    /// Time, in milliseconds since the beginning, up to which nothing that the relay sends arrives.
    pub stalled_until_ms: AtomicU64,
    broken: tokio::sync::Notify,
}

impl Wire {
    /// Breaks the connection: what is under way is lost.
    pub fn cut(&self) {
        // Both directions wait for it, and one that begins to wait later finds the other end gone.
        self.broken.notify_waiters();
    }
}

/// Delays of a connection's pieces, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// The least.
    pub from_ms: u64,
    /// The greatest.
    pub to_ms: u64,
}

/// A new connection: the client's end, the relay's end, and the wire between them.
pub fn connect(delay: Delay, chance: &mut Chance) -> (DuplexStream, DuplexStream, Arc<Wire>) {
    let (client, to_client) = duplex(BUFFER_BYTES);
    let (relay, to_relay) = duplex(BUFFER_BYTES);
    let wire = Arc::<Wire>::default();
    let (client_read, client_write) = tokio::io::split(to_client);
    let (relay_read, relay_write) = tokio::io::split(to_relay);
    let mut source = |name: &str| Chance::new(chance.below(u64::MAX), name);
    tokio::spawn(carry(client_read, relay_write, (delay, source("up")), Arc::clone(&wire), false));
    tokio::spawn(carry(relay_read, client_write, (delay, source("down")), Arc::clone(&wire), true));
    (client, relay, wire)
}

async fn carry(
    from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    (delay, chance): (Delay, Chance),
    wire: Arc<Wire>,
    is_down: bool,
) {
    let (sender, mut arriving) = mpsc::channel(PIECES_MAX);
    let taking = take(from, sender, (delay, chance), Arc::clone(&wire), is_down);
    let giving = async {
        while let Some((due_ms, piece)) = arriving.recv().await {
            sleep(Duration::from_millis(u64::saturating_sub(due_ms, seam::elapsed_ms()))).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = wire.broken.notified() => {}
        ((), ()) = async { tokio::join!(taking, giving) } => {}
    }
    let _ = to.shutdown().await;
}

/// Takes pieces, and says when each arrives: never before the piece that was sent before it.
async fn take(
    mut from: ReadHalf<DuplexStream>,
    sender: mpsc::Sender<(u64, Vec<u8>)>,
    (delay, mut chance): (Delay, Chance),
    wire: Arc<Wire>,
    is_down: bool,
) {
    let mut room = vec![0; PIECE_BYTES_MAX];
    let mut last_due_ms = 0;
    while let Ok(bytes @ 1..) = from.read(&mut room).await {
        let mut due_ms = seam::elapsed_ms() + chance.between(delay.from_ms, delay.to_ms);
        if is_down {
            due_ms = due_ms.max(wire.stalled_until_ms.load(Ordering::Relaxed));
        }
        last_due_ms = due_ms.max(last_due_ms);
        if sender.send((last_due_ms, room[..bytes].to_vec())).await.is_err() {
            return;
        }
    }
}
