//! The sections that any relay has: server, auth, data, limitation, information, metrics, log.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    thread,
};

use nostr_protocol::{PublicKey, auth::RelayAddress};

use super::network::{Cidr, Origins, RelayUrl};

/// `[server]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Threads of the runtime, at least 1.
    pub workers: usize,
    /// The URL under which clients know this relay.
    pub public_url: Option<RelayUrl>,
    /// Further URLs under which clients know it.
    pub public_url_aliases: Vec<RelayUrl>,
    /// Which web pages may use the relay.
    pub allowed_origins: Origins,
    /// Peers whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// PEM file with the certificate chain; set if and only if `tls_key` is.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// Connections at one time; more are closed at once.
    pub connections_max: usize,
    /// Time for TLS and the HTTP request head of a new connection.
    pub handshake_timeout_secs: u64,
    /// A connection that was silent this long is pinged, and closed when it stays silent as long again.
    pub ping_interval_secs: u64,
    /// Bytes that wait for one slow reader before its subscription ends.
    pub outbox_bytes_max: usize,
    /// Time that a stop gives to what was accepted.
    pub shutdown_timeout_secs: u64,
    /// How long a start waits for the engine under the store.
    pub startup_timeout_secs: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            workers: thread::available_parallelism().map_or(1, usize::from),
            public_url: None,
            public_url_aliases: Vec::new(),
            allowed_origins: Origins::Any,
            trusted_proxies: Vec::new(),
            tls_cert: None,
            tls_key: None,
            connections_max: 100_000,
            handshake_timeout_secs: 10,
            ping_interval_secs: 60,
            outbox_bytes_max: 4 << 20,
            shutdown_timeout_secs: 8,
            startup_timeout_secs: 60,
        }
    }
}

impl Server {
    /// Where to listen.
    #[must_use]
    pub const fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Certificate and key, when the relay speaks TLS itself.
    #[must_use]
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        Some((self.tls_cert.as_deref()?, self.tls_key.as_deref()?))
    }

    /// What `public_url` and its aliases name, for NIP-42, NIP-98 and NIP-62; empty when none is set.
    #[must_use]
    pub fn relay_addresses(&self) -> Vec<RelayAddress> {
        self.public_url.iter().chain(&self.public_url_aliases).map(|url| url.address().clone()).collect()
    }
}

/// `[auth]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    /// Whether nothing but AUTH is answered before AUTH.
    pub enabled: bool,
    /// The residents; empty means that there is no list. Admin keys and the system key are residents unlisted
    /// (see [`super::Config::is_resident`]).
    pub pubkey_whitelist: Vec<PublicKey>,
}

/// `[data]`: the embedded store.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The store's directory; made when it is missing.
    pub path: PathBuf,
    /// When `OK` may go out.
    pub durability: Durability,
    /// With [`Durability::Interval`]: most time between two syncs to disk.
    pub sync_interval_ms: u64,
    /// How far the LMDB map may grow.
    pub map_size_max_mib: u64,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./data"),
            durability: Durability::Commit,
            sync_interval_ms: 200,
            // 1 TiB: address space, not disk. A 32-bit process has neither.
            map_size_max_mib: if cfg!(target_pointer_width = "64") { 1 << 20 } else { 1 << 10 },
        }
    }
}

/// When an event counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before `OK`.
    Commit,
    /// On disk within `sync_interval_ms`; a power cut loses what was acknowledged since.
    Interval,
}

/// `[limitation]`, by NIP-11's names where NIP-11 has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Limitation {
    /// Bytes of one WebSocket message.
    pub max_message_length: usize,
    /// Bytes of one event; at most `max_message_length`.
    pub max_event_length: usize,
    /// Open subscriptions a connection.
    pub max_subscriptions: usize,
    /// Filters a REQ or COUNT.
    pub max_filters: usize,
    /// Events a filter; a larger `limit` is cut.
    pub max_limit: usize,
    /// `limit` of a filter that has none; at most `max_limit`.
    pub default_limit: usize,
    /// Characters of a subscription id.
    pub max_subid_length: usize,
    /// Tags an event.
    pub max_event_tags: usize,
    /// Values in one list of a filter: a tag's, or ids, authors, kinds.
    pub max_tag_values: usize,
    /// Seconds that `created_at` may lie ahead.
    pub created_at_upper_limit_secs: u64,
}

impl Default for Limitation {
    fn default() -> Self {
        Self {
            max_message_length: 512 << 10,
            max_event_length: 256 << 10,
            max_subscriptions: 300,
            max_filters: 100,
            max_limit: 500,
            default_limit: 500,
            max_subid_length: 64,
            max_event_tags: 2_500,
            max_tag_values: 1_000,
            created_at_upper_limit_secs: 900,
        }
    }
}

/// `[information]`, as NIP-11 names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Information {
    /// A short name.
    pub name: String,
    /// What the relay is for.
    pub description: String,
    /// The operator's key.
    pub pubkey: Option<PublicKey>,
    /// The relay's own key (NIP-11 `self`).
    pub self_pubkey: Option<PublicKey>,
    /// Another way to reach the operator, a URI.
    pub contact: Option<String>,
    /// URL of a square picture.
    pub icon: Option<String>,
    /// URL of a wide picture.
    pub banner: Option<String>,
    /// URL of a page.
    pub privacy_policy: Option<String>,
    /// URL of a page.
    pub terms_of_service: Option<String>,
}

impl Default for Information {
    fn default() -> Self {
        Self {
            name: "rnostr".to_owned(),
            description: "A Nostr relay that is also the delivery service for MLS groups and Noise direct messages."
                .to_owned(),
            pubkey: None,
            self_pubkey: None,
            contact: None,
            icon: None,
            banner: None,
            privacy_policy: None,
            terms_of_service: None,
        }
    }
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Bearer token that opens `/metrics` to peers that are not on this machine.
    pub auth: Option<Secret>,
}

/// `[outbound]`. Nothing in it can be switched on in this build; the section keeps its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outbound {
    /// Whether 447s are sent on to their recipients' relays.
    pub enabled: bool,
}

/// What is logged, and how it looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The shape of a line.
    pub format: LogFormat,
    /// A filter in the form of `RUST_LOG`; known to parse.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A token or a URL with a password in it: shown by nothing, read through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the secret, in a time that depends on the lengths alone.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), text.as_bytes());
        ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |found, (a, b)| found | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
