//! TLS on the listener (rustls, TLS 1.2 and up); a proxy in front is the other way.
//!
//! Certificates are renewed every few weeks, so the relay reads them again when their files change, and at SIGHUP.
//! Connections that are open keep theirs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use crate::config::Server;

/// Time between two looks at the files of the certificate and the key.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate and the key of `[server]`, as they were read last.
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    /// The state of both files before they were read.
    stamps: [Option<Stamp>; 2],
}

/// A file's state, by which a change shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Certificates {
    /// Reads the files that `[server]` names; `None` where it names none.
    ///
    /// # Errors
    /// In words for the operator, with the file's name.
    pub(crate) fn of(server: &Server) -> Result<Option<Self>, String> {
        let Some((cert, key)) = server.tls() else { return Ok(None) };
        let loaded = Mutex::new(load(cert, key)?);
        Ok(Some(Self { cert: cert.to_owned(), key: key.to_owned(), loaded }))
    }

    /// The acceptor for a new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.loaded.lock().acceptor.clone()
    }

    /// Reads the files again. If they do not go together, the earlier certificate stays, and the log says why.
    pub(crate) fn read_again(&self) {
        match load(&self.cert, &self.key) {
            Ok(loaded) => {
                *self.loaded.lock() = loaded;
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::warn!("the earlier certificate stays in use: {error}"),
        }
    }

    /// Reads the files again if one of them has changed since they were read.
    pub(crate) fn look(&self) {
        if self.loaded.lock().stamps != stamps(&self.cert, &self.key) {
            self.read_again();
        }
    }

    /// Looks at the files once in [`LOOK_INTERVAL`], for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let certificates = Arc::clone(&self);
            // A panic would be a fault of the reader of PEM files; the earlier certificate stays in use.
            let _ = tokio::task::spawn_blocking(move || certificates.look()).await;
        }
    }
}

fn stamps(cert: &Path, key: &Path) -> [Option<Stamp>; 2] {
    [cert, key].map(|path| stamp(path).ok())
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp { modified: metadata.modified()?, bytes: metadata.len(), inode: metadata.ino() })
}

fn load(cert: &Path, key: &Path) -> Result<Loaded, String> {
    // A change while the files are read shows at the next look.
    let stamps = stamps(cert, key);
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
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "server.tls_key {}: this is not the key of the certificate in server.tls_cert {}",
                key.display(),
                cert.display()
            ),
            error => format!("server.tls_cert {} and server.tls_key {}: {error}", cert.display(), key.display()),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { acceptor: TlsAcceptor::from(Arc::new(config)), stamps })
}
