//! `[extensions.mls_gateway]` and `[extensions.mls_gateway.rate_limits]`.

use std::path::PathBuf;

use nostr_extensions::{
    Source,
    mls_gateway::{group::CommitOrdering, key_package_request},
    policy::{KeyPackageConsumption, VerifyKeyPackages},
};
use nostr_protocol::{DAY_SECS, PublicKey, sign::SecretKey};
use nostr_store::postgres::Postgres;

use super::{
    secret::{Secret, secret},
    section::section,
    value::{api_prefix, http_url, one_of, path, public_key, redis_url, system_key, text},
};

/// Longest lifetime that a key of the configuration may set, in days: ten years, far from where sums of times overflow.
const TTL_DAYS_MAX: u64 = 3_650;
/// Longest lifetime that a key of the configuration may set, in seconds.
const TTL_SECS_MAX: u64 = TTL_DAYS_MAX * DAY_SECS;
/// Largest number of KeyPackages of an owner that the configuration may set. A store that goes through a bounded number
/// of an owner's events could not keep it to a larger one.
const PER_OWNER_MAX: u64 = 93;
const _: () = assert!(PER_OWNER_MAX as usize <= nostr_store::KEY_PACKAGES_KEPT_MAX);
/// Largest rate of the configuration: a million a minute is more than a core verifies.
const RATE_MAX: u64 = 1_000_000;

section! {
    /// Groups, KeyPackages, messages and their lifetimes.
    pub struct MlsGateway for "extensions.mls_gateway" in config.mls_gateway {
        /// Store of events and groups: `embedded` (in `[data] path`), `cloudsql` (PostgreSQL; `postgres` is the same)
        /// or `firestore` (in a build with `--features mls_gateway_firestore`).
        storage_backend: StorageBackend = "embedded", by parsed(storage_backend);
        /// The Google Cloud project of `firestore`.
        project_id: Option<String> = "", by optional(text);
        /// The database of `cloudsql`: `postgresql://user:password@host/db`, with `?sslmode=` and `sslrootcert=` for
        /// TLS, or `?host=/directory` for a socket.
        database_url: Option<Secret> = "", by optional(database_url);
        /// Most connections of an instance to `cloudsql`; one more listens, and one reads orders.
        max_connections: Option<usize> = (None, "twice the cores, at most 20") in "connections",
            by integer(2..=1_000).map(Some);
        /// Most writes of one commit to `firestore`, 20 to 500.
        firestore_batch_size: usize = "500" in "writes", by integer(20..=500);
        /// Documents of `firestore` that one instance reads in a minute for its clients; 0 for any number. One client's
        /// party gets an eighth of it. The reads of saves, admission and live delivery count too, and always go on.
        firestore_reads_per_minute_max: u32 = "60000" in "documents a minute", by integer(0..=READS_MAX);
        /// Notifications between instances that share a store: `store`, by the store itself; `redis`, over `redis_url`.
        wake: WakeBy = "store", by one_of(&[("store", WakeBy::Store), ("redis", WakeBy::Redis)]);
        /// The Redis that `wake = "redis"` uses, `redis://host:6379` or `rediss://…`.
        redis_url: Option<Secret> = "", by optional(redis_url);
        /// Lifetime of a KeyPackage that names no end of its own.
        keypackage_ttl_secs as "keypackage_ttl": u64 = "86400" in "s", by integer(1..=TTL_SECS_MAX);
        /// Longest lifetime of a KeyPackage, even if it names a later end.
        keypackage_max_lifetime_secs as "keypackage_max_lifetime": u64 = "7776000" in "s", by integer(1..=TTL_SECS_MAX);
        /// Lifetime of a gift wrap when the archive is off.
        welcome_ttl_secs as "welcome_ttl": u64 = "3600" in "s", by integer(1..=TTL_SECS_MAX);
        /// Serves the REST API.
        enable_api: bool = "true", by boolean();
        /// Path of the REST API; starts with a slash and ends without one.
        api_prefix: String = "/api/v1/mls", by parsed(api_prefix);
        /// Keeps 445, 446 and 1059 for clients that are away.
        enable_message_archive: bool = "true", by boolean();
        /// Lifetime of a 445, 446 or 1059 in the archive, from its receipt.
        message_archive_ttl_days: u64 = "30" in "days", by integer(1..=TTL_DAYS_MAX);
        /// The relay's own key, which may publish 447; hex or `npub`.
        system_pubkey: Option<PublicKey> = "", by optional(public_key);
        /// The file with the secret half of `system_pubkey`, as hex or `nsec` or as `rnostr keygen --out` writes it.
        /// With it the relay asks owners for KeyPackages.
        system_key_file: Option<PathBuf> = "", by optional(path);
        /// The secret half of `system_pubkey` itself, hex or `nsec`: for machines that hand secrets over in variables.
        system_key: Option<SecretKey> = "", by optional(system_key);
        /// Keys of the relay's admins, which may publish 447 and 450; hex or `npub`.
        admin_pubkeys: Vec<PublicKey> = "", by list(public_key);
        /// Longest lifetime of a KeyPackage request; at most 7 days.
        keypackage_request_ttl_secs as "keypackage_request_ttl": u64 = "604800" in "s",
            by integer(1..=key_package_request::TTL_SECS_MAX);
        /// Lifetime of a 450; the group's state outlives it.
        roster_policy_ttl_days: u64 = "365" in "days", by integer(1..=TTL_DAYS_MAX);
        /// Sources of membership: `acl` (the service at `acl_url`), `roster` (450), `giftwrap` (1059 with an `h`).
        membership_sources: Vec<Source> = "roster,giftwrap", by list(membership_source).map(strongest_first);
        /// Allows every client with the right to write to `bootstrap` a group.
        open_bootstrap: bool = "false", by boolean();
        /// Takes 445s without a group record if their `h` is 64 hex digits; each client that names the `h` reads them.
        unlisted_groups: bool = (true, "the opposite of `auth.enabled`"), by boolean();
        /// Order of the commits of MLS groups whose messages show their epoch: `off`, `advisory` (tell the sender of a
        /// commit that does not fit) or `strict` (refuse it). A roster may choose another one for its group.
        commit_ordering: CommitOrdering = "off", by one_of(&CommitOrdering::ALL.map(|mode| (mode.as_str(), mode)));
        /// Time after a commit for which an order of commits takes other messages of the epoch before; 0 for any time.
        commit_grace_secs: u64 = "0" in "s", by integer(0..=TTL_SECS_MAX);
        /// Check of a KeyPackage's bytes against its tags: `log` failures, `enforce` (refuse the event) or `off`.
        verify_keypackages: VerifyKeyPackages = "log",
            by one_of(&VerifyKeyPackages::ALL.map(|mode| (mode.as_str(), mode)));
        /// Effect of reading a KeyPackage. `never`: none; `on_read`: a REQ with `authors` uses up the ones it claims.
        keypackage_consumption: KeyPackageConsumption = "never",
            by one_of(&KeyPackageConsumption::ALL.map(|mode| (mode.as_str(), mode)));
        /// KeyPackages of one owner that are kept and were not claimed, the newest by their `created_at`; at most 93.
        /// Those marked as ones of last resort are not counted.
        keypackages_per_owner_max as "keypackage_max_per_owner": usize = "15" in "KeyPackages",
            by integer(1..=PER_OWNER_MAX);
        /// Number of unclaimed KeyPackages below which the relay asks their owner for more, if it has a system key.
        keypackage_low_watermark: usize = "3" in "KeyPackages", by integer(0..=PER_OWNER_MAX);
        /// KeyPackages of one owner that one claimant uses up by claims in an hour; 0 for any number.
        claims_per_hour: u32 = "10" in "KeyPackages an hour", by integer(0..=RATE_MAX);
        /// KeyPackages of one owner that one address uses up by claims in an hour; 0 for any number.
        claims_per_address_hour: u32 = "30" in "KeyPackages an hour", by integer(0..=RATE_MAX);
        /// Part of an owner's KeyPackages that strangers use up together by claims in an hour: keys that the operator
        /// did not name and that share no group with the owner. 100 for all of it.
        claim_strangers_percent: u32 = "50" in "%", by integer(0..=100);
        /// The operator's access service, which the source `acl` asks for `/groups/{id}` under this URL.
        acl_url: Option<String> = "", by optional(http_url);
        /// Bearer token for `acl_url`.
        acl_token: Option<Secret> = "", by optional(secret);
        /// Longest age of a cached state of a group.
        group_cache_ttl_secs as "group_cache_ttl": u64 = "60" in "s", by integer(0..=86_400);
        /// Time for which the last answer of `acl_url` stands while the service cannot be reached.
        acl_stale_max_secs as "acl_stale_max": u64 = "300" in "s", by integer(0..=86_400);
        /// Time for which facts that were read out of a KeyPackage's bytes are kept in memory. Claims, deletions and
        /// expiry show at once.
        keypackage_cache_ttl_secs as "keypackage_cache_ttl": u64 = "300" in "s", by integer(0..=86_400);
    }
    with rate_limits: RateLimitRates
}

/// Largest budget of reads, in units or documents a minute.
const READS_MAX: u64 = 1_000_000_000;

section! {
    /// Sustained rates, with a burst of 200 events of an address or a key, 400 of a resident or a member, and 150
    /// KeyPackages, messages to a group or gift wraps to a recipient; and
    /// the budget of reads. 0 means no limit.
    pub struct RateLimitRates for "extensions.mls_gateway.rate_limits" in config.mls_gateway.rate_limits {
        /// EVENTs of every kind, of one address and of one sender; also 1059s of one sender to one recipient.
        max_events_per_minute: u32 = "100" in "events a minute", by integer(0..=RATE_MAX);
        /// 443 and 30443, of one address and of one sender.
        max_keypackages_per_hour: u32 = "10" in "events an hour", by integer(0..=RATE_MAX);
        /// 445s of one sender to one group.
        max_group_messages_per_minute: u32 = "50" in "events a minute", by integer(0..=RATE_MAX);
        /// Work of the REQs, COUNTs and NEG-OPENs of one address, and of one key, all of which may be done at once.
        max_read_cost_per_minute: u32 = "6000000" in "units a minute", by integer(0..=READS_MAX);
    }
}

/// A store of events and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageBackend {
    /// LMDB in `[data] path`.
    Embedded,
    /// The PostgreSQL database at `database_url`.
    Postgres,
    /// Firestore in the project `project_id`; only in a build with the feature.
    Firestore,
}

/// The carrier of notifications between instances that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeBy {
    /// The store's own notifications.
    Store,
    /// Messages over `redis_url`.
    Redis,
}

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

/// Reads a URL of PostgreSQL, and keeps its text.
fn database_url(text: &str) -> Result<Secret, String> {
    match Postgres::describe(text) {
        Ok(_) => secret(text),
        Err(error) => Err(error.to_string()),
    }
}

fn membership_source(text: &str) -> Result<Source, String> {
    one_of(text, &Source::ALL.map(|source| (source.as_str(), source)))
}

/// Sorts the sources, the strongest first, and drops repetitions.
fn strongest_first(mut sources: Vec<Source>) -> Vec<Source> {
    sources.sort_unstable_by(|a, b| b.cmp(a));
    sources.dedup();
    sources
}
