//! The door of NIP-86: `POST` to the endpoint, with a proof (NIP-98) of an admin key.
//!
//! An order from a blocked address is taken too, since only an admin key can give one: so a wrong block can be undone.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    response::{IntoResponse as _, Response},
};
use nostr_protocol::{PublicKey, Rejection};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Management, Ordered, StandingOrders, order::Asked, standing::List};
use crate::{
    app::App,
    rest::{Problem, Visit, is_of_media_type},
};

/// The media type of a request.
const MEDIA_TYPE: &str = "application/nostr+json+rpc";

/// Whether a request is for this door.
pub(crate) fn is_order(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && is_of_media_type(headers, MEDIA_TYPE)
}

/// Answers a request of this door.
pub(crate) async fn answer(app: &Arc<App>, request: Request) -> Response {
    match visit(app, request).await {
        Ok(answer) => ([(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

#[derive(Deserialize)]
struct Call {
    method: String,
    #[serde(default)]
    params: Vec<Value>,
}

/// Refuses a request that is signed by no admin key, before the store is asked whether its proof was used.
fn require_admin(app: &App, signer: Option<PublicKey>) -> Result<(), Problem> {
    let policy = app.policy();
    if policy.admin_keys.is_empty() {
        let text = "this relay is managed by its configuration alone; its operator has set no admin_pubkeys";
        return Err(Rejection::restricted(text).into());
    }
    match signer {
        None => Err(Problem::key_required()),
        Some(key) if policy.is_admin(&key) => Ok(()),
        Some(_) => Err(Rejection::restricted("only the keys in admin_pubkeys manage this relay").into()),
    }
}

/// The answer to an admin: the result, or the reason why there is none.
async fn visit(app: &Arc<App>, request: Request) -> Result<Value, Problem> {
    let visit = Visit::of(request, app, MEDIA_TYPE, require_admin).await?;
    let key = visit.key()?;
    let call: Call = serde_json::from_slice(visit.body())
        .map_err(|_| Problem::bad_parameter("the body is {\"method\":\"…\",\"params\":[…]} (NIP-86)"))?;
    let asked = Asked::read(&call.method, &call.params, &app.policy(), visit.address());
    let done = match asked {
        Ok(Asked::Order { order, method, reason }) => {
            carry_out(app, Ordered { order, method, reason, by: key, at: app.clock.now() }).await
        }
        Ok(question) => app.management.result(&question).await,
        Err(reason) => Err(reason),
    };
    Ok(match done {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "result": Value::Null, "error": error }),
    })
}

/// Carries an order out in a task of its own: a client that goes away drops the task of its request, and an order that
/// is in the store is to be in force on this instance too. A stop waits for the task as for a connection.
async fn carry_out(app: &Arc<App>, ordered: Ordered) -> Result<Value, String> {
    let ordering = Arc::clone(app);
    let task = async move {
        ordering.management.carry_out(&ordered).await?;
        ordering.delivery.tell_of_orders();
        Ok(json!(true))
    };
    let ended = app.connections.spawn(task).await;
    ended.unwrap_or_else(|_| Err("error: the order may not be carried out; ask for the list".to_owned()))
}

impl Management {
    /// The lists of the standing orders, as the console shows them.
    ///
    /// # Errors
    /// In words for the admin, where the record cannot be read.
    pub(crate) async fn listed(&self) -> Result<Map<String, Value>, String> {
        self.look().await?;
        let known = self.known.lock();
        let kinds = &known.config.kinds.allowed;
        let listed_kinds = (!kinds.is_empty()).then_some(&kinds[..]);
        let lists = [
            ("banned_keys", Asked::List(List::BannedKeys)),
            ("allowed_keys", Asked::List(List::AllowedKeys)),
            ("banned_events", Asked::List(List::BannedEvents)),
            ("blocked_ips", Asked::List(List::BlockedAddresses)),
            ("allowed_kinds", Asked::AllowedKinds),
            ("refused_kinds", Asked::RefusedKinds),
            ("audit", Asked::Audit),
        ];
        let lists = lists.into_iter();
        Ok(lists.map(|(name, asked)| (name.to_owned(), asked.result(&known.standing, listed_kinds))).collect())
    }

    /// The answer to a question, by the record as of now.
    async fn result(&self, question: &Asked) -> Result<Value, String> {
        self.look().await?;
        let known = self.known.lock();
        let standing: &StandingOrders = &known.standing;
        let kinds = &known.config.kinds.allowed;
        Ok(question.result(standing, (!kinds.is_empty()).then_some(kinds)))
    }
}
