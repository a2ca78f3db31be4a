//! The routes of the API, each of which the document states.

use std::sync::Arc;

use axum::{
    Router,
    http::{Method, StatusCode},
    routing::{MethodRouter, get, post},
};

use super::{Problem, diagnose, document, events, groups, key_packages, messages, refresh};
use crate::app::App;

/// A door: its method, its path, and its handler.
type Route = (Method, &'static str, fn() -> MethodRouter<Arc<App>>);

/// Every door.
const ROUTES: &[Route] = &[
    (Method::GET, "/openapi.json", || get(document::json)),
    (Method::GET, "/docs", || get(document::html)),
    (Method::GET, "/groups", || get(groups::all)),
    (Method::GET, "/groups/{group_id}", || get(groups::one)),
    (Method::GET, "/groups/{group_id}/members", || get(groups::members)),
    (Method::GET, "/groups/{group_id}/roster", || get(groups::roster)),
    (Method::POST, "/groups/{group_id}/refresh", || post(refresh::refresh)),
    (Method::GET, "/keypackages", || get(key_packages::owner::of_owner)),
    (Method::GET, "/messages", || get(messages::of_group)),
    (Method::GET, "/inbox", || get(messages::inbox)),
    (Method::GET, "/events/{id}", || get(events::one)),
    (Method::POST, "/events", || post(events::publish)),
    (Method::POST, "/diagnose", || post(diagnose::diagnose)),
    (Method::POST, "/keypackages/claim", || post(key_packages::claim::claim)),
    (Method::GET, "/keypackages/stock", || get(key_packages::stock::stock)),
];

/// The router of all doors, which refuses everything else by a problem document.
pub(super) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for (_, path, door) in ROUTES {
        router = router.route(path, door());
    }
    let no_method = async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid: this path has other methods");
    router.method_not_allowed_fallback(no_method).fallback(async || Problem::not_found()).with_state(Arc::clone(app))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::openapi::path::PathItem;

    use super::*;
    use crate::config::Config;

    fn methods(item: &PathItem) -> Vec<Method> {
        let there = [(&item.get, Method::GET), (&item.post, Method::POST)];
        there.into_iter().filter(|(operation, _)| operation.is_some()).map(|(_, method)| method).collect()
    }

    #[test]
    fn the_document_states_every_route_and_nothing_else() {
        let document = document::document(&Config::default());
        let stated: BTreeSet<String> = document
            .paths
            .paths
            .iter()
            .flat_map(|(path, item)| methods(item).into_iter().map(move |method| format!("{method} {path}")))
            .collect();
        let listed: BTreeSet<String> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        assert_eq!(stated, listed);
    }
}
