//! `rnostr sync` from a relay of this program, through a relay without NIP-77, and from relays that lie.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_protocol::{
    hex,
    testing::{EventBuilder, key, keypair},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{
    delete::ids,
    run::{command, rnostr, run, spawn},
    server::Relay,
    sqlite::{events, notes, until_some_are_stored},
};

/// Events of the other relay.
const EVENTS: usize = 5_000;
/// Longest time for which a relay that lies may hold up the command.
const HELD_UP_MAX: Duration = Duration::from_secs(30);

/// A relay that holds these events, without bounds on reading.
fn relay_with(lines: &[String], more: &str) -> Relay {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("events.jsonl"), lines.join("\n")).expect("it is written");
    let said = rnostr(directory.path(), &["import", "--from", "events.jsonl"]).succeeds();
    assert!(said.contains(&format!("  event: {} new\n", lines.len())), "{said}");
    let rates = "[extensions.mls_gateway.rate_limits]\nmax_read_cost_per_minute = 0\n";
    Relay::start_in(directory, "", &format!("{more}\n{rates}"))
}

pub(crate) fn id(json: &str) -> String {
    serde_json::from_str::<Value>(json).expect("JSON")["id"].as_str().expect("an id").to_owned()
}

fn ids_of(lines: &[String]) -> BTreeSet<String> {
    lines.iter().map(|line| id(line)).collect()
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

pub(crate) fn sync(at: &Path, url: &str, words: &[&str]) -> super::run::Ran {
    rnostr(at, &[&["sync", "--from", url], words].concat())
}

/// A filling that is killed goes on where it was, and in the end both relays hold the same events but for protected
/// ones. A further one brings nothing.
#[test]
fn a_filling_that_is_broken_off_goes_on() {
    let mut lines = notes(events(EVENTS));
    let count = lines.len();
    let protected = (0..7).map(|n| EventBuilder::new(1).tag(&["-"]).content(format!("mine {n}")).json(&keypair("p")));
    lines.extend(protected.collect::<Vec<_>>());
    let relay = relay_with(&lines, "");
    let target = empty();
    let at = target.path();
    // This event was deleted here, and does not come back.
    fs::write(at.join("one"), &lines[0]).expect("it is written");
    rnostr(at, &["import", "--from", "one"]).succeeds();
    rnostr(at, &["delete", "--yes", "--filter", &format!(r#"{{"ids":["{}"]}}"#, id(&lines[0]))]).succeeds();

    let begun = Instant::now();
    let mut child = spawn(command(at, &["sync", "--from", &relay.url]).stdout(Stdio::null()).stderr(Stdio::null()));
    until_some_are_stored(at, &mut child, (count * 200) as u64);
    child.kill().and_then(|()| child.wait()).expect("it ends");
    let some = ids(at, &[]).len();
    assert!(some > 0 && some < count - 1, "it was broken off in the middle: {some}");
    let said = sync(at, &relay.url, &[]).succeeds();
    let took = begun.elapsed();
    let came = count - some + 7;
    assert!(said.starts_with(&format!("filled from {} by NIP-77: {came} events came\n", relay.url)), "{said}");
    assert!(said.contains(&format!("  event: {} new, 1 deleted in this store\n", count - some - 1)), "{said}");
    assert!(said.contains("  passed over: 7, protected: its author alone publishes it (NIP-70)\n"), "{said}");
    assert_eq!(ids(at, &[]), ids_of(&lines[1..count]));
    let said = sync(at, &relay.url, &[]).succeeds();
    assert!(said.contains(" by NIP-77: 8 events came\n") && !said.contains(" new"), "{said}");
    println!("{count} events by NIP-77, broken off after {some}: {took:?} in all");
}

/// A filter narrows, and the rules of an import hold: rosters change no group, and events of a group that is managed
/// here are stored for its members.
#[test]
fn a_filter_narrows_and_groups_stay() {
    let by = |kind: u16| EventBuilder::new(kind).at(1_795_000_000);
    let alice = key("alice").to_hex();
    let roster = by(450).tag(&["h", "grp"]).tag(&["seq", "1"]).tag(&["op", "bootstrap"]).tag(&["p", &alice]);
    let lines = [
        by(1).content("one").json(&keypair("alice")),
        by(1).content("two").json(&keypair("bob")),
        by(0).content("{}").json(&keypair("alice")),
        by(7).content("+").json(&keypair("alice")),
    ];
    let relay = relay_with(&lines, "");
    let target = empty();
    let filter = format!(r#"{{"authors":["{alice}"],"kinds":[0,1]}}"#);
    let said = sync(target.path(), &relay.url, &["--filter", &filter]).succeeds();
    assert!(said.contains(": 2 events came\n  event: 2 new\n"), "{said}");
    assert_eq!(ids(target.path(), &[]), [id(&lines[0]), id(&lines[2])].into());

    // A relay that gives a roster to a stranger.
    let roster = roster.json(&keypair("admin"));
    let url = lying(move |text| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        match asked[0].as_str() {
            Some("NEG-OPEN") => vec![json!(["NOTICE", "unknown"]).to_string()],
            Some("REQ") => vec![format!("[\"EVENT\",{},{roster}]", asked[1]), json!(["EOSE", asked[1]]).to_string()],
            _ => Vec::new(),
        }
    });
    let target = empty();
    let said = sync(target.path(), &url, &[]).succeeds();
    assert!(said.contains("passed over: 2, rosters change groups"), "{said}");
    assert_eq!(ids(target.path(), &[]).len(), 0);
}

/// A relay that asks for a key gets the one of the file or of the variable, and no output shows it.
#[test]
fn a_relay_that_asks_for_a_key_gets_it() {
    let lines = notes(30);
    let relay = relay_with(&lines, "[auth]\nenabled = true");
    let secret = hex::to_hex(&keypair("reader").to_secret_bytes());
    let target = empty();
    let at = target.path();
    let error = sync(at, &relay.url, &[]).fails();
    assert!(error.contains("--key-file, or set RNOSTR_KEY"), "{error}");
    fs::write(at.join("wrong.key"), "correct horse").expect("it is written");
    let error = sync(at, &relay.url, &["--key-file", "wrong.key"]).fails();
    assert!(error.contains("no secret key") && !error.contains("horse"), "{error}");
    fs::write(at.join("reader.key"), format!("public_key  aa\nsecret_key  {secret}\n")).expect("it is written");
    let ran = sync(at, &relay.url, &["--key-file", "reader.key"]);
    assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "{}{}", ran.out, ran.err);
    assert!(ran.succeeds().contains("  event: 30 new\n"));
    let other = empty();
    let ran = run(command(other.path(), &["sync", "--from", &relay.url]).env("RNOSTR_KEY", &secret));
    assert!(ran.succeeds().contains("  event: 30 new\n"));
}

#[test]
fn an_impossible_filling_fails_with_its_reason() {
    let target = empty();
    let at = target.path();
    assert!(sync(at, "https://relay.example.com", &[]).fails().contains("write wss://"));
    assert!(sync(at, "ws://127.0.0.1:9", &[]).fails().contains("no WebSocket opens"));
    assert!(sync(at, "ws://127.0.0.1:9", &["--filter", r#"{"limit":3}"#]).fails().contains("leave it out"));
    let relay = Relay::start("", "");
    let words = ["sync", "-c", "relay.toml", "--from", &relay.url];
    assert!(rnostr(relay.directory.path(), &words).fails().contains("is in use by another rnostr"));
}

/// Without NIP-77 the command pages from the newest to the oldest, and goes on behind the page that it had. A second
/// that holds more events than a page is told.
#[test]
fn a_relay_without_nip_77_is_paged_through() {
    let mut lines = notes(2_000);
    let crowd = |n: usize| EventBuilder::new(1).content(format!("crowd {n}")).at(1_794_000_000);
    lines.extend((0..120).map(|n| crowd(n).json(&keypair("crowd"))));
    let relay = relay_with(&lines, "");
    let target = empty();
    let at = target.path();
    let (url, requests) = old_relay(relay.url.clone(), 5, 300);
    let error = sync(at, &url, &[]).fails();
    assert!(error.contains("the same command goes on from here"), "{error}");
    let some = ids(at, &[]).len();
    assert!((1_000..1_600).contains(&some), "{some}");
    assert_eq!(requests.load(Ordering::SeqCst), 6);

    let (again, requests) = old_relay(relay.url.clone(), usize::MAX, 300);
    // The position belongs to the relay's URL.
    let port = |url: &str| url.rsplit(':').next().expect("a port").to_owned();
    assert_ne!(port(&url), port(&again));
    let said = {
        let ran = sync(at, &again, &[]);
        ran.succeeds()
    };
    assert!(said.contains(" page by page: ") && said.contains(" unchanged"), "{said}");
    assert_eq!(ids(at, &[]), ids_of(&lines));
    assert!(requests.load(Ordering::SeqCst) >= 8);

    let other = empty();
    let (url, _) = old_relay(relay.url.clone(), usize::MAX, 100);
    let said = sync(other.path(), &url, &[]).succeeds();
    assert!(said.contains("  1 seconds hold more events than the relay gives at once"), "{said}");
    assert!(ids(other.path(), &[]).len() >= 2_100);
}

/// A run that was broken off between two pages goes on behind the last one.
#[test]
fn paging_goes_on_behind_the_last_page() {
    let lines = notes(1_500);
    let relay = relay_with(&lines, "");
    let target = empty();
    let at = target.path();
    let (url, requests) = old_relay_that_breaks_once(relay.url.clone(), 3, 300);
    sync(at, &url, &[]).fails();
    let some = ids(at, &[]).len();
    assert!((600..1_000).contains(&some), "{some}");
    let said = sync(at, &url, &[]).succeeds();
    let came: usize = said.split(" events came").next().and_then(|it| it.rsplit(' ').next()?.parse().ok()).expect("it");
    assert!(came < 1_500 - some + 50, "only the rest came: {came} after {some}: {said}");
    assert_eq!(ids(at, &[]), ids_of(&lines));
    assert!(requests.load(Ordering::SeqCst) < 16);
}

/// Answers of relays that lie: each ends the command in bounded time or is counted, and nothing of it is stored.
#[test]
fn a_relay_that_lies_gets_nothing_in_and_holds_nobody_up() {
    let note = |text: &str| EventBuilder::new(1).content(text).at(1_795_000_000).json(&keypair("alice"));
    let (wanted, other, forged) = (note("wanted"), note("other"), note("forged").replace("forged", "altered"));
    let mut unsigned: Value = serde_json::from_str(&wanted).expect("JSON");
    unsigned["sig"] = json!("00".repeat(64));
    let filter = format!(r#"{{"ids":["{}"]}}"#, id(&wanted));

    // Events that were not asked for, that were altered, and that carry another's signature.
    let events = [other.clone(), forged, unsigned.to_string(), wanted.clone(), "{}".to_owned()];
    let paged = move |text: &str| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        let mut frames: Vec<String> = Vec::new();
        match asked[0].as_str() {
            Some("NEG-OPEN") => frames.push(json!(["NOTICE", "unknown"]).to_string()),
            Some("REQ") => {
                frames.extend(events.iter().map(|event| format!("[\"EVENT\",{},{event}]", asked[1])));
                frames.extend([json!(["EVENT", "other", 1]).to_string(), "nonsense".to_owned()]);
                frames.push(json!(["EOSE", asked[1]]).to_string());
            }
            _ => {}
        }
        frames
    };
    let target = empty();
    let said = sync(target.path(), &lying(paged), &["--filter", &filter]).succeeds();
    assert!(said.contains("  event: 1 new") && said.contains(", not what was asked for\n"), "{said}");
    assert!(said.contains("  bad lines: "), "{said}");
    assert_eq!(ids(target.path(), &[]), [id(&wanted)].into());

    // An answer without an end, and ids of events that do not exist, again and again.
    let endless = move |text: &str| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        match asked[0].as_str() {
            Some("NEG-OPEN") => vec![json!(["NOTICE", "unknown"]).to_string()],
            Some("REQ") => (0..2_000).map(|_| format!("[\"EVENT\",{},{other}]", asked[1])).collect(),
            _ => Vec::new(),
        }
    };
    let mut number = 0_u64;
    let mut announcing = move |text: &str, count: u64| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        match asked[0].as_str() {
            Some("NEG-OPEN" | "NEG-MSG") => {
                // One range to the end of time, with a list of new ids.
                let mut message = format!("61000002{:02x}{:02x}", 0x80 | count >> 7, count & 0x7f);
                for _ in 0..count {
                    number += 1;
                    message.push_str(&format!("{number:064x}"));
                }
                vec![json!(["NEG-MSG", asked[1], message]).to_string()]
            }
            Some("REQ") => vec![json!(["EOSE", asked[1]]).to_string()],
            _ => Vec::new(),
        }
    };
    let mut also_announcing = announcing;
    let some = move |text: &str| announcing(text, 2_000);
    let many = move |text: &str| also_announcing(text, 6_000);
    // Sets that always differ, so that the comparison has no end.
    let differing = |text: &str| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        let message = format!("61000001{}", "ab".repeat(16));
        match asked[0].as_str() {
            Some("NEG-OPEN" | "NEG-MSG") => vec![json!(["NEG-MSG", asked[1], message]).to_string()],
            _ => Vec::new(),
        }
    };
    let cut = |text: &str| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        if asked[0] == "NEG-OPEN" { vec![json!(["NEG-MSG", asked[1], "6100000281"]).to_string()] } else { Vec::new() }
    };
    let ending = |text: &str| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        let ended = json!(["NEG-ERR", asked[1], "closed: anew"]).to_string();
        if asked[0] == "NEG-OPEN" { vec![ended] } else { Vec::new() }
    };
    let refusing = |text: &str| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        match asked[0].as_str() {
            Some("NEG-OPEN") => vec![json!(["NEG-ERR", asked[1], "blocked: too many"]).to_string()],
            Some("REQ") => vec![json!(["CLOSED", asked[1], "blocked: \u{1b}[31mno"]).to_string()],
            _ => Vec::new(),
        }
    };
    for (url, why) in [
        (lying(endless), "more than it was asked for"),
        (lying(some), ""),
        (lying(many), "announced over 10000 events that it does not give"),
        (lying(differing), "comes to no end within 5000 messages"),
        (lying(cut), "a NEG-MSG that breaks off"),
        (lying(ending), "ends session after session"),
        (lying(refusing), "the relay refuses: blocked: [31mno"),
    ] {
        let (target, begun) = (empty(), Instant::now());
        let ran = sync(target.path(), &url, &[]);
        assert!(begun.elapsed() < HELD_UP_MAX, "{why}: {:?}", begun.elapsed());
        if why.is_empty() {
            // A list of ids ends a session, because the client has nothing to add. The time before and after now have
            // one session each.
            let said = ran.succeeds();
            assert!(said.contains("  announced and not given: 4000\n"), "{said}");
        } else {
            assert!(ran.fails().contains(why), "{why}");
        }
        assert_eq!(ids(target.path(), &[]).len(), 0, "{why}");
    }
}

/// Starts a relay that answers each message as `answer` says. Returns its URL.
pub(crate) fn lying(answer: impl FnMut(&str) -> Vec<String> + Send + Clone + 'static) -> String {
    serving(move |mut socket| {
        let mut answer = answer.clone();
        Box::pin(async move {
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.into_text() else { return };
                if !text.starts_with('[') {
                    continue;
                }
                for frame in answer(&text) {
                    if socket.send(Message::text(frame)).await.is_err() {
                        return;
                    }
                }
            }
        })
    })
}

pub(crate) type Serving = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Serves WebSockets on a free port, in a thread of its own that ends with the process.
pub(crate) fn serving(serve: impl Fn(WebSocketStream<TcpStream>) -> Serving + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                    serve(socket).await;
                }
            }
        });
    });
    format!("ws://{address}")
}

/// A relay that does not know NIP-77, in front of one that does: it gives at most `limit` events for a request, and
/// breaks each connection off at the request behind the first `requests_max`.
fn old_relay(behind: String, requests_max: usize, limit: usize) -> (String, Arc<AtomicUsize>) {
    old(behind, requests_max, limit, false)
}

/// The same, which breaks off once in all.
fn old_relay_that_breaks_once(behind: String, requests_max: usize, limit: usize) -> (String, Arc<AtomicUsize>) {
    old(behind, requests_max, limit, true)
}

fn old(behind: String, requests_max: usize, limit: usize, is_once: bool) -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let url = serving(move |mut client| {
        let (behind, requests) = (behind.clone(), Arc::clone(&counted));
        Box::pin(async move {
            let (mut relay, _) = tokio_tungstenite::connect_async(behind).await.expect("a connection");
            loop {
                tokio::select! {
                    Some(Ok(message)) = client.next() => {
                        let Ok(text) = message.to_text() else { return };
                        let Ok(mut asked) = serde_json::from_str::<Value>(text) else { return };
                        if asked[0] == "NEG-OPEN" {
                            let notice = json!(["NOTICE", "could not parse command"]).to_string();
                            client.send(Message::text(notice)).await.expect("it is sent");
                            continue;
                        }
                        if asked[0] == "REQ" {
                            let before = requests.fetch_add(1, Ordering::SeqCst);
                            if before == requests_max || (before > requests_max && !is_once) {
                                return;
                            }
                            assert_eq!(asked[2]["limit"], 500, "{asked}");
                            asked[2]["limit"] = json!(limit);
                        }
                        relay.send(Message::text(asked.to_string())).await.expect("it is sent");
                    }
                    Some(Ok(message)) = relay.next() => {
                        if client.send(message).await.is_err() {
                            return;
                        }
                    }
                    else => return,
                }
            }
        })
    });
    (url, requests)
}
