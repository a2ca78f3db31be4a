//! KeyPackages of an owner, as the directory has them.
//!
//! Source: MLS Gateway specification, "KeyPackage Retrieval"; docs/rules.md, "KeyPackages" and "REST". A read consumes
//! nothing. Events that hold the same KeyPackage are listed once.

use std::collections::HashSet;

use nostr_extensions::{
    Released,
    effect::NEVER,
    mls_gateway::key_package::{Described, ciphersuite, suite_name},
};
use nostr_protocol::{EventId, Filter, Kind, PublicKey, Rejection};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    rest::{
        Answer, Problem, Visit,
        answer::EventJson,
        cursor::Question,
        events::Event,
        list::{self, List},
        problem::ProblemDocument,
    },
    session::archive::{ArchiveRead, Limits},
    system::time::rfc3339,
};

/// Most KeyPackages of one page.
const KEY_PACKAGES_MAX: usize = 500;
/// Most KeyPackages that one request remembers, so that none is listed twice.
const SEEN_MAX: usize = 10_000;

/// A KeyPackage.
#[derive(Serialize, ToSchema)]
#[schema(title = "KeyPackage")]
pub(crate) struct KeyPackageInfo {
    /// The owner's key, in hex.
    #[schema(example = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")]
    owner: String,
    /// The reference that its event gives (`kpr`, else `i`), else that of its bytes; null where there is neither.
    #[schema(example = "kpr_abc123")]
    key_reference: Option<String>,
    /// The ciphersuite's name in RFC 9420, or its number; null where neither bytes nor tags tell it.
    #[schema(example = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519")]
    ciphersuite: Option<String>,
    /// The end of its time, in UTC (RFC 3339); null for one that does not end.
    #[schema(example = "2025-01-02T00:00:00Z", format = DateTime)]
    expires_at: Option<String>,
    /// The signed event, with `include=event`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Event>)]
    event: Option<EventJson>,
}

/// A KeyPackage of a page, with its place in NIP-01's order.
type Listed = ((u64, EventId), KeyPackageInfo);

/// KeyPackages of an owner.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyPackageList {
    /// The newest first.
    keypackages: Vec<KeyPackageInfo>,
    /// The cursor of the next page, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A part of the event that the client asks for.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Include {
    /// The signed event.
    Event,
}

/// The KeyPackages that are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// The owner's key, in hex or as npub.
    #[param(example = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")]
    owner: String,
    /// A ciphersuite, by its name in RFC 9420 or by its number (`0x0001`, `1`).
    #[param(example = "0x0001")]
    ciphersuite: Option<String>,
    /// `event` adds the signed events.
    #[param(inline)]
    include: Option<Include>,
    /// Most entries of the answer.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// The `next_cursor` of the answer before.
    cursor: Option<String>,
}

/// The KeyPackages of an owner.
///
/// Without `auth.enabled` no proof is needed. With `keypackage_consumption = "on_read"` a reader sees its own alone.
#[utoipa::path(get, path = "/keypackages", tag = "keypackages", security((), ("nip98" = [])), params(Parameters),
    responses(
        (status = 200, description = "The KeyPackages; none for an unknown owner.", body = KeyPackageList),
        (status = 304, description = "The client has it."),
        (status = 400, description = "A parameter is wrong.", body = ProblemDocument),
        (status = 401, description = "A bad proof, or none where one is needed.", body = ProblemDocument),
        (status = 403, description = "The relay takes no proof of this key, or the request costs too much.",
            body = ProblemDocument),
        (status = 410, description = "The cursor is of another store; begin again.", body = ProblemDocument),
        (status = 429, description = "Too many requests, or too much reading.", body = ProblemDocument),
        (status = 503, description = "The store does not answer.", body = ProblemDocument),
    ))]
pub(in crate::rest) async fn of_owner(visit: Visit) -> Result<Answer, Problem> {
    let Parameters { owner, ciphersuite: suite, include, limit, cursor } = visit.parameters()?;
    let owner =
        PublicKey::from_hex_or_npub(&owner).map_err(|error| Problem::bad_parameter(format!("owner: {error}")))?;
    let wrong = || Problem::bad_parameter("ciphersuite is a name of RFC 9420 or a number, as 0x0001");
    let suite = suite.map(|text| ciphersuite(&text).ok_or_else(wrong)).transpose()?;
    let limit = list::limit(limit, KEY_PACKAGES_MAX)?;
    let app = visit.app();
    let reader = visit.caller.reader.primary().map_or([0; 32], |key| *key.as_bytes());
    let wanted = suite.map_or_else(Vec::new, |suite| suite.to_be_bytes().to_vec());
    let question = Question(&[b"keypackages", &reader, owner.as_bytes(), &wanted]);
    let behind = match cursor {
        Some(cursor) => Some(list::position(&app.cursors.open(question, &cursor)?)?),
        None => None,
    };
    let mut page: List<Listed> = List::new(limit);
    read(&visit, owner, |released, described| {
        let (at, id) = (released.created_at(), released.id());
        let is_behind = behind.is_none_or(|(created_at, last)| at < created_at || (at == created_at && id > last));
        if is_behind && suite.is_none_or(|suite| described.ciphersuite == Some(suite)) && !page.is_full() {
            visit.holding().grow(released.event().record().len());
            page.push(((at, id), info(released, described, include)));
        }
        page.is_full()
    })
    .await?;
    let (found, has_more) = page.end();
    let last = found.last().filter(|_| has_more);
    let next_cursor = last.map(|((at, id), _)| app.cursors.seal(question, &list::place(*at, *id)));
    let keypackages = found.into_iter().map(|(_, info)| info).collect();
    Answer::json(&visit, &KeyPackageList { keypackages, next_cursor }).await
}

/// Calls `visit_one` with each KeyPackage of the owner, the newest first and each once, until it returns `true`.
async fn read(
    visit: &Visit,
    owner: PublicKey,
    mut visit_one: impl FnMut(&Released, &Described) -> bool,
) -> Result<(), Problem> {
    let kinds = Some(vec![Kind::KEY_PACKAGE, Kind::ADDRESSABLE_KEY_PACKAGE]);
    let filters = [Filter { kinds, authors: Some(vec![owner]), ..Filter::default() }];
    let app = visit.app();
    app.gate.admit_request(&visit.caller.reader, &filters)?;
    app.delivery.fresh().await?;
    let mut read = ArchiveRead::new(&visit.caller, &filters, app.groups.readable_up_to(), Limits::NONE);
    let mut seen = HashSet::new();
    while let Some(page) = read.next_page().await.map_err(Rejection::from)? {
        for released in &page {
            let described = visit.app().described.of(released.event());
            if seen.insert(described.content_hash) && visit_one(released, &described) {
                return Ok(());
            }
        }
        if seen.len() > SEEN_MAX {
            return Err(Rejection::blocked("this owner has more KeyPackages than one request lists").into());
        }
    }
    Ok(())
}

fn info(released: &Released, described: &Described, include: Option<Include>) -> KeyPackageInfo {
    let suite = described.ciphersuite;
    let expires_at = released.expires_at();
    KeyPackageInfo {
        owner: released.event().pubkey().to_hex(),
        key_reference: described.reference.as_deref().map(str::to_owned),
        ciphersuite: suite.map(|suite| suite_name(suite).into_owned()),
        expires_at: (expires_at != NEVER).then(|| rfc3339(expires_at)),
        event: include.map(|Include::Event| EventJson::new(released)),
    }
}
