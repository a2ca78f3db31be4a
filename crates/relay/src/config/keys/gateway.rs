//! `[extensions.mls_gateway]` and its rate limits.

use nostr_store::postgres::Postgres;

use super::{
    super::{
        gateway::{KeyPackageConsumption, MembershipSource, StorageBackend, VerifyKeyPackages, WakeBy},
        server::Secret,
        value::{api_prefix, http_url, one_of, public_key, redis_url, secret, text},
    },
    Key, key, put,
};

/// Ten years: long enough for anyone, and far from where sums of times overflow.
const TTL_SECS_MAX: u64 = 3_650 * 86_400;
const TTL_DAYS_MAX: u64 = 3_650;
/// decisions.md, 2: a KeyPackage request lives at most 7 days.
const REQUEST_TTL_SECS_MAX: u64 = 7 * 86_400;

fn storage_backend(text: &str) -> Result<StorageBackend, String> {
    match text {
        "embedded" => Ok(StorageBackend::Embedded),
        "cloudsql" | "postgres" => Ok(StorageBackend::Postgres),
        "firestore" if cfg!(feature = "firestore") => Ok(StorageBackend::Firestore),
        "firestore" => Err("storage_backend \"firestore\" is not in this build; build with --features \
            mls_gateway_firestore, or write \"embedded\" or \"cloudsql\""
            .to_owned()),
        _ => Err("unknown value; write \"embedded\", \"cloudsql\" or \"firestore\"".to_owned()),
    }
}

/// Kept as it is, and known to lead somewhere.
fn database_url(text: &str) -> Result<Secret, String> {
    match Postgres::describe(text) {
        Ok(_) => secret(text),
        Err(error) => Err(error.to_string()),
    }
}

fn membership_source(text: &str) -> Result<MembershipSource, String> {
    match text {
        "roster" => Ok(MembershipSource::Roster),
        "giftwrap" => Ok(MembershipSource::GiftWrap),
        "acl" => Err("membership source \"acl\" is not in this build; use \"roster\" and \"giftwrap\"".to_owned()),
        _ => Err("unknown value; write \"roster\" or \"giftwrap\"".to_owned()),
    }
}

/// The strongest first, each once.
fn in_order(mut sources: Vec<MembershipSource>) -> Vec<MembershipSource> {
    sources.sort_unstable();
    sources.dedup();
    sources
}

pub(super) const MLS_GATEWAY: &[Key] = &[
    key(
        "storage_backend",
        "embedded",
        "",
        "Where events and groups are kept: `embedded` (in `[data] path`), `cloudsql` (PostgreSQL; `postgres` is the \
         same) or `firestore` (in a build with `--features mls_gateway_firestore`).",
        |c, v| put(&mut c.mls_gateway.storage_backend, v.parsed(storage_backend)),
    ),
    key("project_id", "", "", "The Google Cloud project of `firestore`.", |c, v| {
        put(&mut c.mls_gateway.project_id, v.optional(text))
    }),
    key(
        "database_url",
        "",
        "",
        "The database of `cloudsql`: `postgresql://user:password@host/db`, with `?sslmode=` and `sslrootcert=` for \
         TLS, or `?host=/directory` for a socket.",
        |c, v| put(&mut c.mls_gateway.database_url, v.optional(database_url)),
    ),
    key(
        "max_connections",
        "(twice the cores, at most 20)",
        "connections",
        "Most connections of an instance to `cloudsql`; one more listens.",
        |c, v| put(&mut c.mls_gateway.max_connections, v.integer(2..=1_000).map(Some)),
    ),
    key("firestore_batch_size", "500", "writes", "Most writes of one commit to `firestore`, 20 to 500.", |c, v| {
        put(&mut c.mls_gateway.firestore_batch_size, v.integer(20..=500))
    }),
    key(
        "wake",
        "store",
        "",
        "How instances that share a store wake each other: `store`, by its own notifications; `redis`, over `redis_url`.",
        |c, v| {
            let known = [("store", WakeBy::Store), ("redis", WakeBy::Redis)];
            put(&mut c.mls_gateway.wake, v.parsed(|text| one_of(text, &known)))
        },
    ),
    key(
        "redis_url",
        "",
        "",
        "The Redis that `wake = \"redis\"` uses, `redis://host:6379` or `rediss://…`.",
        |c, v| put(&mut c.mls_gateway.redis_url, v.optional(redis_url)),
    ),
    key("keypackage_ttl", "86400", "s", "How long a KeyPackage is kept that names no end of its own.", |c, v| {
        put(&mut c.mls_gateway.keypackage_ttl_secs, v.integer(1..=TTL_SECS_MAX))
    }),
    key("keypackage_max_lifetime", "7776000", "s", "How long any KeyPackage is kept, whatever it names.", |c, v| {
        put(&mut c.mls_gateway.keypackage_max_lifetime_secs, v.integer(1..=TTL_SECS_MAX))
    }),
    key("welcome_ttl", "3600", "s", "How long a gift wrap is kept when the archive is off.", |c, v| {
        put(&mut c.mls_gateway.welcome_ttl_secs, v.integer(1..=TTL_SECS_MAX))
    }),
    key("enable_api", "true", "", "Whether the REST API is served.", |c, v| {
        put(&mut c.mls_gateway.enable_api, v.boolean())
    }),
    key("api_prefix", "/api/v1/mls", "", "Where the REST API lies.", |c, v| {
        put(&mut c.mls_gateway.api_prefix, v.parsed(api_prefix))
    }),
    key("enable_message_archive", "true", "", "Whether 445, 446 and 1059 are kept for those who are away.", |c, v| {
        put(&mut c.mls_gateway.enable_message_archive, v.boolean())
    }),
    key("message_archive_ttl_days", "30", "days", "How long they are kept, from receipt.", |c, v| {
        put(&mut c.mls_gateway.message_archive_ttl_days, v.integer(1..=TTL_DAYS_MAX))
    }),
    key("system_pubkey", "", "", "The relay's own key, which may publish 447; hex or `npub`.", |c, v| {
        put(&mut c.mls_gateway.system_pubkey, v.optional(public_key))
    }),
    key("admin_pubkeys", "", "", "The relay's admins, who may publish 447 and 450; hex or `npub`.", |c, v| {
        put(&mut c.mls_gateway.admin_pubkeys, v.list(public_key))
    }),
    key("keypackage_request_ttl", "604800", "s", "Longest life of a KeyPackage request; at most 7 days.", |c, v| {
        put(&mut c.mls_gateway.keypackage_request_ttl_secs, v.integer(1..=REQUEST_TTL_SECS_MAX))
    }),
    key("roster_policy_ttl_days", "365", "days", "How long 450s are kept; the group's state outlives them.", |c, v| {
        put(&mut c.mls_gateway.roster_policy_ttl_days, v.integer(1..=TTL_DAYS_MAX))
    }),
    key(
        "membership_sources",
        "roster,giftwrap",
        "",
        "What makes someone a member: `roster` (450), `giftwrap` (1059 with an `h`).",
        |c, v| put(&mut c.mls_gateway.membership_sources, v.list(membership_source).map(in_order)),
    ),
    key("open_bootstrap", "false", "", "Whether anyone who may write may `bootstrap` a group.", |c, v| {
        put(&mut c.mls_gateway.open_bootstrap, v.boolean())
    }),
    key(
        "unlisted_groups",
        "(the opposite of `auth.enabled`)",
        "",
        "Whether a 445 whose `h` is 64 hex digits needs no group record: who names the `h` reads it.",
        |c, v| put(&mut c.mls_gateway.unlisted_groups, v.boolean()),
    ),
    key(
        "verify_keypackages",
        "log",
        "",
        "A KeyPackage whose bytes do not keep what its tags say: `log`, `enforce` (refuse) or `off`.",
        |c, v| {
            use VerifyKeyPackages::{Enforce, Log, Off};
            let known = [("log", Log), ("enforce", Enforce), ("off", Off)];
            put(&mut c.mls_gateway.verify_keypackages, v.parsed(|text| one_of(text, &known)))
        },
    ),
    key(
        "keypackage_consumption",
        "never",
        "",
        "`never`: reading changes nothing. `on_read`: a REQ with `authors` uses up what it is served.",
        |c, v| {
            let known = [("never", KeyPackageConsumption::Never), ("on_read", KeyPackageConsumption::OnRead)];
            put(&mut c.mls_gateway.keypackage_consumption, v.parsed(|text| one_of(text, &known)))
        },
    ),
    key("acl_url", "", "", "The operator's membership service; the source `acl` is not in this build.", |c, v| {
        put(&mut c.mls_gateway.acl_url, v.optional(http_url))
    }),
    key("acl_token", "", "", "Bearer token for it.", |c, v| put(&mut c.mls_gateway.acl_token, v.optional(secret))),
    key("group_cache_ttl", "60", "s", "The most age of a cached state of a group.", |c, v| {
        put(&mut c.mls_gateway.group_cache_ttl_secs, v.integer(0..=86_400))
    }),
    key("acl_stale_max", "300", "s", "How long its last answer stands while it cannot be reached.", |c, v| {
        put(&mut c.mls_gateway.acl_stale_max_secs, v.integer(0..=86_400))
    }),
    key(
        "keypackage_cache_ttl",
        "300",
        "s",
        "How long a directory answer may be kept; `embedded` always knows the present one.",
        |c, v| put(&mut c.mls_gateway.keypackage_cache_ttl_secs, v.integer(0..=86_400)),
    ),
];

/// A million a minute is more than a core verifies.
const RATE_MAX: u64 = 1_000_000;

pub(super) const RATE_LIMITS: &[Key] = &[
    key(
        "max_events_per_minute",
        "100",
        "events a minute",
        "Every EVENT, of one address and of one sender; and 1059s of one sender to one recipient.",
        |c, v| put(&mut c.mls_gateway.rate_limits.max_events_per_minute, v.integer(0..=RATE_MAX)),
    ),
    key(
        "max_keypackages_per_hour",
        "10",
        "events an hour",
        "443 and 30443, of one address and of one sender.",
        |c, v| put(&mut c.mls_gateway.rate_limits.max_keypackages_per_hour, v.integer(0..=RATE_MAX)),
    ),
    key("max_group_messages_per_minute", "50", "events a minute", "445s of one sender to one group.", |c, v| {
        put(&mut c.mls_gateway.rate_limits.max_group_messages_per_minute, v.integer(0..=RATE_MAX))
    }),
];
