//! A claim of a KeyPackage by REST.

use nostr_protocol::sign::SecretKey;
use serde_json::json;

use super::{
    super::client::{Reply, Rest, Trouble},
    Address,
};

/// The relay's answer to a claim.
pub(super) enum Claimed {
    /// The ids of the events of the KeyPackages.
    Given(Vec<String>),
    /// The relay has no such door.
    NoDoor,
    /// The reason of a refusal.
    Refused(String),
}

/// Claims one KeyPackage of `owner`.
///
/// # Errors
/// The relay gives no answer.
pub(super) async fn claim(relay: &Address, keys: &SecretKey, owner: &str) -> Result<Claimed, Trouble> {
    let reply = Rest::new(relay, Some(keys))?.post("/keypackages/claim", &json!({"owner": owner})).await?;
    Ok(match reply {
        Reply::Found(body) => {
            let given = body["keypackages"].as_array().map(Vec::as_slice).unwrap_or_default();
            Claimed::Given(given.iter().filter_map(|it| Some(it["event"]["id"].as_str()?.to_owned())).collect())
        }
        Reply::NoDoor => Claimed::NoDoor,
        Reply::Refused(refusal) => Claimed::Refused(refusal.to_string()),
    })
}
