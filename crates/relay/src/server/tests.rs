use nostr_store::memory::Memory;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::{Relay, config::Config, rate_limit::ADDRESS_REQUESTS_PER_MINUTE, system::clock::SetClock};

const REQUESTS: u64 = 20;

/// Sends a request through a proxy on this machine. Returns the answer.
async fn forwarded(address: SocketAddr, client: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the relay listens");
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\naccept: application/nostr+json\r\nx-forwarded-for: {client}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("bytes are sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// An address has so many HTTP requests a minute, over one connection that it keeps alive as over many, each of which
/// waits for its payer's share. Then it gets 429 with the seconds, and another address is answered.
#[tokio::test]
async fn http_requests_have_a_rate_by_address() {
    const MORE: usize = 20;
    let mut config = Config::default();
    config.server.port = 0;
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
    let relay = Relay::start(Arc::new(config), Arc::new(Memory::default()), Arc::new(SetClock::at(1_795_370_771)));
    let relay = relay.await.expect("it starts");
    let app = Arc::clone(relay.app());
    let block = AddressBlock::of("192.0.2.7".parse().expect("an address"));
    let busy = app.shares.share(app.limits.payer_hash(Payer::Address(block)));
    let allowed = ADDRESS_REQUESTS_PER_MINUTE as usize;
    let (mut reader, mut writer) = TcpStream::connect(relay.address).await.expect("the relay listens").into_split();
    let sending = tokio::spawn(async move {
        let head = "GET /ready HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.7\r\n\r\n";
        // The relay closes the connection before it has read them all.
        let _ = writer.write_all(head.repeat(allowed + MORE).as_bytes()).await;
        writer
    });
    let mut answers = String::new();
    reader.read_to_string(&mut answers).await.expect("answers, and an end");
    drop(sending.await);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), allowed);
    assert_eq!(answers.matches("HTTP/1.1 429").count(), 1, "the connection ends with the first refusal");
    assert!(answers.contains("retry-after: 1\r\n") && answers.ends_with("too many HTTP requests; retry in 1 s\n"));
    assert!(busy.polls() >= allowed as u64, "{} pieces of work were paid for", busy.polls());
    assert!(forwarded(relay.address, "192.0.2.7").await.starts_with("HTTP/1.1 429"));
    assert!(forwarded(relay.address, "192.0.2.8").await.starts_with("HTTP/1.1 200"));
    drop((busy, app));
    relay.stop().await;
}

/// Behind a trusted proxy each request is paid for by the client that its head names, and no other client waits for it.
#[tokio::test]
async fn a_forwarded_client_pays_for_its_requests() {
    let mut config = Config::default();
    config.server.port = 0;
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
    let relay = Relay::start(Arc::new(config), Arc::new(Memory::default()), Arc::new(SetClock::at(1_795_370_771)));
    let relay = relay.await.expect("it starts");
    let app = Arc::clone(relay.app());
    let share = |address: &str| {
        let block = AddressBlock::of(address.parse().expect("an address"));
        app.shares.share(app.limits.payer_hash(Payer::Address(block)))
    };
    let (busy, quiet) = (share("192.0.2.7"), share("192.0.2.8"));
    for _ in 0..REQUESTS {
        let answer = forwarded(relay.address, "192.0.2.7").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(busy.polls() >= REQUESTS, "{} polls for {REQUESTS} requests", busy.polls());
    assert_eq!(quiet.polls(), 0);
    drop((busy, quiet, app));
    relay.stop().await;
}

/// The system takes at most about [`UNREAD_BYTES_MAX`] of a connection that nobody reads, also where it was read fast
/// before: the system lets a buffer grow with what is read.
#[tokio::test]
async fn the_system_holds_few_bytes_that_nobody_reads() {
    const READ_FIRST: usize = 64 << 20;
    const SENT_AT_ONCE: usize = 64 << 10;
    let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(SENT_AT_ONCE as u32).expect("a size");
    let client = socket.connect(listener.local_addr().expect("an address")).await.expect("it listens");
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let bytes = vec![0; SENT_AT_ONCE];
    let mut client = client;
    let sending = async {
        for _ in 0..READ_FIRST / SENT_AT_ONCE {
            client.write_all(&bytes).await.expect("it is sent")
        }
    };
    let reading = async { stream.read_exact(&mut vec![0; READ_FIRST]).await.map(drop).expect("it is read") };
    tokio::join!(sending, reading);
    let mut taken = 0;
    while let Ok(Ok(sent)) = timeout(Duration::from_millis(500), client.write(&bytes)).await {
        taken += sent;
    }
    // The system counts its own bookkeeping too, and the sender holds some bytes.
    assert!(taken > 0 && taken <= 4 * UNREAD_BYTES_MAX as usize, "{taken} bytes were taken");
}
