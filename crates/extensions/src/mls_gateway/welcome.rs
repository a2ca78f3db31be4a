//! Kind 444, Welcome, and the other kinds that never stand alone: they live inside a gift wrap or inside MLS.
//!
//! Source: MLS Gateway specification, "Supported Nostr Event Kinds" (444); decisions, "Who may publish, who may read".

use nostr_protocol::{Kind, Rejection};

/// Refuses kinds that nobody publishes by themselves.
///
/// # Errors
/// `blocked:`, for 13, 444, 448, 449 and 451.
pub(crate) fn refuse_inner_kinds(kind: Kind) -> Result<(), Rejection> {
    match kind {
        Kind::SEAL | Kind::WELCOME | Kind(448 | 449 | 451) => Err(Rejection::blocked(format!(
            "kind {kind} is never published by itself; send it inside a gift wrap (kind 1059)"
        ))),
        _ => Ok(()),
    }
}
