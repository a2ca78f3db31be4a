//! TLS on the listener (rustls, TLS 1.2 and up); a proxy in front is the other way.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

/// Reads the certificate chain and the key.
///
/// # Errors
/// In words for the operator, with the file's name.
pub(super) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("server.tls_cert {}: {error}", cert.display()))?;
    if chain.is_empty() {
        return Err(format!("server.tls_cert {}: no certificate in it; give PEM", cert.display()));
    }
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("server.tls_key {}: {error}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| format!("server.tls_cert and server.tls_key: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
