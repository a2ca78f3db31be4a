//! TLS towards a relay: the certificates that this machine trusts, else Mozilla's, for connections and for REST alike.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};

/// TLS 1.2 and up. An image without certificates of its own goes by Mozilla's.
///
/// # Errors
/// Never with this provider, which has cipher suites for both versions.
pub(super) fn config() -> Result<ClientConfig, rustls::Error> {
    let builder = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    };
    let trusting = match builder()?.with_native_roots() {
        Ok(trusting) => trusting,
        Err(_) => {
            let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
            builder()?.with_root_certificates(roots)
        }
    };
    Ok(trusting.with_no_client_auth())
}
