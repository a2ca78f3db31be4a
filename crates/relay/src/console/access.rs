//! `GET access`: who may use the relay: the configured lists, the orders of NIP-86, and who gave them.

use nostr_protocol::Rejection;
use nostr_store::Cost;
use serde_json::{Value, json};

use super::door::Operator;
use crate::{
    rest::{Answer, Problem},
    session::archive::Meter,
};

/// Bytes that an entry of a list takes before it is written, about.
const ENTRY_BYTES: usize = 512;

/// The lists in force, with the newest orders first.
pub(super) async fn access(Operator(visit): Operator) -> Result<Answer, Problem> {
    let app = visit.app();
    let mut meter = Meter::new(&visit.caller);
    meter.may_go_on().map_err(Rejection::from)?;
    meter.charge(Cost::of_documents(1));
    let standing = app.management.listed().await;
    // The reason begins with its word already.
    let standing = standing.map_err(|text| Rejection::error(text.trim_start_matches("error: ").to_owned()))?;
    let shown = app.management.shown();
    let (config, information) = (&shown.config, &shown.config.information);
    let hex = |keys: &[nostr_protocol::PublicKey]| keys.iter().map(|key| key.to_hex()).collect::<Vec<_>>();
    let own = json!({
        "whitelist": hex(&config.auth.pubkey_whitelist),
        "admins": hex(&config.mls_gateway.admin_pubkeys),
        "name": information.name,
        "description": information.description,
        "icon": information.icon,
    });
    let mut answer = own.as_object().cloned().unwrap_or_default();
    answer.extend(standing);
    let entries: usize = answer.values().filter_map(Value::as_array).map(Vec::len).sum();
    meter.charge(Cost::of_units(entries as u64));
    visit.holding().grow(ENTRY_BYTES * entries);
    Answer::json(&visit, &answer).await
}
