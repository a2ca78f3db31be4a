//! Kinds 443 and 30443, KeyPackage: one directory, in two forms.
//!
//! Source: MLS Gateway specification, "KeyPackage Validation (Kind 443)"; RFC 9420, section 10; decisions,
//! "KeyPackages". The event is never rewritten: clients get it as its owner signed it.

use nostr_protocol::{Event, PublicKey, Rejection};

use crate::admit::{Context, Verdict};

/// What the directory knows about a KeyPackage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub owner: PublicKey,
    /// Its reference (`kpr` or `i`), where one is given.
    pub reference: Option<Box<str>>,
    /// SHA-256 of the KeyPackage's bytes without an MLSMessage around them, or of the content where that is not
    /// readable: what tells twins from different KeyPackages.
    pub content_hash: [u8; 32],
    /// Whether it is marked as one of last resort (RFC 9420, section 16.8), and so never used up.
    pub last_resort: bool,
}

/// Its author publishes it.
pub(crate) fn admit(_event: &Event, _cx: &Context<'_>) -> Result<Verdict, Rejection> {
    Err(Rejection::error("under construction"))
}
