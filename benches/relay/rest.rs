//! The REST doors beside the same reads by REQ: requests a second, and the relay's CPU time for one.
//!
//! Each HTTP connection comes from an address of its own, since an address sends 1,200 requests a minute. A GET may
//! repeat its proof, so each URL is signed once, and the relay verifies it at each request.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use nostr_protocol::testing::{EventBuilder, public_key, random_keypair};
use secp256k1::Keypair;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{
    load::{Client, frame},
    process::RelayProcess,
    report::{line, micros, rate},
};

/// Messages of the group.
const MESSAGES: usize = 2_000;
/// Messages of one answer.
const PAGE: usize = 100;
/// KeyPackages of the owner.
const KEY_PACKAGES: usize = 15;
/// Connections, each from an address of its own.
const CONNECTIONS: u8 = 16;
/// Requests of one connection.
const REQUESTS: usize = 500;
/// Claims of one connection.
const CLAIMS: usize = 60;
/// Claims of one owner, as many as one address makes in an hour. Each uses a KeyPackage up, and one more is left.
const CLAIMS_OF_OWNER: usize = 10;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An HTTP connection that is kept.
struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    async fn connect(from: Ipv4Addr, port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a request and reads the answer, which must be 200. Gives the bytes of its body.
    async fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.stream.write_all(request).await.unwrap();
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the relay closed the connection");
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let end = head + length.parse::<usize>().unwrap();
        while self.buffer.len() < end {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the relay closed the connection");
        }
        let body = self.buffer[head..end].to_vec();
        self.buffer.drain(..end);
        body
    }
}

fn request(port: u16, path: &str, keypair: &Keypair) -> Vec<u8> {
    let target = format!("/api/v1/mls{path}");
    let url = format!("http://127.0.0.1:{port}{target}");
    let proof = EventBuilder::new(27235).tag(&["u", &url]).tag(&["method", "GET"]).at(now()).json(keypair);
    let proof = BASE64_STANDARD.encode(proof);
    format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Nostr {proof}\r\n\r\n").into_bytes()
}

/// A claim with a proof of its own: `n` tells it from the others of its second.
fn post(port: u16, body: &str, n: usize, keypair: &Keypair) -> Vec<u8> {
    let target = "/api/v1/mls/keypackages/claim";
    let url = format!("http://127.0.0.1:{port}{target}");
    let digest = nostr_protocol::hex::to_hex(&Sha256::digest(body.as_bytes()));
    let proof = EventBuilder::new(27235).tag(&["u", &url]).tag(&["method", "POST"]).tag(&["payload", &digest]);
    let proof = BASE64_STANDARD.encode(proof.tag(&["n", &n.to_string()]).at(now()).json(keypair));
    format!(
        "POST {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Nostr {proof}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Measures each door, and the REQ that asks for the same.
pub async fn rest() {
    let [admin, member] = [random_keypair(), random_keypair()];
    let relay = RelayProcess::with_gateway(&format!("admin_pubkeys = [\"{}\"]", public_key(&admin).to_hex()));
    fill(&relay, &admin, &member).await;
    let owner = public_key(&member).to_hex();
    let messages = format!("/messages?group=grp&limit={PAGE}");
    // Each door is asked from addresses of its own, which have 1,200 requests a minute.
    for (net, name, path) in [
        (8, "REST group", "/groups/grp".to_owned()),
        (9, "REST messages, 100", messages),
        (10, "REST keypackages, 15", format!("/keypackages?owner={owner}&include=event")),
    ] {
        by_http(&relay, (net, name), &path, &member).await;
    }
    let of_messages = format!("{{\"kinds\":[445],\"#h\":[\"grp\"],\"limit\":{PAGE}}}");
    // No request of the socket shows a group's record. Its roster is the nearest.
    by_req(&relay, "REQ group, its roster", "{\"kinds\":[450],\"#h\":[\"grp\"],\"limit\":1}", &member).await;
    by_req(&relay, "REQ messages, 100", &of_messages, &member).await;
    by_req(&relay, "REQ keypackages, 15", &format!("{{\"kinds\":[443],\"authors\":[\"{owner}\"]}}"), &member).await;
    drop(relay);
    let rates = "claims_per_hour = 0\nclaims_per_address_hour = 0\nclaim_strangers_percent = 100";
    claim_by_http(&RelayProcess::with_gateway(rates)).await;
    claim_by_req(&RelayProcess::with_gateway("keypackage_consumption = \"on_read\"")).await;
}

/// Owners of one KeyPackage more than all connections claim of each.
async fn owners(relay: &RelayProcess) -> Vec<Keypair> {
    let count = (usize::from(CONNECTIONS) * CLAIMS).div_ceil(CLAIMS_OF_OWNER);
    let owners: Vec<Keypair> = (0..count).map(|_| random_keypair()).collect();
    for owner in &owners {
        publish(relay, owner, (0..=CLAIMS_OF_OWNER).map(|n| key_package(n).json(owner)).collect()).await;
    }
    owners
}

/// The owner of each claim of a connection: all connections claim of one owner at one time.
fn owner_of(owners: &[Keypair], connection: usize, claim: usize) -> String {
    let n = (claim * usize::from(CONNECTIONS) + connection) / CLAIMS_OF_OWNER;
    public_key(&owners[n]).to_hex()
}

async fn claim_by_http(relay: &RelayProcess) {
    let owners = owners(relay).await;
    let mut connections = Vec::new();
    for n in 0..CONNECTIONS {
        let reader = random_keypair();
        let body = |claim| format!("{{\"owner\":\"{}\"}}", owner_of(&owners, usize::from(n), claim));
        // Signed before the time is taken, as a REQ needs no signature.
        let requests: Vec<Vec<u8>> = (0..CLAIMS).map(|claim| post(relay.port, &body(claim), claim, &reader)).collect();
        connections.push((Http::connect(Ipv4Addr::new(127, 0, 7, n + 1), relay.port).await, requests));
    }
    let (started, cpu) = (Instant::now(), relay.cpu());
    join_all(connections.iter_mut().map(async |(http, requests)| {
        for request in requests {
            let answer = http.ask(request).await;
            assert!(answer.windows(20).any(|part| part == b"\"last_resort\":false,"), "it was the owner's last");
        }
    }))
    .await;
    told_of("REST claims", usize::from(CONNECTIONS) * CLAIMS, started.elapsed(), relay.cpu() - cpu);
}

async fn claim_by_req(relay: &RelayProcess) {
    let owners = owners(relay).await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect_as(relay.port, &random_keypair()).await);
    }
    let (started, cpu) = (Instant::now(), relay.cpu());
    join_all(clients.iter_mut().enumerate().map(async |(n, client)| {
        for claim in 0..CLAIMS {
            let owner = owner_of(&owners, n, claim);
            client
                .send(&frame(&format!("[\"REQ\",\"q\",{{\"kinds\":[443],\"authors\":[\"{owner}\"],\"limit\":1}}]")))
                .await;
            assert!(client.next().await.starts_with(b"[\"EVENT\""), "nothing was claimed");
            while !client.next().await.starts_with(b"[\"EOSE\"") {}
        }
    }))
    .await;
    told_of("REQ claims", usize::from(CONNECTIONS) * CLAIMS, started.elapsed(), relay.cpu() - cpu);
}

async fn fill(relay: &RelayProcess, admin: &Keypair, member: &Keypair) {
    let roster = EventBuilder::new(450).at(now()).tag(&["h", "grp"]).tag(&["seq", "1"]).tag(&["op", "bootstrap"]);
    publish(relay, admin, vec![roster.tag(&["p", &public_key(member).to_hex()]).json(admin)]).await;
    let author = random_keypair();
    let content = "A".repeat(120);
    let message = |n| EventBuilder::new(445).at(now()).tag(&["h", "grp"]).content(format!("{content}{n}"));
    publish(relay, member, (0..MESSAGES).map(|n| message(n).json(&author)).collect()).await;
    publish(relay, member, (0..KEY_PACKAGES).map(|n| key_package(n).json(member)).collect()).await;
}

fn key_package(n: usize) -> EventBuilder {
    EventBuilder::new(443).at(now()).tag(&["kpr", &format!("kpr{n}")]).content(format!("{n}"))
}

async fn publish(relay: &RelayProcess, by: &Keypair, events: Vec<String>) {
    let mut client = Client::connect_as(relay.port, by).await;
    for event in events {
        client.send(&frame(&format!("[\"EVENT\",{event}]"))).await;
        let answer = client.next().await;
        assert!(answer.windows(6).any(|w| w == b",true,"), "{}", String::from_utf8_lossy(&answer));
    }
}

async fn by_http(relay: &RelayProcess, (net, name): (u8, &str), path: &str, reader: &Keypair) {
    let request = request(relay.port, path, reader);
    let mut connections = Vec::new();
    for n in 1..=CONNECTIONS {
        connections.push(Http::connect(Ipv4Addr::new(127, 0, net, n), relay.port).await);
    }
    let (started, cpu) = (Instant::now(), relay.cpu());
    join_all(connections.iter_mut().map(async |http| {
        for _ in 0..REQUESTS {
            assert!(http.ask(&request).await.len() > 50);
        }
    }))
    .await;
    told(name, started.elapsed(), relay.cpu() - cpu);
}

async fn by_req(relay: &RelayProcess, name: &str, filter: &str, reader: &Keypair) {
    let request = frame(&format!("[\"REQ\",\"q\",{filter}]"));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect_as(relay.port, reader).await);
    }
    let (started, cpu) = (Instant::now(), relay.cpu());
    join_all(clients.iter_mut().map(async |client| {
        for _ in 0..REQUESTS {
            client.send(&request).await;
            while !client.next().await.starts_with(b"[\"EOSE\"") {}
        }
    }))
    .await;
    told(name, started.elapsed(), relay.cpu() - cpu);
}

fn told(name: &str, time: Duration, cpu: Duration) {
    told_of(name, usize::from(CONNECTIONS) * REQUESTS, time, cpu);
}

fn told_of(name: &str, count: usize, time: Duration, cpu: Duration) {
    line(name, &[("rate", rate(count, time)), ("CPU/request", micros(cpu, count))]);
}
