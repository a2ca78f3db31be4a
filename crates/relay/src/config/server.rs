//! The sections about the relay as a server: server, auth, data, metrics, outbound.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    thread,
};

use ipnet::IpNet;
use nostr_protocol::{PublicKey, auth::RelayAddress};

use super::{
    memory,
    network::{Origins, RelayUrl, address, address_range, listen_address, origin, otlp_endpoint},
    secret::{Secret, secret},
    section::section,
    value::{log_filter, path, public_key},
};

section! {
    /// Address to listen on, bounds of connections, and logs.
    pub struct Server for "server" in config.server {
        /// The IP address to listen on; `0.0.0.0` or `::` for all.
        host: IpAddr = "127.0.0.1", by parsed(address);
        /// The port to listen on; 0 takes a free one.
        port: u16 = "8080", by integer(0..=65_535);
        /// Threads that serve connections.
        workers: usize = (cores(), "the machine's cores") in "threads", by integer(1..=1_024);
        /// The URL under which clients know this relay, `wss://relay.example.com`. AUTH from other machines needs it.
        public_url: Option<RelayUrl> = "", by optional(RelayUrl::parse);
        /// Further such URLs.
        public_url_aliases: Vec<RelayUrl> = "", by list(RelayUrl::parse);
        /// Web pages that may use the relay, `https://app.example.com`, or applications, `capacitor://localhost`; `*`
        /// for any. The relay's own URLs, and programs that send no origin, need no permission.
        allowed_origins: Origins = "*", by list(origin).map(Origins::from);
        /// Serves the console at `/console`: a page for the keys in `admin_pubkeys` and for admins of groups.
        console: bool = "true", by boolean();
        /// Ranges of the proxies whose X-Forwarded-For is believed, `10.0.0.0/8`. On Cloud Run its front end always is.
        trusted_proxies: Vec<IpNet> = "", by list(address_range);
        /// PEM file with the certificate chain; with it and `tls_key` the relay speaks TLS 1.2 and up. Both files are
        /// read again within a minute of a change, and at SIGHUP.
        tls_cert: Option<PathBuf> = "", by optional(path);
        /// PEM file with the certificate's private key.
        tls_key: Option<PathBuf> = "", by optional(path);
        /// Connections at one time; more are closed at once.
        connections_max: usize = "100000" in "connections", by integer(1..=10_000_000);
        /// Connections of one address at one time, and of a /64 of IPv6; a /48 has four times as many. More are refused
        /// with 429. 0 means no limit.
        connections_per_address_max: u32 = "1000" in "connections", by integer(0..=10_000_000);
        /// New connections of one address in a minute, and at once; a /56 has four times as many, and a /48 sixteen
        /// times. More are refused with 429. 0 means no limit.
        handshakes_per_minute_max: u32 = "1200" in "connections a minute", by integer(0..=1_000_000);
        /// Time for TLS and the HTTP request of a new connection.
        handshake_timeout_secs: u64 = "10" in "s", by integer(1..=300);
        /// Silence after which a connection is pinged; it is closed when it stays silent as long again.
        ping_interval_secs: u64 = "60" in "s", by integer(5..=3_600);
        /// Time for which a connection may last; the relay ends it within the last 5 minutes before, at a moment drawn
        /// by chance and after its answers, so that no front end cuts it off in the midst. Clients come back by
        /// themselves. 0 means no limit. On Cloud Run 3600 is the default, as its longest time-out.
        connection_lifetime_secs: u64 = "0" in "s", by integer(0..=604_800);
        /// Bytes that may wait for a client that reads slowly, before its subscription ends.
        outbox_bytes_max: usize = "4194304" in "bytes", by integer(65_536..=1 << 30);
        /// Memory that clients may make grow, together: what waits for them, their filters, NIP-77 sessions, messages
        /// under way. Above it the connection that holds the most is closed, the newest among equals.
        memory_bytes_max: usize = (memory::quarter(), "a quarter of the cgroup's limit, else of the machine's memory")
            in "bytes", by integer(16 << 20..=1 << 46);
        /// Time that a stop gives to accepted work, before sockets are closed.
        shutdown_timeout_secs: u64 = "8" in "s", by integer(1..=600);
        /// Time for which a start tries to reach the database before it gives up.
        startup_timeout_secs: u64 = "60" in "s", by integer(0..=3_600);
        /// File with the number of the process, for `rnostr reload`. The relay holds it locked while it runs.
        pid_file: Option<PathBuf> = (None, "`rnostr.pid` in `data.path` with the embedded store, else none"),
            by optional(path);
        /// Shape of log lines: `text` for a terminal, `json` for one object a line. On Cloud Run `json` is the default.
        log_format: LogFormat = "text", by one_of(&[("json", LogFormat::Json), ("text", LogFormat::Text)]);
        /// Logged levels: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,nostr_relay=debug`.
        log_level: String = "info", by parsed(log_filter);
        /// Time from which on an event or a request is logged as slow, with its plan and without its content; 0: none.
        slow_request_ms: u64 = "1000" in "ms", by integer(0..=3_600_000);
        /// URL of a collector that takes traces by OTLP over gRPC, `http://127.0.0.1:4317` (in a build with
        /// `--features otlp`).
        otlp_endpoint: Option<String> = "", by optional(otlp_endpoint);
    }
}

section! {
    /// Authentication, and the list of residents.
    pub struct Auth for "auth" in config.auth {
        /// Refuses everything but AUTH until a connection has authenticated.
        enabled: bool = "false", by boolean();
        /// Time after a client connected for which a message that lacks nothing but a key waits for its AUTH; 0: none.
        grace_ms as "auth_grace_ms": u64 = "700" in "ms", by integer(0..=10_000);
        /// The residents, hex or `npub`; empty: no list. Admin keys and the system key are residents without being
        /// listed.
        pubkey_whitelist: Vec<PublicKey> = "", by list(public_key);
    }
}

section! {
    /// The embedded store.
    pub struct Data for "data" in config.data {
        /// Directory of the store, relative to the one in which the relay was started; made when missing.
        path: PathBuf = "./data", by parsed(path);
        /// Durability at an event's `OK`: with `commit` the event is on disk; with `interval` a power cut loses the
        /// events since the last sync.
        durability: Durability = "commit",
            by one_of(&[("commit", Durability::Commit), ("interval", Durability::Interval)]);
        /// Longest time between two syncs with `interval`.
        sync_interval_ms: u64 = "200" in "ms", by integer(1..=60_000);
        /// Size up to which the store may grow; it takes address space at once, and disk as it fills.
        map_size_max_mib: u64 = (map_size_max_mib(), "1048576; 1024 on 32 bit") in "MiB", by integer(16..=1 << 26);
    }
}

section! {
    /// Access to `/metrics`.
    pub struct Metrics for "metrics" in config.metrics {
        /// Bearer token that opens `/metrics` to other machines; this machine needs none.
        auth: Option<Secret> = "", by optional(secret);
        /// Address of a port that has `/metrics` alone, `127.0.0.1:9100`; the relay's own port has none then. It speaks
        /// HTTP without TLS, and asks other machines for the token as well.
        listen: Option<SocketAddr> = "", by optional(listen_address);
    }
}

section! {
    /// Sending to other relays.
    pub struct Outbound for "outbound" in config.outbound {
        /// Sends the relay's KeyPackage requests on to their recipients' relays: those of 10050, else the read relays
        /// of
        /// 10002.
        enabled: bool = "false", by boolean();
        /// Connects to loopback and private addresses too, which a client's list may name.
        allow_private: bool = "false", by boolean();
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// 1 TiB of address space, not of disk; a 32-bit process has less.
const fn map_size_max_mib() -> u64 {
    if cfg!(target_pointer_width = "64") { 1 << 20 } else { 1 << 10 }
}

impl Server {
    /// The socket address to listen on.
    #[must_use]
    pub const fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Certificate and key, when the relay speaks TLS itself.
    #[must_use]
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        Some((self.tls_cert.as_deref()?, self.tls_key.as_deref()?))
    }

    /// Addresses in `public_url` and its aliases, for NIP-42, NIP-98 and NIP-62; empty when none is set.
    #[must_use]
    pub fn relay_addresses(&self) -> Vec<RelayAddress> {
        self.public_url.iter().chain(&self.public_url_aliases).map(|url| url.address().clone()).collect()
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// The time at which an event counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before `OK`.
    Commit,
    /// On disk within `sync_interval_ms`; a power cut loses the events acknowledged since the last sync.
    Interval,
}
