//! The honest clients: each publishes a message to its group twice a second, and is subscribed to the group.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{sleep_until, timeout_at};

use super::super::load::{Client, frame, group, group_message};

/// Number of clients.
const CLIENTS: usize = 50;
/// Clients of one group.
const GROUP_CLIENTS: usize = 10;
/// Pause between two messages of a client: below the default rate of 50 a minute only over the burst.
const PAUSE: Duration = Duration::from_millis(700);
/// Time after the last message for answers that are late.
const LATE: Duration = Duration::from_secs(5);

/// Looks at the load's own timer in a second.
const LOOKS: u32 = 70;

/// The honest clients, connected.
pub struct Crowd {
    clients: Vec<Option<Client>>,
}

/// The answers that the clients got.
#[derive(Default)]
pub struct Outcome {
    pub to_ok: Vec<Duration>,
    pub to_delivery: Vec<Duration>,
    /// Times by which the load's own timer was late: the part of the others that is not the relay's.
    pub late: Vec<Duration>,
    pub published: usize,
    pub refused: usize,
    pub unanswered: usize,
    pub undelivered: usize,
    pub disconnected: usize,
}

impl Crowd {
    /// Connects each client from an address of its own, and subscribes it to its group.
    pub async fn connect(port: u16) -> Self {
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let address = Ipv4Addr::new(127, 1, 0, 1 + n as u8);
            let mut client = Client::connect_from(address, port).await.expect("an honest client connects");
            let group = group_of(n);
            client.send(&frame(&format!("[\"REQ\",\"live\",{{\"kinds\":[445],\"#h\":[\"{group}\"]}}]"))).await;
            assert!(client.next().await.starts_with(b"[\"EOSE\""));
            clients.push(Some(client));
        }
        Self { clients }
    }

    /// Publishes for `time`, and waits a while for what is late.
    pub async fn measure(&mut self, time: Duration) -> Outcome {
        let sent: RefCell<HashMap<String, Instant>> = RefCell::default();
        let outcome: RefCell<Outcome> = RefCell::default();
        let began = tokio::time::Instant::now();
        let each = self.clients.iter_mut().enumerate().map(|(n, client)| {
            let (sent, outcome) = (&sent, &outcome);
            async move {
                // The clients take turns within the pause.
                let first = began + PAUSE * n as u32 / CLIENTS as u32;
                let Some(open) = client else { return };
                if converse(open, n, first, began + time, sent, outcome).await.is_none() {
                    outcome.borrow_mut().disconnected += 1;
                    *client = None;
                }
            }
        });
        let (_, late) = futures_util::future::join(join_all(each), lateness(began + time)).await;
        let mut outcome = outcome.into_inner();
        outcome.late = late;
        outcome.unanswered = outcome.published - outcome.refused - outcome.to_ok.len();
        outcome.undelivered = (outcome.to_ok.len() * GROUP_CLIENTS).saturating_sub(outcome.to_delivery.len());
        outcome
    }
}

/// Looks [`LOOKS`] times a second how late a timer of this thread is.
async fn lateness(end: tokio::time::Instant) -> Vec<Duration> {
    let mut late = Vec::new();
    let mut at = tokio::time::Instant::now();
    while at < end {
        at += Duration::from_secs(1) / LOOKS;
        sleep_until(at).await;
        late.push(at.elapsed());
    }
    late
}

/// One client's part; `None` when its connection ends.
async fn converse(
    client: &mut Client,
    n: usize,
    first: tokio::time::Instant,
    end: tokio::time::Instant,
    sent: &RefCell<HashMap<String, Instant>>,
    outcome: &RefCell<Outcome>,
) -> Option<()> {
    let group = group_of(n);
    let mut next = first;
    loop {
        let until = if next < end { next } else { end + LATE };
        loop {
            let Ok(message) = timeout_at(until, client.try_next()).await else { break };
            take(&message?, sent, &mut outcome.borrow_mut());
        }
        if until > end {
            return Some(());
        }
        let event = group_message(&group, now());
        let id = id_in(event.as_bytes())?;
        sent.borrow_mut().insert(id, Instant::now());
        outcome.borrow_mut().published += 1;
        client.try_send(&frame(&format!("[\"EVENT\",{event}]"))).await?;
        next += PAUSE;
    }
}

fn take(message: &[u8], sent: &RefCell<HashMap<String, Instant>>, outcome: &mut Outcome) {
    let since = |id: Option<String>| id.and_then(|id| sent.borrow().get(&id).map(Instant::elapsed));
    if message.starts_with(b"[\"OK\"") {
        let id = message.get(7..71).map(|id| String::from_utf8_lossy(id).into_owned());
        if message.windows(6).any(|part| part == b",true,") {
            outcome.to_ok.extend(since(id));
        } else {
            outcome.refused += 1;
        }
    } else if message.starts_with(b"[\"EVENT\"") {
        outcome.to_delivery.extend(since(id_in(message)));
    } else if message.starts_with(b"[\"CLOSED\"") {
        outcome.refused += 1;
    }
}

/// The id of the event in a frame, or in the event's JSON.
fn id_in(json: &[u8]) -> Option<String> {
    let at = json.windows(6).position(|part| part == b"\"id\":\"")? + 6;
    json.get(at..at + 64).map(|id| String::from_utf8_lossy(id).into_owned())
}

fn group_of(client: usize) -> String {
    group(900_000 + client / GROUP_CLIENTS)
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Median and 99th percentile, in milliseconds.
pub fn percentiles(times: &[Duration]) -> [f64; 2] {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |share: f64| {
        let at = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(at).map_or(f64::INFINITY, |time| time.as_secs_f64() * 1e3)
    };
    [at(0.5), at(0.99)]
}
