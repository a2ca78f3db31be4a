//! Errors that several parts of the relay share.

use nostr_protocol::Rejection;
use nostr_store::StoreError;

/// Reason why the relay did not start; the text is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }
}

/// Tells a client to try again: the store, or its log, does not answer.
pub(crate) fn storage_unavailable() -> Rejection {
    Rejection::error("storage unavailable, try again")
}

/// Logs that the store could not be read, and tells the client to try again.
#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn read_failed(error: StoreError) -> Rejection {
    if let StoreError::UsedUp(secs) = error {
        return Rejection::rate_limited(format!("this relay has read all that it may for now; retry in {secs} s"));
    }
    tracing::warn!(%error, "reading failed");
    storage_unavailable()
}
