//! Addresses, origins and URLs as an operator writes them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use nostr_protocol::auth::RelayAddress;

/// Reads an IP address, and no name: a name may stand for several addresses, or for another one tomorrow.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "not an IP address; write 127.0.0.1, 0.0.0.0, ::1 or ::".to_owned())
}

/// Reads an IP address with a port.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an address with a port; write 127.0.0.1:9100 or [::1]:9100".to_owned())
}

/// Reads the URL of a collector of traces.
pub(super) fn otlp_endpoint(text: &str) -> Result<String, String> {
    if !cfg!(feature = "otlp") {
        return Err("traces are not in this build; build with --features otlp, or leave the key out".to_owned());
    }
    let is_url = text.parse::<axum::http::Uri>().is_ok_and(|url| url.host().is_some());
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    if is_url && has_scheme { Ok(text.to_owned()) } else { Err("not a URL; write http://127.0.0.1:4317".to_owned()) }
}

/// Reads a range of addresses, `10.0.0.0/8` or `fd00::/8`; a bare address is a range of one.
pub(super) fn address_range(text: &str) -> Result<IpNet, String> {
    parse_range(text).ok_or_else(|| "not a range of addresses; write 10.0.0.0/8, fd00::/8 or one address".to_owned())
}

fn parse_range(text: &str) -> Option<IpNet> {
    let Some((address, bits)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    // `u8::from_str` would take a plus sign as well.
    let bits = bits.bytes().all(|c| c.is_ascii_digit()).then(|| bits.parse().ok())??;
    IpNet::new(address.parse().ok()?, bits).ok()
}

/// Web pages that may use the relay, by the WebSocket's `Origin` and by CORS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    Any,
    /// The listed pages, in lower case.
    Only(Vec<String>),
}

impl Origins {
    /// Returns whether a page of `origin` may use the relay. Programs other than browsers send no origin and need none.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(origins) => origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

/// Reads one item of `allowed_origins`, in lower case and without the scheme's default port, as browsers send it. `*`
/// and `null` stay. Any scheme is taken: applications send `capacitor://localhost`, `file://` and their like.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if lower == "*" || lower == "null" {
        return Ok(lower);
    }
    let well_formed = lower.split_once("://").is_some_and(|(scheme, host)| {
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
        is_scheme && (!host.is_empty() || scheme == "file") && !host.contains(['/', '?', '#', '@', '*', ' '])
    });
    if !well_formed {
        return Err("not an origin; write scheme://host or scheme://host:port without a slash at the end, null, or *"
            .to_owned());
    }
    let default_port = match lower.split_once("://") {
        Some(("http" | "ws", _)) => ":80",
        Some(("https" | "wss", _)) => ":443",
        _ => return Ok(lower),
    };
    Ok(lower.strip_suffix(default_port).unwrap_or(&lower).to_owned())
}

impl From<Vec<String>> for Origins {
    fn from(origins: Vec<String>) -> Self {
        if origins.iter().any(|origin| origin == "*") { Self::Any } else { Self::Only(origins) }
    }
}

/// Paths at which the relay serves something of its own, without the slash in front.
pub(super) const TAKEN_PATHS: [&str; 5] = ["health", "ready", "metrics", "favicon.ico", "console"];

/// Whether the relay serves something of its own at this path, which has no slash in front. Everything under the
/// console's path is the console's.
pub(super) fn is_taken(path: &str) -> bool {
    TAKEN_PATHS.contains(&path) || path.starts_with("console/")
}

/// A URL under which clients know this relay, `wss://relay.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayUrl {
    text: String,
    address: RelayAddress,
}

impl RelayUrl {
    /// Reads a `ws://` or `wss://` URL.
    ///
    /// # Errors
    /// If `text` is none; the error says how to write one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        let lower = text.to_ascii_lowercase();
        let host = lower.strip_prefix("wss://").or_else(|| lower.strip_prefix("ws://"));
        match (host, RelayAddress::parse(text)) {
            (Some(_), Some(address)) if is_taken(address.path()) => {
                Err("this path is taken; write another one, as wss://relay.example.com/nostr".to_owned())
            }
            (Some(host), Some(address)) if !host.starts_with(':') && !text.contains([' ', '?', '#', '"', '<', '>']) => {
                Ok(Self { text: text.to_owned(), address })
            }
            _ => Err("not a relay's URL; write it as clients do: wss://relay.example.com".to_owned()),
        }
    }

    /// The URL as it was written, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host, port and path in one spelling, for comparing.
    #[must_use]
    pub const fn address(&self) -> &RelayAddress {
        &self.address
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_its_addresses_and_no_others() {
        let contains = |range: &str, address: &str| {
            let address: IpAddr = address.parse().expect("an address");
            address_range(range).expect("a range").contains(&address)
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2"));
        assert!(contains("10.1.1.1/8", "10.255.1.2"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(!contains("fd00::/8", "fe00::1"));
        assert!(contains("fd00::/008", "fdff::1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "010.0.0.0/8", "proxy", "::1/129"] {
            assert!(address_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_relay_url_is_a_websocket_url() {
        assert_eq!(RelayUrl::parse("wss://r.example/").map(|url| url.to_string()), Ok("wss://r.example".to_owned()));
        assert!(RelayUrl::parse("ws://127.0.0.1:8080").is_ok());
        for text in ["", "r.example", "https://r.example", "wss://", "wss:///x", "wss://u@r.example", "wss://a b"] {
            assert!(RelayUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn origins_are_compared_without_case() {
        let origins = Origins::from(vec![origin("https://App.example").expect("an origin")]);
        assert!(origins.allows("https://app.EXAMPLE"));
        assert!(!origins.allows("http://app.example"));
        assert!(!origins.allows("https://app.example.evil"));
        assert!(Origins::from(vec!["*".to_owned()]).allows("null"));
        assert!(origin("https://app.example/").is_err());
        assert!(origin("app.example").is_err());
    }

    #[test]
    fn an_origin_of_any_scheme_can_be_listed() {
        for (written, sent) in [
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("file://", "file://"),
            ("null", "null"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:8080", "http://app.example:8080"),
        ] {
            assert!(Origins::from(vec![origin(written).expect(written)]).allows(sent), "{written}");
        }
        for wrong in ["https://", "://host", "1a://host", "a b://host"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_that_the_relay_uses_itself_is_no_relays_url() {
        for taken in ["wss://r.example/metrics", "wss://r.example/health/", "wss://r.example/favicon.ico"] {
            assert!(RelayUrl::parse(taken).is_err_and(|error| error.contains("taken")), "{taken}");
        }
        assert!(RelayUrl::parse("wss://r.example/console/nostr").is_err());
        assert!(RelayUrl::parse("wss://r.example/metrics/nostr").is_ok());
        assert!(RelayUrl::parse("wss://r.example/consoles").is_ok());
    }
}
