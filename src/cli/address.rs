//! The address at which a command on this machine reaches the relay of a configuration.

use std::net::IpAddr;

use nostr_relay::config::Config;

/// The relay's address, and the name by which its clients call it.
pub(super) struct Address {
    /// `ws://` or `wss://`, host and port.
    pub(super) url: String,
    /// `public_url`, else the URL.
    pub(super) name: String,
    /// The prefix of the REST API.
    pub(super) api_prefix: String,
}

impl Address {
    /// The address at which a client on this machine reaches the relay of a configuration, and its `public_url`.
    pub(super) fn of(config: &Config) -> Self {
        let server = &config.server;
        let scheme = if server.tls().is_some() { "wss" } else { "ws" };
        let host = match server.host {
            host if host.is_unspecified() && host.is_ipv6() => "[::1]".to_owned(),
            host if host.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(host) => format!("[{host}]"),
            host => host.to_string(),
        };
        let url = format!("{scheme}://{host}:{}", server.port);
        let name = server.public_url.as_ref().map_or_else(|| url.clone(), ToString::to_string);
        Self { url, name, api_prefix: config.mls_gateway.api_prefix.clone() }
    }

    /// The URL of a path of the relay over HTTP.
    pub(super) fn http(&self, path: &str) -> String {
        over_http(&self.url, path)
    }
}

/// The HTTP URL of a path beside a WebSocket URL.
pub(super) fn over_http(url: &str, path: &str) -> String {
    format!("http{}{path}", url.trim_end_matches('/').trim_start_matches("ws"))
}
