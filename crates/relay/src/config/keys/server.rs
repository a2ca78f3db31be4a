//! `[server]`, `[auth]`, `[data]`, `[metrics]`, `[outbound]`.

use std::path::PathBuf;

use super::{
    super::{
        network::{Cidr, Origins, RelayUrl, origin},
        server::{Durability, LogFormat},
        value::{Problem, address, log_filter, one_of, public_key, secret},
    },
    Key, key, put,
};

fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

fn range(text: &str) -> Result<Cidr, String> {
    Cidr::parse(text).ok_or_else(|| "not a range of addresses; write 10.0.0.0/8, fd00::/8 or one address".to_owned())
}

pub(super) const SERVER: &[Key] = &[
    key("host", "127.0.0.1", "", "The IP address to listen on; `0.0.0.0` or `::` for all.", |c, v| {
        put(&mut c.server.host, v.parsed(address))
    }),
    key("port", "8080", "", "The port to listen on; 0 takes a free one.", |c, v| {
        put(&mut c.server.port, v.integer(0..=65_535))
    }),
    key("workers", "(the machine's cores)", "threads", "Threads that serve connections.", |c, v| {
        put(&mut c.server.workers, v.integer(1..=1_024))
    }),
    key(
        "public_url",
        "",
        "",
        "The URL under which clients know this relay, `wss://relay.example.com`. AUTH from other machines needs it.",
        |c, v| put(&mut c.server.public_url, v.optional(RelayUrl::parse)),
    ),
    key("public_url_aliases", "", "", "Further such URLs.", |c, v| {
        put(&mut c.server.public_url_aliases, v.list(RelayUrl::parse))
    }),
    key(
        "allowed_origins",
        "*",
        "",
        "Web pages that may use the relay, `https://app.example.com`; `*` for any. Programs that are no browser always may.",
        |c, v| put(&mut c.server.allowed_origins, v.list(origin).map(Origins::from)),
    ),
    key(
        "trusted_proxies",
        "",
        "",
        "Ranges of the proxies whose X-Forwarded-For is believed, `10.0.0.0/8`. On Cloud Run its front end always is.",
        |c, v| put(&mut c.server.trusted_proxies, v.list(range)),
    ),
    key("tls_cert", "", "", "PEM file with the certificate chain; TLS 1.2 and up is spoken when it is set.", |c, v| {
        put(&mut c.server.tls_cert, v.optional(path))
    }),
    key("tls_key", "", "", "PEM file with the certificate's private key.", |c, v| {
        put(&mut c.server.tls_key, v.optional(path))
    }),
    key("connections_max", "100000", "connections", "Connections at one time; more are closed at once.", |c, v| {
        put(&mut c.server.connections_max, v.integer(1..=10_000_000))
    }),
    key("handshake_timeout_secs", "10", "s", "Time for TLS and the HTTP request of a new connection.", |c, v| {
        put(&mut c.server.handshake_timeout_secs, v.integer(1..=300))
    }),
    key(
        "ping_interval_secs",
        "60",
        "s",
        "A connection that was silent this long is pinged, and closed when it stays silent as long again.",
        |c, v| put(&mut c.server.ping_interval_secs, v.integer(5..=3_600)),
    ),
    key(
        "outbox_bytes_max",
        "4194304",
        "bytes",
        "What may wait for a client that reads slowly, before its subscription ends.",
        |c, v| put(&mut c.server.outbox_bytes_max, v.integer(65_536..=1 << 30)),
    ),
    key(
        "shutdown_timeout_secs",
        "8",
        "s",
        "Time that a stop gives to what was accepted, before sockets are closed.",
        |c, v| put(&mut c.server.shutdown_timeout_secs, v.integer(1..=600)),
    ),
    key(
        "startup_timeout_secs",
        "60",
        "s",
        "How long a start tries to reach the database before it gives up.",
        |c, v| put(&mut c.server.startup_timeout_secs, v.integer(0..=3_600)),
    ),
    key(
        "log_format",
        "text",
        "",
        "`text` for a terminal, `json` for one object a line. On Cloud Run `json` is the default.",
        |c, v| {
            let known = [("json", LogFormat::Json), ("text", LogFormat::Text)];
            put(&mut c.log.format, v.parsed(|text| one_of(text, &known)))
        },
    ),
    key(
        "log_level",
        "info",
        "",
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,nostr_relay=debug`.",
        |c, v| put(&mut c.log.filter, v.parsed(log_filter)),
    ),
];

pub(super) const AUTH: &[Key] = &[
    key("enabled", "false", "", "Whether nothing but AUTH is answered before AUTH.", |c, v| {
        put(&mut c.auth.enabled, v.boolean())
    }),
    key(
        "pubkey_whitelist",
        "",
        "",
        "The residents, hex or `npub`; empty: no list. Admin keys and the system key are residents without being listed.",
        |c, v| put(&mut c.auth.pubkey_whitelist, v.list(public_key)),
    ),
];

pub(super) const DATA: &[Key] = &[
    key("path", "./data", "", "The store's directory, from where the relay was started; made when missing.", |c, v| {
        put(&mut c.data.path, v.parsed(path))
    }),
    key(
        "durability",
        "commit",
        "",
        "`commit`: on disk before `OK`. `interval`: a power cut loses what came since the last sync.",
        |c, v| {
            let known = [("commit", Durability::Commit), ("interval", Durability::Interval)];
            put(&mut c.data.durability, v.parsed(|text| one_of(text, &known)))
        },
    ),
    key("sync_interval_ms", "200", "ms", "With `interval`: most time between two syncs.", |c, v| {
        put(&mut c.data.sync_interval_ms, v.integer(1..=60_000))
    }),
    key(
        "map_size_max_mib",
        "(1048576; 1024 on 32 bit)",
        "MiB",
        "How far the store may grow; it takes address space at once, and disk as it fills.",
        |c, v| put(&mut c.data.map_size_max_mib, v.integer(16..=1 << 26)),
    ),
];

pub(super) const METRICS: &[Key] =
    &[key("auth", "", "", "Bearer token that opens `/metrics` to other machines; this machine needs none.", |c, v| {
        put(&mut c.metrics.auth, v.optional(secret))
    })];

pub(super) const OUTBOUND: &[Key] = &[key(
    "enabled",
    "false",
    "",
    "Sending KeyPackage requests on to their recipients' relays; not in this build.",
    |c, v| {
        if v.boolean()? {
            return Err(Problem::new("sending to other relays is not in this build; write false"));
        }
        c.outbound.enabled = false;
        Ok(())
    },
)];
