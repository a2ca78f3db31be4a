//! One request: its caller, who may have proven a key, and its body.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, OriginalUri, Query, Request},
    http::{HeaderMap, Method, Uri, header, request::Parts},
};
use nostr_extensions::Reader;
use nostr_protocol::{PublicKey, Rejection as Reason, auth::RelayNames};
use serde::de::DeserializeOwned;

use super::{
    Problem,
    intake::{self, BodyTime},
    proof,
};
use crate::{
    app::App,
    delivery::{Outbox, groups::NamedGroups, outbox::Challenge, writer::InFlight},
    memory::Holding,
    rate_limit::Payer,
    server::{Connected, client_of},
    session::{Caller, Client},
};

/// Bytes that a body and its parsed form take for each byte of its text, as for a message.
const BODY_FACTOR: usize = 4;

/// See the module.
pub(crate) struct Visit {
    pub(crate) caller: Caller,
    pub(super) body: Bytes,
    uri: Uri,
    headers: HeaderMap,
}

impl Visit {
    /// The address of the client.
    pub(crate) const fn address(&self) -> IpAddr {
        self.caller.client.address
    }

    /// The body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The relay's parts.
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.caller.app
    }

    /// The key that the request has proven.
    ///
    /// # Errors
    /// 401 where it has proven none.
    pub(crate) fn key(&self) -> Result<PublicKey, Problem> {
        self.caller.reader.primary().ok_or_else(Problem::key_required)
    }

    /// The parameters in the query.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown, is there twice, or has a wrong form.
    pub(crate) fn parameters<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match Query::try_from_uri(&self.uri) {
            Ok(Query(parameters)) => Ok(parameters),
            Err(rejection) => Err(Problem::bad_parameter(rejection.body_text())),
        }
    }

    /// The relay's URL without a path, as the caller may write it into a proof.
    pub(crate) fn own_url(&self) -> String {
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        match &*self.caller.client.names {
            names @ (RelayNames::Configured(_) | RelayNames::Host(_)) => names.request_url(""),
            RelayNames::Loopback | RelayNames::Unknown => None,
        }
        .unwrap_or_else(|| {
            let scheme = if self.app().config.server.tls().is_some() { "https" } else { "http" };
            format!("{scheme}://{host}")
        })
    }

    /// The only value of a header; `None` where there is none.
    ///
    /// # Errors
    /// 400 where it is there more than once, or is no text.
    pub(super) fn header(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        match value.to_str() {
            Ok(text) if values.next().is_none() => Ok(Some(text)),
            _ => Err(Problem::bad_parameter(format!("send one {name} header, of visible characters of ASCII"))),
        }
    }

    /// The memory that the request makes the relay hold, until its answer is sent.
    pub(crate) fn holding(&self) -> &Holding {
        self.caller.in_flight.outbox().holding()
    }
}

/// The caller of a request that has proven no key.
fn caller(app: &Arc<App>, client: Client, Connected { share, sheds, .. }: &Connected) -> Caller {
    let payer = app.limits.payer_hash(Payer::Address(client.block()));
    let holding = app.memory.open(payer);
    sheds.follow(holding.shed().clone());
    // Nothing is sent from the outbox: it holds the memory of the request.
    let outbox = Outbox::new(app.config.server.outbox_bytes_max, holding, Challenge::new(String::new()));
    Caller {
        reader: Reader::default(),
        in_flight: Arc::new(InFlight::of_request(Arc::new(outbox))),
        share: share.clone(),
        named: NamedGroups::default(),
        limits: app.limits.one_request(app.clock.now_ms()),
        client,
        app: Arc::clone(app),
    }
}

impl FromRequest<Arc<App>> for Visit {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        // A key, an event or an address may be banned.
        app.policy().require_orders()?;
        let visit = Self::of(request, app, intake::JSON, |_, _| Ok(())).await?;
        app.management.require_open(visit.address())?;
        Ok(visit)
    }
}

impl Visit {
    /// A request whose body, if it has one, is JSON of this media type. `lets_in` is asked about the key that has
    /// signed the proof before the body is read and the proof is used.
    ///
    /// # Errors
    /// The refusal of a request that is malformed, not authenticated or not let in.
    pub(crate) async fn of(
        request: Request,
        app: &Arc<App>,
        media_type: &str,
        lets_in: fn(&App, Option<PublicKey>) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let mut visit = Self::begun(app, &parts)?;
        let proof = proof::of_headers(app, &parts.headers)?;
        if proof.is_none() && app.policy().auth_required {
            return Err(Problem::key_required());
        }
        lets_in(app, proof.as_ref().map(|proof| proof.event().pubkey()))?;
        let has_body = visit.read_body(&parts, body, media_type).await?;
        if let Some(proof) = proof {
            let body = has_body.then_some(&visit.body[..]);
            let target = visit.uri.path_and_query().map_or("/", |target| target.as_str());
            let names = &visit.caller.client.names;
            let key = proof::check(app, &proof, names, (&parts.method, target, body))?;
            visit.caller.set_reader(Reader::new(&[key]));
            if !is_repeatable(&parts.method) {
                proof::use_once(&visit.caller, &proof).await?;
            }
        }
        Ok(visit)
    }

    /// A request of a key that was proven before, with a body of JSON, if it has one.
    ///
    /// # Errors
    /// The refusal of a request that is malformed, or whose key may not authenticate now.
    pub(crate) async fn by_key(request: Request, app: &Arc<App>, key: PublicKey) -> Result<Self, Problem> {
        // A key, an event or an address may be banned.
        app.policy().may_authenticate(&key)?;
        let (parts, body) = request.into_parts();
        let mut visit = Self::begun(app, &parts)?;
        app.management.require_open(visit.address())?;
        visit.caller.set_reader(Reader::new(&[key]));
        visit.read_body(&parts, body, intake::JSON).await?;
        // The body may have taken minutes.
        app.policy().may_authenticate(&key)?;
        app.management.require_open(visit.address())?;
        Ok(visit)
    }

    /// A request of a caller without a key, before its body was read.
    fn begun(app: &Arc<App>, parts: &Parts) -> Result<Self, Problem> {
        let uri = parts.extensions.get::<OriginalUri>().map_or_else(|| parts.uri.clone(), |uri| uri.0.clone());
        let connected = parts.extensions.get::<Connected>();
        let connected = connected.ok_or_else(|| Problem::from(Reason::error("the request came by no connection")))?;
        let client = client_of(app, connected.peer, &parts.headers);
        let caller = caller(app, client, connected);
        Ok(Self { caller, body: Bytes::new(), uri, headers: parts.headers.clone() })
    }

    /// Reads the body, if there is one, and tells whether there is.
    async fn read_body(&mut self, parts: &Parts, body: Body, media_type: &str) -> Result<bool, Problem> {
        let has_body = !parts.method.is_safe() && has_body(&parts.headers);
        if has_body {
            let bytes_max = self.app().config.limitation.max_message_length;
            let reading = Instant::now();
            let body = intake::read((&parts.headers, media_type), body, bytes_max, self.holding()).await;
            if let Some(time) = parts.extensions.get::<BodyTime>() {
                time.set(reading.elapsed());
            }
            self.body = body?;
            self.holding().grow(BODY_FACTOR * self.body.len());
            self.caller.share.pause().await;
        }
        Ok(has_body)
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0") || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether a proof may be used again within its time: two of one second are the same event.
fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
