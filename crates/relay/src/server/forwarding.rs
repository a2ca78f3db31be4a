//! The hops in front of the relay: whether a request passed one, and whether the hop is trusted.
//!
//! Source: docs/rules.md, "Rate limits" 10 and "Identity" 5.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::http::HeaderMap;

use crate::{app::App, rate_limit};

/// Header in which each hop writes the address that it saw.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Beginning of the names by which hops tell of the request that they received.
const FORWARDED_PREFIX: &str = "x-forwarded";
/// Other names of headers that hops add.
const HOP_HEADERS: [&str; 19] = [
    "forwarded",
    "via",
    "x-real-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ray",
    "cf-visitor",
    "cdn-loop",
    "true-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-original-for",
    "x-original-host",
    "x-original-proto",
];
/// Shortest time between two warnings about a hop that is not trusted.
const WARNING_PAUSE_MS: u64 = 3_600_000;

/// Returns whether a hop in front of the relay forwarded the request, by the headers that any known hop adds.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(FORWARDED_PREFIX) || HOP_HEADERS.contains(&name.as_str()))
}

/// Returns whether a request comes from a client on this machine. A hop on this machine is no such client, whichever
/// header it adds: everything that is open to this machine alone asks here.
pub(super) fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.to_canonical().is_loopback() && !is_forwarded(headers)
}

/// The client's address: the peer's, or the one that trusted hops name.
pub(super) fn client_address(app: &App, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let forwarded_for = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    rate_limit::client_address(peer, forwarded_for, &app.config.server.trusted_proxies, app.config.on_cloud_run)
}

/// Returns whether the relay believes the headers of this peer. The address of its clients is then known only after the
/// head of a request.
pub(super) fn is_trusted(app: &App, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    app.config.on_cloud_run || app.config.server.trusted_proxies.iter().any(|range| range.contains(&peer))
}

/// Tells the operator of hops whose clients count as one address.
#[derive(Default)]
pub(super) struct ForwardingWatch {
    /// Time of the last warning; 0 before the first.
    warned_ms: AtomicU64,
}

impl ForwardingWatch {
    /// Counts a request whose clients' addresses stay unknown: its peer is not trusted, or names no address. Warns of
    /// it at most once in [`WARNING_PAUSE_MS`].
    pub(super) fn look_at(&self, app: &App, peer: IpAddr, headers: &HeaderMap) {
        if !is_forwarded(headers) {
            return;
        }
        let (reason, advice) = if !is_trusted(app, peer) {
            ("untrusted_peer", "add the proxy's address to server.trusted_proxies if it is yours")
        } else if !headers.contains_key(FORWARDED_FOR) {
            ("no_x_forwarded_for", "have the proxy send X-Forwarded-For")
        } else {
            return;
        };
        app.metrics.unknown_client_address(reason);
        if self.may_warn(app.clock.now_ms()) {
            tracing::warn!(
                "a proxy forwards clients whose addresses the relay does not believe or know, so that all of them \
                 count as one address: {advice}"
            );
        }
    }

    fn may_warn(&self, now_ms: u64) -> bool {
        let warned_ms = self.warned_ms.load(Ordering::Relaxed);
        let is_due = warned_ms == 0 || now_ms.saturating_sub(warned_ms) >= WARNING_PAUSE_MS;
        is_due && self.warned_ms.compare_exchange(warned_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn local(peer: &str, header: Option<&str>) -> bool {
        let name = |name: &str| name.parse::<HeaderName>().expect("a name");
        let headers = header.map(|header| (name(header), HeaderValue::from_static("203.0.113.9")));
        is_local(peer.parse().expect("an address"), &headers.into_iter().collect())
    }

    #[test]
    fn any_forwarding_header_makes_a_peer_remote() {
        for peer in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(local(peer, None), "{peer}");
            assert!(local(peer, Some("User-Agent")), "{peer}");
            for header in [
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "X-Forwarded-Port",
                "Forwarded",
                "X-Real-IP",
                "Via",
                "CF-Connecting-IP",
                "True-Client-IP",
            ] {
                assert!(!local(peer, Some(header)), "{peer} with {header}");
            }
        }
        assert!(!local("203.0.113.9", None));
    }

    #[test]
    fn the_operator_is_warned_once_an_hour() {
        let watch = ForwardingWatch::default();
        assert!(watch.may_warn(1));
        assert!(!watch.may_warn(WARNING_PAUSE_MS));
        assert!(watch.may_warn(WARNING_PAUSE_MS + 1));
    }
}
