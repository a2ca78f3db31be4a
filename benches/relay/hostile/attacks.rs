//! The attacks. Each runs on a thread of its own with thirty connections from one address, sends as fast as the relay
//! reads, and comes back when it is closed.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures_util::future::join_all;
use nostr_protocol::testing::{EventBuilder, public_key, random_keypair};
use secp256k1::Keypair;

use super::super::load::{Client, frame, group};

/// The address that all attacks come from.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);
/// Connections of an attack.
const CONNECTIONS: usize = 30;
/// Pause before an attacker that was closed connects again.
const AGAIN: Duration = Duration::from_millis(20);
/// Letters of a filter or an event that is made to be dear to match.
const LETTERS: &[u8] = b"abcdefgijklmnoqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// An attack by its name.
pub struct Attack {
    pub name: &'static str,
    /// Set where the attack reaches around the relay, to its database.
    pub needs_database: bool,
    /// Notes that the relay holds before.
    pub notes: usize,
    frames: fn(usize) -> Vec<Vec<u8>>,
}

/// The attacks, by the part of the relay that they are aimed at.
pub const ATTACKS: &[Attack] = &[
    Attack::of("filters", filters),
    Attack::of("reads", reads),
    Attack::of("counts", counts),
    Attack::of("malformed", malformed),
    Attack::of("auth", auth),
    Attack::of("routes", routes),
    Attack::of("wraps", wraps),
    Attack::of("tags", tags),
    Attack::of("deletions", deletions),
    Attack { notes: 200_000, ..Attack::of("sync", sync) },
    Attack { needs_database: true, ..Attack::of("notifications", |_| Vec::new()) },
];

/// An attack that runs.
pub struct Assault {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    const fn of(name: &'static str, frames: fn(usize) -> Vec<Vec<u8>>) -> Self {
        Self { name, needs_database: false, notes: 0, frames }
    }

    /// Whether the attack was asked for by name; all are where no attack is named.
    pub fn is_among(&self, wanted: &[String]) -> bool {
        let named = |name: &str| wanted.iter().any(|wanted| wanted == name);
        named(self.name) || !ATTACKS.iter().any(|attack| named(attack.name))
    }

    /// The frames of each connection.
    pub fn prepare(&self) -> Vec<Vec<Vec<u8>>> {
        (0..CONNECTIONS).map(self.frames).collect()
    }

    /// Starts the attack.
    pub fn start(&self, frames: Vec<Vec<Vec<u8>>>, port: u16, database: Option<&str>) -> Assault {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let database = database.filter(|_| self.needs_database).map(str::to_owned);
        let thread = std::thread::spawn(move || {
            give_way();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            match database {
                Some(database) => notify(&database, &stopped, &count),
                None => {
                    let each = frames.into_iter().map(|frames| flood(port, frames, &stopped, &count));
                    runtime.block_on(join_all(each));
                }
            }
        });
        Assault { stop, sent, thread: Some(thread) }
    }
}

impl Assault {
    /// Ends the attack, and gives the number of frames that it sent.
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.sent.load(Ordering::SeqCst)
    }
}

/// Lets the honest clients, which share the core of the load, go first: the system runs this thread only while theirs
/// is idle, as if the attack came from another machine.
fn give_way() {
    let Ok(link) = std::fs::read_link("/proc/thread-self") else { return };
    let Some(id) = link.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { return };
    let _ = std::process::Command::new("chrt").args(["--idle", "--pid", "0", &id]).output();
}

/// Sends frames over one connection, again and again, and reads what comes.
async fn flood(port: u16, frames: Vec<Vec<u8>>, stopped: &AtomicBool, sent: &AtomicUsize) {
    let is_stopped = || stopped.load(Ordering::SeqCst);
    while !is_stopped() {
        let connected = tokio::time::timeout(Duration::from_secs(2), Client::connect_from(ADDRESS, port)).await;
        if let Ok(Some(client)) = connected {
            let (mut reader, mut writer) = client.split();
            let reading = async { while reader.discard().await.is_some() {} };
            let writing = async {
                for frame in frames.iter().cycle() {
                    if is_stopped() || writer.try_send(frame).await.is_none() {
                        break;
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            };
            let until_stopped = async {
                while !is_stopped() {
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                () = reading => {}
                () = writing => {}
                () = until_stopped => {}
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Forged notifications by any role that may connect to the database.
fn notify(database: &str, stopped: &AtomicBool, sent: &AtomicUsize) {
    let sql = "SELECT pg_notify(c, 'forged ' || n) FROM generate_series(1, 2000) n, \
               (SELECT DISTINCT pg_listening_channels() c UNION VALUES ('rnostr'), ('rnostr_peers')) channels";
    while !stopped.load(Ordering::SeqCst) {
        let _ = std::process::Command::new("psql").args([database, "-qAtc", sql]).output();
        sent.fetch_add(2_000, Ordering::Relaxed);
    }
}

/// An event that carries each letter but the last that [`dear_filter`] asks for, and many more tags.
fn dear_event(n: usize, tags: usize, by: &Keypair) -> String {
    let mut event = EventBuilder::new(1).content(n.to_string()).at(now());
    for at in 0..tags {
        let letter = char::from(LETTERS[at % (LETTERS.len() - 1)]).to_string();
        event = event.tag(&[&letter, if at < LETTERS.len() { "x" } else { "y" }]);
    }
    event.json(by)
}

fn dear_filter(n: usize) -> String {
    let letters = LETTERS.iter().map(|letter| format!("\"#{}\":[\"x\"]", char::from(*letter)));
    format!("{{\"kinds\":[1],{},\"since\":{n}}}", letters.collect::<Vec<_>>().join(","))
}

fn publish(event: &str) -> Vec<u8> {
    frame(&format!("[\"EVENT\",{event}]"))
}

/// Filters of fifty letters, and events that meet all conditions but the last.
fn filters(connection: usize) -> Vec<Vec<u8>> {
    let by = random_keypair();
    let many = |from: usize| (from..from + 95).map(dear_filter).collect::<Vec<_>>().join(",");
    let requests = (0..4).map(|n| frame(&format!("[\"REQ\",\"{n}\",{}]", many(n * 95))));
    let events = (0..100).map(|n| publish(&dear_event(connection * 1_000 + n, 2_490, &by)));
    requests.chain(events).collect()
}

/// The same filters, over stored events.
fn reads(connection: usize) -> Vec<Vec<u8>> {
    let by = random_keypair();
    let many = (0..95).map(dear_filter).collect::<Vec<_>>().join(",");
    let mut frames: Vec<Vec<u8>> = (0..4).map(|n| publish(&dear_event(connection * 1_000 + n, 2_490, &by))).collect();
    frames.extend((0..100).map(|n| frame(&format!("[\"REQ\",\"{n}\",{many}]"))));
    frames
}

/// COUNT of sixty thousand values.
fn counts(connection: usize) -> Vec<Vec<u8>> {
    let filter = |n: usize| {
        let values = (0..1_000).map(|value| format!("\"{}\"", group(connection * 100_000 + n * 1_000 + value)));
        format!("{{\"#h\":[{}]}}", values.collect::<Vec<_>>().join(","))
    };
    let filters: Vec<String> = (0..7).map(filter).collect();
    vec![frame(&format!("[\"COUNT\",\"c\",{}]", filters.join(",")))]
}

/// Messages that are no events.
fn malformed(_: usize) -> Vec<Vec<u8>> {
    let long = format!("[\"EVENT\",{{\"content\":\"{}\"}}]", "x".repeat(200_000));
    vec![frame("[\"EVENT\",{}]"), frame("[\"EVENT\",{\"id\":7}]"), frame("nonsense"), frame(&long)]
}

/// Proofs of keys for challenges that nobody gave.
fn auth(_: usize) -> Vec<Vec<u8>> {
    let prove = |n: usize| {
        let proof = EventBuilder::new(22242).tag(&["challenge", &n.to_string()]).tag(&["relay", "ws://127.0.0.1"]);
        frame(&format!("[\"AUTH\",{}]", proof.at(now()).json(&random_keypair())))
    };
    (0..100).map(prove).collect()
}

/// Requests that stand under many routes and replace each other.
fn routes(connection: usize) -> Vec<Vec<u8>> {
    let values = |n: usize| {
        let values = (0..950).map(|value| format!("\"{connection}-{n}-{value}\""));
        format!("{{\"#t\":[{}]}}", values.collect::<Vec<_>>().join(","))
    };
    let request = |turn: usize| {
        let filters: Vec<String> = (0..20).map(|n| values(turn * 20 + n)).collect();
        frame(&format!("[\"REQ\",\"r\",{}]", filters.join(",")))
    };
    (0..2).map(request).collect()
}

/// Gift wraps by throw-away keys that found groups with one recipient.
fn wraps(connection: usize) -> Vec<Vec<u8>> {
    let victim = public_key(&nostr_protocol::testing::keypair("victim")).to_hex();
    let wrap = |n: usize| {
        let name = format!("grp-{connection}-{n}");
        let wrap = EventBuilder::new(1059).tag(&["p", &victim]).tag(&["h", &name]).at(now());
        publish(&wrap.json(&random_keypair()))
    };
    (0..200).map(wrap).collect()
}

/// Events of as many tags as are allowed.
fn tags(connection: usize) -> Vec<Vec<u8>> {
    let by = random_keypair();
    let event = |n: usize| {
        let mut event = EventBuilder::new(1).content(n.to_string()).at(now());
        for at in 0..2_500 {
            event = event.tag(&["t", &format!("{connection}-{n}-{at}")]);
        }
        publish(&event.json(&by))
    };
    (0..100).map(event).collect()
}

/// Deletions of five hundred targets each.
fn deletions(connection: usize) -> Vec<Vec<u8>> {
    let by = random_keypair();
    let deletion = |n: usize| {
        let mut event = EventBuilder::new(5).content(n.to_string()).at(now());
        for at in 0..500 {
            event = event.tag(&["e", &format!("{connection:08x}{n:08x}{at:048x}")]);
        }
        publish(&event.json(&by))
    };
    (0..100).map(deletion).collect()
}

/// Sessions of set reconciliation that are opened and left.
fn sync(_: usize) -> Vec<Vec<u8>> {
    // Version 1, and one range of no fingerprints up to infinity.
    let open = |id: usize| frame(&format!("[\"NEG-OPEN\",\"{id}\",{{\"kinds\":[1]}},\"6100000200\"]"));
    (0..2).map(open).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
