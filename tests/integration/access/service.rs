//! Access services of the tests: the reference service, and one that answers wrong.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use acl_service::Directory;
use nostr_relay::config::{Config, Secret};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::Keys;

/// The token of the tests' services.
pub const TOKEN: &str = "a token";

/// Has a relay ask the service at this address, and found no group in another way.
pub fn ask(config: &mut Config, address: SocketAddr) {
    let gateway = &mut config.mls_gateway;
    gateway.membership_sources = vec![nostr_extensions::Source::Acl, nostr_extensions::Source::Roster];
    gateway.acl_url = Some(format!("http://{address}"));
    gateway.acl_token = Some(Secret::new(TOKEN.to_owned()));
    gateway.group_cache_ttl_secs = 1;
    gateway.acl_stale_max_secs = 3;
}

/// The reference service on a port of its own, with groups that the test sets.
pub struct Reference {
    pub address: SocketAddr,
    pub directory: Arc<Directory>,
    folder: TempDir,
    groups: Mutex<BTreeMap<String, Value>>,
    serving: JoinHandle<()>,
}

impl Reference {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address")).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("groups.json");
        std::fs::write(&file, "{}").expect("a file");
        let directory = Directory::new(file, Some(TOKEN.to_owned()));
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Arc::clone(&directory).router();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, directory, folder, groups: Mutex::default(), serving }
    }

    /// Sets the members of a group, the first of them as its admin.
    pub fn set(&self, group: &str, members: &[&Keys]) {
        let member =
            |(n, keys): (usize, &&Keys)| json!({"pubkey": keys.hex(), "role": if n == 0 { "admin" } else { "member" }});
        let members: Vec<Value> = members.iter().enumerate().map(member).collect();
        self.change(|groups| drop(groups.insert(group.to_owned(), json!({"members": members}))));
    }

    /// Forgets a group.
    pub fn remove(&self, group: &str) {
        self.change(|groups| drop(groups.remove(group)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Value>)) {
        let mut groups = self.groups.lock().expect("no panic while it is held");
        change(&mut groups);
        // A file that is replaced is never read by half.
        let next = self.folder.path().join("next.json");
        std::fs::write(&next, json!(*groups).to_string()).expect("a file");
        std::fs::rename(next, self.folder.path().join("groups.json")).expect("a file");
    }

    /// Kills the service.
    pub async fn die(self) -> SocketAddr {
        self.serving.abort();
        let _ = self.serving.await;
        self.address
    }
}

/// The answer of a [`Faulty`] service.
#[derive(Clone, Debug)]
pub enum Fault {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing at all.
    Silence,
    /// A good answer, one byte in 100 ms.
    Slow,
    /// A 200 with so many bytes.
    Long(usize),
    /// This answer, so many milliseconds later.
    Late(u64, Box<Fault>),
    /// The first answer about this group, and the second one about any other.
    About(String, Box<(Fault, Fault)>),
    /// The first answer up to so many questions in all, and the second one from then on.
    UpTo(u64, Box<(Fault, Fault)>),
}

impl Fault {
    /// An answer of this status, with these headers and this body.
    pub fn answer(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes())
    }
}

/// A service that answers as the test says, and counts the questions and their tokens.
pub struct Faulty {
    pub address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    questions: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Faulty {
    pub async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (fault, questions) = (Arc::new(Mutex::new(fault)), Arc::<AtomicU64>::default());
        let (given, counted) = (Arc::clone(&fault), Arc::clone(&questions));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (fault, counted) = (given.lock().expect("no panic while it is held").clone(), Arc::clone(&counted));
                tokio::spawn(serve(stream, fault, counted));
            }
        });
        Self { address, fault, questions, serving }
    }

    pub fn now(&self, fault: Fault) {
        *self.fault.lock().expect("no panic while it is held") = fault;
    }

    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::SeqCst)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers one question. An end of the connection by the other side is no fault of the test.
async fn serve(mut stream: TcpStream, fault: Fault, questions: Arc<AtomicU64>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.contains(&format!("authorization: bearer {TOKEN}")), "{head}");
    let mut fault = fault;
    let asked = questions.fetch_add(1, Ordering::SeqCst) + 1;
    loop {
        fault = match fault {
            Fault::About(group, of) if head.starts_with(&format!("get /groups/{group} ")) => of.0,
            Fault::About(_, of) => of.1,
            Fault::UpTo(questions, of) => {
                if asked <= questions {
                    of.0
                } else {
                    of.1
                }
            }
            Fault::Late(after_ms, answer) => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                *answer
            }
            _ => break,
        }
    }
    match fault {
        Fault::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Fault::Silence => tokio::time::sleep(Duration::from_secs(60)).await,
        Fault::Slow => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"members\":[]}" {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Fault::Long(bytes) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{{\"members\":[");
            let _ = stream.write_all(head.as_bytes()).await;
            let spaces = vec![b' '; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                let some = left.min(spaces.len());
                if stream.write_all(&spaces[..some]).await.is_err() {
                    return;
                }
                left -= some;
            }
        }
        Fault::Late(..) | Fault::About(..) | Fault::UpTo(..) => unreachable!("the loop above has chosen"),
    }
}
