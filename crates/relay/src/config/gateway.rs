//! `[extensions.mls_gateway]` and `[extensions.mls_gateway.rate_limits]`.

use nostr_protocol::PublicKey;

use super::{Config, server::Secret};

/// `[extensions.mls_gateway]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MlsGateway {
    /// Where events and groups are kept.
    pub storage_backend: StorageBackend,
    /// The Google Cloud project, for a store that needs one.
    pub project_id: Option<String>,
    /// The database, for a store that needs one.
    pub database_url: Option<Secret>,
    /// Most connections to it; `None` for twice the cores and at most 20.
    pub max_connections: Option<usize>,
    /// Most writes of one commit to Firestore.
    pub firestore_batch_size: usize,
    /// How instances that share a store wake each other.
    pub wake: WakeBy,
    /// The Redis of [`WakeBy::Redis`].
    pub redis_url: Option<Secret>,
    /// How long a KeyPackage is kept that names no end of its own.
    pub keypackage_ttl_secs: u64,
    /// How long any KeyPackage is kept, whatever it names.
    pub keypackage_max_lifetime_secs: u64,
    /// How long a gift wrap is kept when the archive is off.
    pub welcome_ttl_secs: u64,
    /// Whether the REST API is served.
    pub enable_api: bool,
    /// Where the REST API lies: starts with a slash, ends without one.
    pub api_prefix: String,
    /// Whether 445, 446 and 1059 are kept for those who are away.
    pub enable_message_archive: bool,
    /// How long they are kept, from receipt.
    pub message_archive_ttl_days: u64,
    /// The relay's own key, which may publish 447.
    pub system_pubkey: Option<PublicKey>,
    /// The relay's admins, who may publish 447 and 450.
    pub admin_pubkeys: Vec<PublicKey>,
    /// Longest life of a KeyPackage request, at most 7 days.
    pub keypackage_request_ttl_secs: u64,
    /// How long 450s are kept; the group's state outlives them.
    pub roster_policy_ttl_days: u64,
    /// Which sources make memberships.
    pub membership_sources: Vec<MembershipSource>,
    /// Whether anyone who may write may `bootstrap` a group.
    pub open_bootstrap: bool,
    /// Whether a 445 whose `h` is 64 hex digits needs no group record. [`Config::load`] takes the opposite of
    /// `auth.enabled` where nothing is said.
    pub unlisted_groups: bool,
    /// What happens to a KeyPackage whose bytes do not keep what its tags say.
    pub verify_keypackages: VerifyKeyPackages,
    /// Whether reading KeyPackages uses them up.
    pub keypackage_consumption: KeyPackageConsumption,
    /// The operator's membership service, for the source `acl`.
    pub acl_url: Option<String>,
    /// Bearer token for it.
    pub acl_token: Option<Secret>,
    /// The most age of a cached state of a group, whatever it comes from.
    pub group_cache_ttl_secs: u64,
    /// How long its last answer stands while it cannot be reached.
    pub acl_stale_max_secs: u64,
    /// How long a KeyPackage directory answer may be kept where the log cannot tell of changes.
    pub keypackage_cache_ttl_secs: u64,
    /// `[extensions.mls_gateway.rate_limits]`.
    pub rate_limits: RateLimitRates,
}

impl Default for MlsGateway {
    fn default() -> Self {
        Self {
            storage_backend: StorageBackend::Embedded,
            project_id: None,
            database_url: None,
            max_connections: None,
            firestore_batch_size: 500,
            wake: WakeBy::Store,
            redis_url: None,
            keypackage_ttl_secs: 86_400,
            keypackage_max_lifetime_secs: 90 * 86_400,
            welcome_ttl_secs: 3_600,
            enable_api: true,
            api_prefix: "/api/v1/mls".to_owned(),
            enable_message_archive: true,
            message_archive_ttl_days: 30,
            system_pubkey: None,
            admin_pubkeys: Vec::new(),
            keypackage_request_ttl_secs: 7 * 86_400,
            roster_policy_ttl_days: 365,
            membership_sources: vec![MembershipSource::Roster, MembershipSource::GiftWrap],
            open_bootstrap: false,
            unlisted_groups: true,
            verify_keypackages: VerifyKeyPackages::Log,
            keypackage_consumption: KeyPackageConsumption::Never,
            acl_url: None,
            acl_token: None,
            group_cache_ttl_secs: 60,
            acl_stale_max_secs: 300,
            keypackage_cache_ttl_secs: 300,
            rate_limits: RateLimitRates::default(),
        }
    }
}

/// `[extensions.mls_gateway.rate_limits]`: sustained rates; 0 means no limit. See [`crate::rate_limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitRates {
    /// Every EVENT, an address and a sender; and 1059s, a sender and recipient.
    pub max_events_per_minute: u32,
    /// 443s and 30443s, an address and a sender.
    pub max_keypackages_per_hour: u32,
    /// 445s, a sender and group.
    pub max_group_messages_per_minute: u32,
}

impl Default for RateLimitRates {
    fn default() -> Self {
        Self { max_events_per_minute: 100, max_keypackages_per_hour: 10, max_group_messages_per_minute: 50 }
    }
}

/// Where events and groups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageBackend {
    /// LMDB in `[data] path`.
    Embedded,
    /// The PostgreSQL database at `database_url`.
    Postgres,
    /// Firestore in the project `project_id`; only in a build with the feature.
    Firestore,
}

/// `wake`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeBy {
    /// The store's own notifications.
    Store,
    /// Messages over `redis_url`.
    Redis,
}

/// The sources of membership that this build has, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MembershipSource {
    /// Kind 450.
    Roster,
    /// Kind 1059 with an `h`.
    GiftWrap,
}

impl MembershipSource {
    /// As the configuration and NIP-11 write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Roster => "roster",
            Self::GiftWrap => "giftwrap",
        }
    }
}

/// `verify_keypackages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyKeyPackages {
    /// Check, and log what failed.
    Log,
    /// Check, and refuse with the check that failed.
    Enforce,
    /// Do not check.
    Off,
}

impl VerifyKeyPackages {
    /// As the configuration and NIP-11 write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Enforce => "enforce",
            Self::Off => "off",
        }
    }
}

/// `keypackage_consumption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPackageConsumption {
    /// Reading changes nothing.
    Never,
    /// A REQ with `authors` uses up what it is served.
    OnRead,
}

impl KeyPackageConsumption {
    /// As the configuration and NIP-11 write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRead => "on_read",
        }
    }
}

impl Config {
    /// Whether `key` is one of `admin_pubkeys`.
    #[must_use]
    pub fn is_admin(&self, key: &PublicKey) -> bool {
        self.mls_gateway.admin_pubkeys.contains(key)
    }

    /// Whether `key` is a resident: listed, an admin key or the system key. Without a list nobody else is one, and
    /// residence is not asked for.
    #[must_use]
    pub fn is_resident(&self, key: &PublicKey) -> bool {
        self.auth.pubkey_whitelist.contains(key)
            || self.is_admin(key)
            || self.mls_gateway.system_pubkey.as_ref() == Some(key)
    }

    /// Whether a list of residents is set.
    #[must_use]
    pub const fn has_whitelist(&self) -> bool {
        !self.auth.pubkey_whitelist.is_empty()
    }
}
