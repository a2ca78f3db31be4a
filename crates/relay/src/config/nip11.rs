//! The sections that clients are told by NIP-11: limitation, information.

use nostr_protocol::PublicKey;

use super::{
    section::section,
    value::{public_key, text},
};

section! {
    /// Limits for clients, told in NIP-11.
    pub struct Limitation for "limitation" in config.limitation {
        /// One WebSocket message.
        max_message_length: usize = "1048576" in "bytes", by integer(1_024..=64 << 20);
        /// One event; at most `max_message_length`.
        max_event_length: usize = "262144" in "bytes", by integer(512..=64 << 20);
        /// Subscriptions open at one time on one connection.
        max_subscriptions: usize = "300" in "subscriptions", by integer(1..=100_000);
        /// Filters in one REQ or COUNT.
        max_filters: usize = "100" in "filters", by integer(1..=10_000);
        /// Events for one filter; a larger `limit` is cut to it.
        max_limit: usize = "500" in "events", by integer(1..=100_000);
        /// Events for a filter without `limit` and `ids`; at most `max_limit`.
        default_limit: usize = "500" in "events", by integer(1..=100_000);
        /// Work of one REQ, COUNT or NEG-OPEN. Beyond it a COUNT is approximate, and the others are closed.
        max_query_cost: u64 = "1000000" in "units", by integer(10_000..=1_000_000_000);
        /// Length of a subscription's id.
        max_subid_length: usize = "64" in "characters", by integer(1..=1_024);
        /// Tags of one event.
        max_event_tags: usize = "2500" in "tags", by integer(1..=100_000);
        /// Values of one tag, or of `kinds`, in a filter.
        max_tag_values: usize = "1000" in "values", by integer(1..=100_000);
        /// Authors in a filter.
        max_authors: usize = "10000" in "authors", by integer(1..=100_000);
        /// Ids in a filter. A filter of ids without `limit` gets all of them.
        max_ids: usize = "10000" in "ids", by integer(1..=100_000);
        /// Time by which `created_at` may lie ahead; any age behind is taken.
        created_at_upper_limit_secs as "created_at_upper_limit": u64 = "900" in "s", by integer(0..=31_536_000);
    }
}

section! {
    /// The relay's description in NIP-11 and on the page at `/`.
    pub struct Information for "information" in config.information {
        /// A short name.
        name: String = "rnostr", by parsed(text);
        /// Purpose of the relay.
        description: String
            = "A Nostr relay that is also the delivery service for MLS groups and Noise direct messages.",
            by parsed(text);
        /// The operator's public key, hex or `npub`.
        pubkey: Option<PublicKey> = "", by optional(public_key);
        /// The relay's own public key, hex or `npub`.
        self_pubkey as "self": Option<PublicKey> = "", by optional(public_key);
        /// Another way to reach the operator, as `mailto:admin@example.com`.
        contact: Option<String> = "", by optional(text);
        /// URL of a square picture.
        icon: Option<String> = "", by optional(text);
        /// URL of a wide picture.
        banner: Option<String> = "", by optional(text);
        /// URL of the privacy policy.
        privacy_policy: Option<String> = "", by optional(text);
        /// URL of the terms of service.
        terms_of_service: Option<String> = "", by optional(text);
    }
}
