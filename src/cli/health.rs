//! `rnostr health`: asks a running relay whether it is well, and says so by its exit code. An image's `HEALTHCHECK`
//! needs no other program for it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nostr_relay::config::{self, Config};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;
use tokio::time::timeout;

use super::address::Address;

/// Longest wait for the relay's answer, in seconds.
const HEALTH_SECS: u64 = 5;
/// Most bytes of the answer.
const HEALTH_BYTES_MAX: usize = 64 << 10;

/// Ask the running relay of a configuration whether it is well; exit code 1 means that it is not, or does not answer
#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// The configuration, as for `relay`; it names the address
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask for /ready in place of /health: whether clients should be sent to this relay
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub(super) fn run(self) -> Result<(), String> {
        let config =
            Config::load(self.config.as_deref(), config::process_environment()).map_err(|error| error.to_string())?;
        if config.server.port == 0 {
            return Err("server.port is 0, so the relay's port is unknown; write a port".to_owned());
        }
        let (path, well) = if self.ready { ("/ready", "ready") } else { ("/health", "healthy") };
        let url = Address::of(&config).http(path);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("the runtime cannot start: {error}"))?;
        let answering = async { timeout(Duration::from_secs(HEALTH_SECS), ask(&url)).await };
        let (status, body) = match runtime.block_on(answering) {
            Ok(answer) => answer.map_err(|error| format!("{url}: {}", causes(&*error)))?,
            Err(_) => return Err(format!("{url} does not answer within {HEALTH_SECS} s")),
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != StatusCode::OK || answer["status"] != well {
            let reason = answer["reason"].as_str().unwrap_or("the answer is not a relay's");
            return Err(format!("{url} answers {status}: {reason}"));
        }
        // A reader that has seen enough is no failure.
        let _ = writeln!(io::stdout().lock(), "{answer}");
        Ok(())
    }
}

/// An error with all its causes.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Sends a GET, and gives the answer's status and body.
async fn ask(url: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls()?).https_or_http().enable_http1().build();
    let request = Request::get(url).body(Empty::<Bytes>::new())?;
    let answer = Client::builder(TokioExecutor::new()).build(connector).request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), HEALTH_BYTES_MAX).collect().await?;
    Ok((status, body.to_bytes()))
}

fn tls() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Takes any certificate: that of the relay names its public host and not the address on this machine. The question
/// holds no secret, and the relay listens at that address itself.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
