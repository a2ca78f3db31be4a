//! The connection to the database: its address, TLS, the pool, and the connection that listens.
//!
//! Source: libpq, "Connection URIs" and "SSL Support" for the meaning of `sslmode`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Metrics, Pool, RecyclingMethod, Runtime,
};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{Host, SslMode, TargetSessionAttrs},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fail::Fail;

/// Longest wait for a connection to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a connection of the pool to be free.
const FREE_MAX: Duration = Duration::from_secs(5);
/// Longest time that sent bytes may stay unacknowledged by the other side's system.
const UNANSWERED_MAX: Duration = Duration::from_secs(10);
/// Longest time for which a connection may lie in the pool before it is asked whether it is alive.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the answer to that question.
const ALIVE_MAX: Duration = Duration::from_secs(1);

/// The first statements on every connection. Every table is read by its indexes alone, so one plan serves a statement
/// for all values, and each connection makes it once: planning anew took over a quarter of a small save.
///
/// The server ends a transaction whose next statement does not come, a statement that takes too long, one whose client
/// has closed its connection, and a connection whose client does not take the rows that were sent. `save` sets shorter
/// limits, and ends what none of these ends.
const SESSION: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
    set enable_mergejoin = off; set jit = off; set plan_cache_mode = force_generic_plan; \
    set client_min_messages = warning; set idle_in_transaction_session_timeout = '5s'; set lock_timeout = '4s'; \
    set statement_timeout = '8s'; set tcp_user_timeout = '8s'; \
    select set_config('client_connection_check_interval', '1s', false) \
        where current_setting('server_version_num')::int >= 140000 and version() like '%linux%'; \
    select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'";

/// The socket's type under TLS.
type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// The address of a database, with its TLS settings.
#[derive(Clone)]
pub(super) struct DatabaseAddress {
    config: Config,
    tls: MakeRustlsConnect,
}

/// The parts of the server's certificate that are verified.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CertificateCheck {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl DatabaseAddress {
    /// Reads a `database_url`.
    ///
    /// # Errors
    /// [`Fail::Unfit`], which tells no part of the URL except names of parameters.
    pub(super) fn parse(url: &str) -> Result<Self, Fail> {
        let unfit = |text: &str| Fail::Unfit(text.to_owned());
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(unfit("not a URL of a database; write postgresql://user:password@host/db"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        let (mut mode, mut root, mut certificate, mut key) = (None, None, None, None);
        for parameter in query.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match name {
                "sslmode" => &mut mode,
                "sslrootcert" => &mut root,
                "sslcert" => &mut certificate,
                "sslkey" => &mut key,
                _ => {
                    kept.push(parameter);
                    continue;
                }
            };
            *place = Some(
                decode(value)
                    .ok_or_else(|| unfit("a % is followed by two hex digits; write %25 for the sign itself"))?,
            );
        }
        let (mode, check) = match mode.as_deref() {
            None | Some("prefer" | "allow") => (SslMode::Prefer, CertificateCheck::Nothing),
            Some("disable") => (SslMode::Disable, CertificateCheck::Nothing),
            Some("require") if root.is_some() => (SslMode::Require, CertificateCheck::Authority),
            Some("require") => (SslMode::Require, CertificateCheck::Nothing),
            Some("verify-ca") => (SslMode::Require, CertificateCheck::Authority),
            Some("verify-full") => (SslMode::Require, CertificateCheck::AuthorityAndName),
            Some(_) => {
                return Err(unfit("unknown sslmode; write disable, prefer, require, verify-ca or verify-full"));
            }
        };
        if check != CertificateCheck::Nothing && root.is_none() {
            return Err(unfit(
                "sslmode verify-ca and verify-full need sslrootcert, the file of the server's authority",
            ));
        }
        let separator = if kept.is_empty() { "" } else { "?" };
        let mut config: Config = format!("{base}{separator}{}", kept.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| unfit(&error.to_string()))?;
        if config.get_hosts().is_empty() {
            return Err(unfit("no host; write it behind //, or for a socket add ?host=/its/directory"));
        }
        // The text after an unescaped @ in the password would be taken for the host's name, and shown.
        if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
            return Err(unfit("the host's name has an @; write %40 for one in the user's name or the password"));
        }
        config
            .ssl_mode(mode)
            // A standby may lack commits that were acknowledged.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(UNANSWERED_MAX)
            .keepalives_idle(UNANSWERED_MAX);
        if config.get_application_name().is_none() {
            config.application_name("rnostr");
        }
        let tls = tls(check, root.as_deref(), certificate.as_deref().zip(key.as_deref()))?;
        Ok(Self { config, tls: MakeRustlsConnect::new(tls) })
    }

    /// Hosts, port and name of the database for the operator's eyes, without user and password.
    pub(super) fn shown(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<String> = hosts.collect();
        let ports: Vec<String> = self.config.get_ports().iter().map(u16::to_string).collect();
        let port = if ports.is_empty() { "5432".to_owned() } else { ports.join(",") };
        format!("{}:{port}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }

    /// A pool of at most `connections_max` connections. It gives no connection that lay in it for a while, or under
    /// `suspicion`, without an answer from it.
    pub(super) fn pool(&self, connections_max: usize, suspicion: &Arc<Suspicion>) -> Result<Pool, Fail> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        let prepare = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
        });
        let suspicion = Arc::clone(suspicion);
        let check = Hook::async_fn(move |client: &mut ClientWrapper, metrics: &Metrics| {
            let suspicion = Arc::clone(&suspicion);
            let used = metrics.recycled.unwrap_or(metrics.created);
            Box::pin(async move {
                if suspicion.passes(client, used).await { Ok(()) } else { Err(HookError::message("it is silent")) }
            })
        });
        Pool::builder(manager)
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(FREE_MAX))
            .create_timeout(Some(CONNECT_MAX))
            .recycle_timeout(Some(CONNECT_MAX))
            .post_create(prepare)
            .pre_recycle(check)
            .build()
            .map_err(|error| Fail::Pool(error.to_string()))
    }

    /// A connection outside the pool.
    pub(super) async fn connect(&self) -> Result<(Client, Connection<Socket, Stream>), Fail> {
        tokio::time::timeout(CONNECT_MAX, self.config.connect(self.tls.clone()))
            .await
            .map_err(|_| Fail::Late)?
            .map_err(Fail::from)
    }
}

/// Knowledge of connections that have fallen silent: mostly all of them do so at once, as when a proxy between here and
/// the server forgets them.
#[derive(Debug, Default)]
pub(super) struct Suspicion(Mutex<Suspected>);

#[derive(Clone, Copy, Debug, Default)]
struct Suspected {
    /// A connection that was last used before this time is asked whether it is alive.
    asked_before: Option<Instant>,
    /// A connection that was last used before this time is closed.
    closed_before: Option<Instant>,
}

impl Suspicion {
    /// Notes that a call on some connection got no answer in time.
    pub(super) fn raise(&self) {
        self.0.lock().asked_before = Some(Instant::now());
    }

    /// Whether a connection that was last used at `used` may be used again.
    async fn passes(&self, client: &ClientWrapper, used: Instant) -> bool {
        let Suspected { asked_before, closed_before } = *self.0.lock();
        if closed_before.is_some_and(|time| used < time) {
            return false;
        }
        if used.elapsed() < IDLE_MAX && asked_before.is_none_or(|time| used >= time) {
            return true;
        }
        let asked = Instant::now();
        let is_alive = matches!(tokio::time::timeout(ALIVE_MAX, client.simple_query("")).await, Ok(Ok(_)));
        if !is_alive {
            // The others are most likely silent too: to ask each of them would take too long.
            self.0.lock().closed_before = Some(asked);
        }
        is_alive
    }
}

/// Decodes a parameter of a URL.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn tls(check: CertificateCheck, root: Option<&str>, client: Option<(&str, &str)>) -> Result<ClientConfig, Fail> {
    let unfit = |what: &str, file: &str, error: &dyn std::fmt::Display| {
        Fail::Unfit(format!("{what}={file} cannot be read: {error}"))
    };
    let certificates = |what: &str, file: &str| -> Result<Vec<CertificateDer<'static>>, Fail> {
        let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
        read().map_err(|error| unfit(what, file, &error))
    };
    let mut roots = RootCertStore::empty();
    if let Some(file) = root {
        for certificate in certificates("sslrootcert", file)? {
            roots.add(certificate).map_err(|error| unfit("sslrootcert", file, &error))?;
        }
    }
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if check == CertificateCheck::Nothing {
        Arc::new(LenientVerifier { authority: None, provider: Arc::clone(&provider) })
    } else {
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unfit("sslrootcert", root.unwrap_or_default(), &error))?;
        match check {
            CertificateCheck::AuthorityAndName => strict,
            _ => Arc::new(LenientVerifier { authority: Some(strict), provider: Arc::clone(&provider) }),
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fail::Unfit(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates("sslcert", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit("sslkey", key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| unfit("sslcert", certificate, &error))
        }
    }
}

/// The verification of libpq below `verify-full`: none, or the signer of the certificate without its name.
#[derive(Debug)]
struct LenientVerifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for LenientVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The verifier checks the chain before the name, so the chain is good here.
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
