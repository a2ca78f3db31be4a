//! `GET configuration`: every key with its value in force and the place that set it. Secrets have no value here.

use serde::Serialize;

use super::door::Operator;
use crate::{
    config::{ShownKey, shown_keys},
    rest::{Answer, Problem},
};

#[derive(Serialize)]
struct ConfigurationAnswer {
    keys: Vec<ShownKey>,
}

/// The configuration in force.
pub(super) async fn configuration(Operator(visit): Operator) -> Result<Answer, Problem> {
    let config = visit.app().management.configured();
    Answer::json(&visit, &ConfigurationAnswer { keys: shown_keys(&config, crate::manage::is_live) }).await
}
