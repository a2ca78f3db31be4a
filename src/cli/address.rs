//! The address at which a command on this machine reaches the relay of a configuration.

use std::net::IpAddr;

use nostr_protocol::auth::RelayAddress;
use nostr_relay::config::Config;

/// The specification's prefix of the REST API.
const DEFAULT_API_PREFIX: &str = "/api/v1/mls";

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

    /// The relay of a URL that a person gave. Clients call it by that name.
    ///
    /// # Errors
    /// The text is no URL of a relay.
    pub(super) fn named(url: &str) -> Result<Self, String> {
        let is_socket = ["ws://", "wss://"].iter().any(|scheme| url.starts_with(scheme));
        let address = RelayAddress::parse(url).filter(|_| is_socket);
        let url = address.ok_or("write the relay's URL with its scheme: wss://relay.example.com")?.to_string();
        Ok(Self { name: url.clone(), url, api_prefix: DEFAULT_API_PREFIX.to_owned() })
    }

    /// The URL of a path of the relay over HTTP.
    pub(super) fn http(&self, path: &str) -> String {
        over_http(&self.url, path)
    }
}

/// The HTTP URL of a path on the host of a WebSocket URL. The REST API is at the root of the host, also where clients
/// connect at a path.
pub(super) fn over_http(url: &str, path: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
    let authority = rest.split('/').next().unwrap_or(rest);
    format!("http{}://{authority}{path}", scheme.trim_start_matches("ws"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_at_the_root_of_the_host() {
        for (url, http) in [
            ("ws://127.0.0.1:8080", "http://127.0.0.1:8080/api"),
            ("wss://relay.example/nostr/", "https://relay.example/api"),
            ("wss://[::1]:4848/a/b", "https://[::1]:4848/api"),
        ] {
            assert_eq!(over_http(url, "/api"), http);
        }
    }

    #[test]
    fn a_relay_is_named_by_a_url_with_its_scheme() {
        let named = |url: &str| Address::named(url).map(|address| address.url);
        assert_eq!(named("wss://Relay.example:443/x/"), Ok("wss://relay.example/x".to_owned()));
        for wrong in ["relay.example", "https://relay.example", "ws://", "wss://me@relay.example", ""] {
            assert!(named(wrong).expect_err(wrong).contains("wss://relay.example.com"));
        }
    }
}
