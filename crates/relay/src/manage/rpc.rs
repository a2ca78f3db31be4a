//! The door of NIP-86: `POST` to the endpoint, with a proof (NIP-98) of an admin key.
//!
//! An order from a blocked address is taken too, since only an admin key can give one: so a wrong block can be undone.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    response::{IntoResponse as _, Response},
};
use nostr_protocol::Rejection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Management, Ordered, StandingOrders, order::Asked};
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

/// The answer to an admin: the result, or the reason why there is none.
async fn visit(app: &Arc<App>, request: Request) -> Result<Value, Problem> {
    let visit = Visit::of(request, app, MEDIA_TYPE).await?;
    let key = visit.key()?;
    let policy = app.policy();
    if !policy.is_admin(&key) {
        return Err(Rejection::restricted("only the keys in admin_pubkeys manage this relay").into());
    }
    let call: Call = serde_json::from_slice(visit.body())
        .map_err(|_| Problem::bad_parameter("the body is {\"method\":\"…\",\"params\":[…]} (NIP-86)"))?;
    let asked = Asked::read(&call.method, &call.params, &policy, visit.address());
    drop(policy);
    let done = match asked {
        Ok(Asked::Order { order, method, reason }) => {
            let at = app.clock.now();
            let ordered = Ordered { order, method, reason, by: key, at };
            app.management.carry_out(&ordered).await.map(|()| {
                app.delivery.tell_of_orders();
                json!(true)
            })
        }
        Ok(question) => app.management.result(&question).await,
        Err(reason) => Err(reason),
    };
    Ok(match done {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "result": Value::Null, "error": error }),
    })
}

impl Management {
    /// The answer to a question, by the record as of now.
    async fn result(&self, question: &Asked) -> Result<Value, String> {
        let mut known = self.known.lock().await;
        self.look(&mut known).await?;
        let standing: &StandingOrders = &known.standing;
        let kinds = &known.config.kinds.allowed;
        Ok(question.result(standing, (!kinds.is_empty()).then_some(kinds)))
    }
}
