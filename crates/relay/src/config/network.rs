//! Addresses, origins and URLs as an operator writes them.

use std::{fmt, net::IpAddr};

use nostr_protocol::auth::RelayAddress;

/// A range of addresses, `10.0.0.0/8` or `fd00::/8`; a bare address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// Reads `address/bits` or an address; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().ok()?;
        let bits_max = if base.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            Some(bits) if bits.bytes().all(|c| c.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => bits_max,
        };
        (prefix_bits <= bits_max).then_some(Self { base, prefix_bits })
    }

    /// Whether `address` lies in it. An IPv4 address written as an IPv6 one (`::ffff:…`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |a: u128, b: u128, width: u32| {
            let ignored = width - u32::from(self.prefix_bits);
            ignored == 128 || (a ^ b) >> ignored == 0
        };
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => shared(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// Which web pages may use the relay: the WebSocket's `Origin`, and CORS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    Any,
    /// These, in lower case.
    Only(Vec<String>),
}

impl Origins {
    /// Whether a page of `origin` may. Programs that are no browser send no origin, and are not asked.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(origins) => origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

/// One entry of `allowed_origins`, lower-cased; `*` is itself.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let well_formed = text == "*"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' '])
        });
    if well_formed {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("not an origin; write scheme://host or scheme://host:port without a slash at the end, or *".to_owned())
    }
}

impl From<Vec<String>> for Origins {
    fn from(origins: Vec<String>) -> Self {
        if origins.iter().any(|origin| origin == "*") { Self::Any } else { Self::Only(origins) }
    }
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
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        let lower = text.to_ascii_lowercase();
        let host = lower.strip_prefix("wss://").or_else(|| lower.strip_prefix("ws://"));
        match (host, RelayAddress::parse(text)) {
            (Some(host), Some(address)) if !host.starts_with(':') && !text.contains([' ', '?', '#', '"', '<', '>']) => {
                Ok(Self { text: text.to_owned(), address })
            }
            _ => Err("not a relay's URL; write it as clients do: wss://relay.example.com".to_owned()),
        }
    }

    /// As it was written, without a slash at the end.
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
            Cidr::parse(range).expect("a range").contains(address.parse().expect("an address"))
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(!contains("fd00::/8", "fe00::1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "proxy", "::1/129"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
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
}
