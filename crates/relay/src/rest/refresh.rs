//! The access service says that a group has changed, and is asked at once.
//!
//! Source: docs/rules.md, "Access service" 9. The service authenticates by the token that the relay sends it, and not
//! by NIP-98: it has no key.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use nostr_extensions::NostrGroupId;
use nostr_protocol::Rejection;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Problem, path::PathValues, problem::ProblemDocument};
use crate::app::App;

/// The outcome of a refresh.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refreshed {
    /// Always true: a failure is a problem.
    #[schema(example = true)]
    refreshed: bool,
}

/// Asks the access service about a group at once.
///
/// Every instance goes by the new answer when this is answered. It needs the bearer token `acl_token`, and is not there
/// without the source `acl`.
#[utoipa::path(post, path = "/groups/{group_id}/refresh", tag = "groups", security(("acl_token" = [])),
    params(("group_id" = String, Path, description = "The group's `h`, percent-encoded.", example = "grp_abc123")),
    responses(
        (status = 200, description = "The service was asked, and its answer is in force.", body = Refreshed),
        (status = 401, description = "No token, or a wrong one.", body = ProblemDocument),
        (status = 404, description = "The relay has no access service, or the id is none of a group.",
            body = ProblemDocument),
        (status = 429, description = "Too many requests.", body = ProblemDocument),
        (status = 503, description = "The service does not answer; the group is closed until it does.",
            body = ProblemDocument),
    ))]
pub(super) async fn refresh(
    State(app): State<Arc<App>>,
    path: PathValues,
    headers: HeaderMap,
) -> Result<axum::Json<Refreshed>, Problem> {
    let (Some(access), Some(token)) = (&app.access, &app.config.mls_gateway.acl_token) else {
        return Err(Problem::not_found());
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !given.is_some_and(|given| token.matches(given)) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "auth-required: send Authorization: Bearer <acl_token>"));
    }
    let id = path.get("group_id").and_then(NostrGroupId::parse).ok_or_else(Problem::not_found)?;
    let closed = |_| Problem::from(Rejection::error("the access service does not answer; try again"));
    access.refresh(&id).await.map_err(closed)?;
    Ok(axum::Json(Refreshed { refreshed: true }))
}
