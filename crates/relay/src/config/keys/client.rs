//! `[limitation]` and `[information]`, which clients are told by NIP-11.

use super::{
    super::value::{public_key, text},
    Key, key, put,
};

pub(super) const LIMITATION: &[Key] = &[
    key("max_message_length", "524288", "bytes", "One WebSocket message.", |c, v| {
        put(&mut c.limitation.max_message_length, v.integer(1_024..=64 << 20))
    }),
    key("max_event_length", "262144", "bytes", "One event; at most `max_message_length`.", |c, v| {
        put(&mut c.limitation.max_event_length, v.integer(512..=64 << 20))
    }),
    key("max_subscriptions", "300", "subscriptions", "Open at one time on one connection.", |c, v| {
        put(&mut c.limitation.max_subscriptions, v.integer(1..=100_000))
    }),
    key("max_filters", "100", "filters", "In one REQ or COUNT.", |c, v| {
        put(&mut c.limitation.max_filters, v.integer(1..=10_000))
    }),
    key("max_limit", "500", "events", "For one filter; a larger `limit` is cut to it.", |c, v| {
        put(&mut c.limitation.max_limit, v.integer(1..=100_000))
    }),
    key("default_limit", "500", "events", "For a filter without `limit`; at most `max_limit`.", |c, v| {
        put(&mut c.limitation.default_limit, v.integer(1..=100_000))
    }),
    key("max_subid_length", "64", "characters", "A subscription's id.", |c, v| {
        put(&mut c.limitation.max_subid_length, v.integer(1..=1_024))
    }),
    key("max_event_tags", "2500", "tags", "Of one event.", |c, v| {
        put(&mut c.limitation.max_event_tags, v.integer(1..=100_000))
    }),
    key(
        "max_tag_values",
        "1000",
        "values",
        "In one list of a filter: a tag's, or `ids`, `authors`, `kinds`.",
        |c, v| put(&mut c.limitation.max_tag_values, v.integer(1..=100_000)),
    ),
    key(
        "created_at_upper_limit",
        "900",
        "s",
        "How far `created_at` may lie ahead; any age behind is taken.",
        |c, v| put(&mut c.limitation.created_at_upper_limit_secs, v.integer(0..=31_536_000)),
    ),
];

pub(super) const INFORMATION: &[Key] = &[
    key("name", "rnostr", "", "A short name.", |c, v| put(&mut c.information.name, v.parsed(text))),
    key(
        "description",
        "A Nostr relay that is also the delivery service for MLS groups and Noise direct messages.",
        "",
        "What the relay is for.",
        |c, v| put(&mut c.information.description, v.parsed(text)),
    ),
    key("pubkey", "", "", "The operator's public key, hex or `npub`.", |c, v| {
        put(&mut c.information.pubkey, v.optional(public_key))
    }),
    key("self", "", "", "The relay's own public key, hex or `npub`.", |c, v| {
        put(&mut c.information.self_pubkey, v.optional(public_key))
    }),
    key("contact", "", "", "Another way to reach the operator, as `mailto:admin@example.com`.", |c, v| {
        put(&mut c.information.contact, v.optional(text))
    }),
    key("icon", "", "", "URL of a square picture.", |c, v| put(&mut c.information.icon, v.optional(text))),
    key("banner", "", "", "URL of a wide picture.", |c, v| put(&mut c.information.banner, v.optional(text))),
    key("privacy_policy", "", "", "URL of the privacy policy.", |c, v| {
        put(&mut c.information.privacy_policy, v.optional(text))
    }),
    key("terms_of_service", "", "", "URL of the terms of service.", |c, v| {
        put(&mut c.information.terms_of_service, v.optional(text))
    }),
];
