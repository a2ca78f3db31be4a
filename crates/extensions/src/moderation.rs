//! The operator's orders about single keys, events and kinds, as the rules read them.
//!
//! Source: NIP-86; docs/rules.md, "Management". A ban holds wherever an event is admitted ([`crate::admit`]) or read
//! ([`crate::Gate`]), and nowhere else.

use std::collections::HashSet;

use nostr_protocol::{EventId, Kind, PublicKey};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moderation {
    /// Set while the store has not told the orders. Nothing is admitted or served then.
    pub is_unknown: bool,
    /// Keys that neither publish nor read. An admin key among them counts as not banned.
    pub banned_keys: HashSet<PublicKey>,
    /// Events that are neither taken nor served.
    pub banned_events: HashSet<EventId>,
    /// Residents beside those of the configuration, where it has a list.
    pub allowed_keys: HashSet<PublicKey>,
    /// Kinds beside those of the configuration, where it has a list.
    pub allowed_kinds: HashSet<Kind>,
    /// Kinds that are not taken, whatever the configuration says.
    pub refused_kinds: HashSet<Kind>,
}
