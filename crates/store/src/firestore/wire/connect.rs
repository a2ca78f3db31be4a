//! The connection to the service or to its emulator, and its credentials.

use std::time::Duration;

use gcloud_sdk::{
    GCP_DEFAULT_SCOPES, GoogleAuthHeaders, GoogleAuthMiddlewareLayer, HeaderMap,
    google::firestore::v1::firestore_client::FirestoreClient,
    google_cloud_auth::{
        credentials::{CacheableResource, Credentials, CredentialsProvider, EntityTag},
        errors::CredentialsError,
    },
};
use tonic::{
    codegen::http::{Extensions, HeaderValue, header::AUTHORIZATION},
    transport::{Channel, ClientTlsConfig},
};
use tower::Layer as _;

use crate::{
    OpenError,
    firestore::{
        Options,
        wire::{client::Client, reads::Reads},
    },
};

const SERVICE: &str = "https://firestore.googleapis.com";
/// The variable that names the emulator, as in all of Google's libraries.
const EMULATOR: &str = "FIRESTORE_EMULATOR_HOST";
/// The token that makes an emulator's caller its administrator.
const EMULATOR_TOKEN: &str = "Bearer owner";
/// Longest wait for a connection, in seconds.
const CONNECT_SECS_MAX: u64 = 4;
/// Seconds without a byte from the service after which a connection is checked. A follower reads more often, so that a
/// connection that works is never checked.
const KEEP_ALIVE_SECS: u64 = 5;
/// Longest wait for the answer to such a check, in seconds. A connection that has fallen silent is replaced after both.
const KEEP_ALIVE_ANSWER_SECS_MAX: u64 = 4;

/// A client of the database. No call is made yet; the first one looks up the service's name.
pub(crate) async fn connect(options: &Options) -> Result<Client, OpenError> {
    #[allow(clippy::disallowed_methods, reason = "all of Google's libraries read this variable")]
    let emulator = options.emulator_host.clone().or_else(|| std::env::var(EMULATOR).ok()).filter(|it| !it.is_empty());
    let database = format!("projects/{}/databases/{}", options.project_id, options.database_id);
    let headers = match &emulator {
        Some(_) => GoogleAuthHeaders::from(Credentials::from(EmulatorCredentials(EntityTag::new()))),
        None => {
            provide_cryptography();
            let found = GoogleAuthHeaders::from_adc_with_scopes(GCP_DEFAULT_SCOPES.clone()).await;
            found.map_err(|error| {
                OpenError::Refused(format!(
                    "no credentials for Firestore: {error}; set GOOGLE_APPLICATION_CREDENTIALS, or run where Google \
                     gives a service account"
                ))
            })?
        }
    };
    let wrong = |error: &dyn std::fmt::Display| {
        OpenError::Refused(format!("Firestore's address or database is no name: {error}"))
    };
    let is_emulator = emulator.is_some();
    let url = emulator.map_or_else(|| SERVICE.to_owned(), |host| format!("http://{host}"));
    let mut endpoint = Channel::from_shared(url.clone())
        .map_err(|error| wrong(&error))?
        .connect_timeout(Duration::from_secs(CONNECT_SECS_MAX))
        .http2_keep_alive_interval(Duration::from_secs(KEEP_ALIVE_SECS))
        .keep_alive_timeout(Duration::from_secs(KEEP_ALIVE_ANSWER_SECS_MAX))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if url.starts_with("https:") {
        let tls = ClientTlsConfig::new().with_webpki_roots();
        endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&error))?;
    }
    let layer = GoogleAuthMiddlewareLayer::new(headers, Some(database.clone())).map_err(|error| wrong(&error))?;
    let connect = move || FirestoreClient::new(layer.layer(endpoint.connect_lazy()));
    Ok(Client::new(connect, database, is_emulator, Reads::new(options.reads_per_minute_max)))
}

/// Installs a provider of cryptography unless the process has one. A service account's key signs with it.
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread installed one at the same moment.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Credentials that the emulator takes for an administrator's.
#[derive(Debug)]
struct EmulatorCredentials(EntityTag);

impl CredentialsProvider for EmulatorCredentials {
    async fn headers(&self, extensions: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        if extensions.get::<EntityTag>() == Some(&self.0) {
            return Ok(CacheableResource::NotModified);
        }
        let data = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(EMULATOR_TOKEN))]);
        Ok(CacheableResource::New { entity_tag: self.0.clone(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}
