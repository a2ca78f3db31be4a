//! Authentication of a connection (NIP-42), and the check that a `relay` or `u` tag names this relay.
//!
//! Source: NIP-42; docs/rules.md, "Identity" 4 and 5.

use std::{fmt, net::IpAddr};

use crate::{event::Verified, key::PublicKey, kind::Kind, rejection::Rejection, tag::name};

/// Most seconds between an authentication event's `created_at` and now, either way.
pub const AUTH_AGE_SECS_MAX: u64 = 600;

/// The names that one connection may use for this relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayNames {
    /// `[server] public_url` and its aliases. Host and port must be equal, and the path is the one given or none.
    Configured(Vec<RelayAddress>),
    /// Any loopback host: nothing is configured, and the peer is on this machine.
    Loopback,
    /// The host of the request: nothing is configured, and Cloud Run's front end has routed the request by its host.
    Host(RelayAddress),
    /// No name: nothing is configured, and the peer is elsewhere. Nobody can authenticate.
    Unknown,
}

/// Host, port and path of a relay's URL, in one spelling: lower-case host, default port left out, no slash at the end.
#[derive(Clone, Debug)]
pub struct RelayAddress {
    authority: String,
    path: String,
    /// Set where the URL's scheme was one over TLS. It is no part of the comparison.
    is_secure: bool,
}

impl PartialEq for RelayAddress {
    fn eq(&self, other: &Self) -> bool {
        (&self.authority, &self.path) == (&other.authority, &other.path)
    }
}

impl Eq for RelayAddress {}

impl fmt::Display for RelayAddress {
    /// Writes the address as clients do: `wss://relay.example.com/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, path, is_secure } = self;
        let (scheme, slash) = (if *is_secure { "wss" } else { "ws" }, if path.is_empty() { "" } else { "/" });
        write!(f, "{scheme}://{authority}{slash}{path}")
    }
}

impl RelayAddress {
    /// Reads `ws`, `wss`, `http` or `https` URLs; `None` for anything else.
    ///
    /// The scheme only gives the default port, because a relay behind a TLS proxy sees `ws` when its clients write
    /// `wss`.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let (default_port, is_secure) = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => (":80", false),
            "wss" | "https" => (":443", true),
            _ => return None,
        };
        let rest = rest.split(['?', '#']).next().unwrap_or(rest);
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let authority = authority.to_ascii_lowercase();
        let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
        if authority.is_empty() || authority.contains('@') {
            return None;
        }
        Some(Self { authority: authority.to_owned(), path: path.trim_end_matches('/').to_owned(), is_secure })
    }

    /// The path without slashes at its ends; empty for none.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.trim_start_matches('/')
    }

    /// Returns whether a client that writes `written` names this address: host and port are equal, and the path is this
    /// one or none (NIP-42: the domain is enough).
    fn is_named_by(&self, written: &Self) -> bool {
        self.authority == written.authority && (written.path.is_empty() || written.path == self.path)
    }

    fn is_loopback(&self) -> bool {
        let host = match self.authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(v6),
            None => self.authority.split(':').next().unwrap_or(&self.authority),
        };
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl RelayNames {
    /// Whether `url` names this relay.
    ///
    /// # Errors
    /// `error:` when this relay does not know its own name, `invalid:` when the URL names another relay.
    pub fn check(&self, url: &str) -> Result<(), Rejection> {
        let address = RelayAddress::parse(url);
        let named = match (self, &address) {
            (Self::Unknown, _) => return Err(Rejection::error("this relay needs [server] public_url to be set")),
            (_, None) => false,
            (Self::Configured(names), Some(address)) => names.iter().any(|name| name.is_named_by(address)),
            (Self::Loopback, Some(address)) => address.is_loopback(),
            (Self::Host(host), Some(address)) => host.authority == address.authority,
        };
        if named {
            return Ok(());
        }
        Err(Rejection::invalid(format!("the relay tag names another relay; write {} into it", self.expected())))
    }

    /// Whether `url` is the URL of an HTTP request to this relay: scheme `http` or `https`, one of the relay's hosts
    /// with its port, and behind it `target`, path and query of the request, byte for byte.
    ///
    /// # Errors
    /// `error:` when this relay does not know its own name, `invalid:` with the URL that is expected.
    pub fn check_request(&self, url: &str, target: &str) -> Result<(), Rejection> {
        let named = request_parts(url).is_some_and(|(address, named_target)| {
            named_target == target
                && match self {
                    Self::Configured(names) => names.iter().any(|name| name.authority == address.authority),
                    Self::Loopback => address.is_loopback(),
                    Self::Host(host) => host.authority == address.authority,
                    Self::Unknown => false,
                }
        });
        match (named, self.request_url(target)) {
            (true, _) => Ok(()),
            (false, Some(expected)) => {
                Err(Rejection::invalid(format!("the u tag is not the URL of this request; write {expected} into it")))
            }
            (false, None) => Err(Rejection::error("this relay needs [server] public_url to be set")),
        }
    }

    /// The URL that a client writes into the `u` tag of a request for `target`; `None` where the relay does not know
    /// its own name.
    #[must_use]
    pub fn request_url(&self, target: &str) -> Option<String> {
        let of = |address: &RelayAddress| {
            let scheme = if address.is_secure { "https" } else { "http" };
            format!("{scheme}://{}{target}", address.authority)
        };
        match self {
            Self::Configured(names) => names.first().map(of),
            Self::Host(host) => Some(of(host)),
            Self::Loopback => Some(format!("http://127.0.0.1:PORT{target}")),
            Self::Unknown => None,
        }
    }

    /// The URL that a client writes, in words.
    fn expected(&self) -> String {
        match self {
            Self::Configured(names) if !names.is_empty() => names[0].to_string(),
            Self::Host(host) => host.to_string(),
            Self::Loopback => "ws://127.0.0.1 or ws://localhost, and the port,".to_owned(),
            Self::Configured(_) | Self::Unknown => "the URL in [server] public_url".to_owned(),
        }
    }
}

impl RelayNames {
    /// Returns whether `origin`, the `Origin` of a request to `host`, is this relay's own URL, in any of its schemes.
    /// Some libraries send it.
    #[must_use]
    pub fn is_own_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let Some(origin) = RelayAddress::parse(origin) else { return false };
        match self {
            Self::Configured(names) => names.iter().any(|name| name.is_named_by(&origin)),
            Self::Host(host) => host.is_named_by(&origin),
            // Another port of this machine is another server, whose pages are not the relay's own.
            Self::Loopback => {
                let host = host.and_then(|host| RelayAddress::parse(&format!("ws://{host}")));
                origin.is_loopback() && host.is_some_and(|host| host.is_named_by(&origin))
            }
            Self::Unknown => false,
        }
    }
}

/// The address and the path with query of an `http` or `https` URL; `None` for anything else.
fn request_parts(url: &str) -> Option<(RelayAddress, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let target = rest.find(['/', '?', '#']).map_or("/", |at| &rest[at..]);
    Some((RelayAddress::parse(url)?, target))
}

/// Checks an authentication event (kind 22242) and returns the key that it proves.
///
/// # Errors
/// `invalid:` with the check that failed, or `error:` from [`RelayNames::check`].
pub fn authenticate(
    event: &Verified,
    challenge: &str,
    names: &RelayNames,
    now_secs: u64,
) -> Result<PublicKey, Rejection> {
    let event = event.event();
    if event.kind() != Kind::AUTH {
        return Err(Rejection::invalid("AUTH takes an event of kind 22242"));
    }
    if event.created_at().abs_diff(now_secs) > AUTH_AGE_SECS_MAX {
        return Err(Rejection::invalid(format!(
            "created_at is more than {AUTH_AGE_SECS_MAX} s from this relay's time; set the clock and sign anew"
        )));
    }
    if event.tags().value(name::CHALLENGE) != Some(challenge) {
        return Err(Rejection::invalid("the challenge tag is not the challenge of this connection; sign the last one"));
    }
    let relay = event.tags().value(name::RELAY).ok_or_else(|| Rejection::invalid("the relay tag is missing"))?;
    names.check(relay)?;
    Ok(event.pubkey())
}
