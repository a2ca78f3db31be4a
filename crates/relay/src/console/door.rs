//! The callers of the console's doors: a key that has logged in, and what it administers at this moment.
//!
//! Source: docs/rules.md, "Console". A token proves a key. Every request asks anew whether the key may authenticate,
//! and whether it is one of `admin_pubkeys`; a door for group admins asks the gate by the group's state.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use nostr_protocol::{PublicKey, Rejection};

use super::token::Refused;
use crate::{
    app::App,
    rest::{Problem, Visit},
};

/// The scheme of a token in the header `Authorization`, in lower case.
const SCHEME: &str = "bearer";

/// A request of a key that has logged in. The key may administer nothing any more.
pub(super) struct LoggedIn {
    pub(super) visit: Visit,
    pub(super) key: PublicKey,
}

/// A request of one of `admin_pubkeys`.
pub(super) struct Operator(pub(super) Visit);

impl LoggedIn {
    /// Whether the key is one of `admin_pubkeys`.
    pub(super) fn is_operator(&self) -> bool {
        self.visit.app().policy().is_admin(&self.key)
    }
}

impl FromRequest<Arc<App>> for LoggedIn {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let key = key_of(app, request.headers())?;
        Ok(Self { visit: Visit::by_key(request, app, key).await?, key })
    }
}

impl FromRequest<Arc<App>> for Operator {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let logged_in = LoggedIn::from_request(request, app).await?;
        if !logged_in.is_operator() {
            return Err(Rejection::restricted("this part of the console is for the keys in admin_pubkeys").into());
        }
        Ok(Self(logged_in.visit))
    }
}

/// The key of the only token in the headers.
fn key_of(app: &App, headers: &HeaderMap) -> Result<PublicKey, Problem> {
    let missing = || {
        let text = "log in by POST /console/api/login, and send Authorization: Bearer with the token of its answer";
        Problem::from(Rejection::auth_required(text)).with_code("token")
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(missing());
    }
    app.console.tokens.read(token.trim(), app.clock.now()).map_err(|refused| match refused {
        Refused::Unknown => missing(),
        Refused::Expired => {
            let text = "this token's time is over; log in again by POST /console/api/login";
            Problem::from(Rejection::auth_required(text)).with_code("expired")
        }
    })
}
