//! `POST login`: one proof of a key (NIP-98) gives a token for reading.
//!
//! Source: docs/rules.md, "Console". The proof is paid and used like that of every REST request that changes something,
//! and the look for a group that the key administers is paid like any read.

use axum::http::StatusCode;
use nostr_extensions::NostrGroupId;
use nostr_protocol::Rejection;
use serde::Serialize;

use super::token::TOKEN_SECS;
use crate::{
    error::read_failed,
    observe::info::VERSION,
    rate_limit::Cause,
    rest::{Answer, GROUPS_PER_TURN_MAX, Problem, Visit, cost},
    session::{
        archive::{MEMBERSHIP_UNITS, Meter, NAMED_GROUP_UNITS},
        settling,
    },
};

/// A key that was let in.
#[derive(Serialize)]
struct LoginAnswer {
    token: String,
    /// Seconds for which the token counts.
    expires_in: u64,
    pubkey: String,
    npub: String,
    /// `operator` or `group_admin`.
    role: &'static str,
    /// The path of the REST API; null while it is off.
    api_prefix: Option<String>,
    /// The URL that an AUTH event names.
    relay_url: String,
    version: &'static str,
    /// The URL that the proof of a call of NIP-86 names.
    nip86_url: String,
}

/// Lets a key in that is one of `admin_pubkeys`, or an admin of a group.
pub(super) async fn login(visit: Visit) -> Result<Answer, Problem> {
    let key = visit.key()?;
    let app = visit.app();
    let is_operator = app.policy().is_admin(&key);
    if !is_operator && !administers(&visit).await? {
        let text = "restricted: the console lets in the keys in admin_pubkeys, and the admins of a managed group";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let gateway = &app.config.mls_gateway;
    let http_url = visit.own_url();
    let answer = LoginAnswer {
        token: app.console.tokens.make(&key, app.clock.now()),
        expires_in: TOKEN_SECS,
        pubkey: key.to_hex(),
        npub: key.to_npub(),
        role: if is_operator { "operator" } else { "group_admin" },
        api_prefix: gateway.enable_api.then(|| gateway.api_prefix.clone()),
        relay_url: match &app.config.server.public_url {
            Some(url) => url.to_string(),
            // `http` becomes `ws`, and `https` becomes `wss`.
            None => http_url.replacen("http", "ws", 1),
        },
        version: VERSION,
        nip86_url: format!("{http_url}/"),
    };
    Answer::json(&visit, &answer).await
}

/// Whether the caller's key is an admin of a group.
async fn administers(visit: &Visit) -> Result<bool, Problem> {
    let app = visit.app();
    let mut meter = Meter::new(&visit.caller);
    let ids = memberships(visit, &mut meter).await?;
    for some in ids.chunks(GROUPS_PER_TURN_MAX) {
        meter.may_go_on().map_err(Rejection::from)?;
        meter.charge(cost(app, NAMED_GROUP_UNITS, some.len()));
        let turn = meter.turn_at_store().await;
        let states = app.groups.get_all(&some.iter().collect::<Vec<_>>()).await.map_err(read_failed)?;
        drop(turn);
        if states.iter().any(|state| app.gate.show_to_admin(state.group(), &visit.caller.reader).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The groups of which the caller's key is a member, in the order of their ids.
pub(super) async fn memberships(visit: &Visit, meter: &mut Meter<'_>) -> Result<Vec<NostrGroupId>, Problem> {
    let app = visit.app();
    meter.may_go_on().map_err(Rejection::from)?;
    app.delivery.fresh().await?;
    let turn = meter.turn_at_store().await;
    let mut ids = app.store.groups_of(visit.caller.reader.keys()).await.map_err(read_failed)?;
    drop(turn);
    meter.charge(cost(app, MEMBERSHIP_UNITS, ids.len().max(1)));
    ids.sort_unstable();
    // As for REST's list, the access service's answers are young enough, and a closed group shows nothing.
    let invited = settling::invited(&visit.caller, meter, &ids).await.map_err(Rejection::from)?;
    let cause = |id: &NostrGroupId| if invited.contains(id) { Cause::Invited } else { Cause::Acted };
    for some in ids.clone().chunks(GROUPS_PER_TURN_MAX) {
        let closed = settling::for_ids(&visit.caller, meter, some, cause).await.map_err(Rejection::from)?.closed();
        ids.retain(|id| !closed.contains(id));
    }
    Ok(ids)
}
