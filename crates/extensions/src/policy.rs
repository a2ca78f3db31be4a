//! The operator's choices, as data. Every rule that depends on a choice reads it here.

use std::{collections::HashSet, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use nostr_protocol::{DAY_SECS, Kind, PublicKey, Rejection, Rule};

use crate::{
    mls_gateway::group::{CommitOrdering, MembershipBounds, Source},
    moderation::{BANNED_KEY, BANNED_KEYS, Moderation},
    strangers::StrangerRules,
};

/// Check of a KeyPackage's bytes against its tags (docs/rules.md, "KeyPackages").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyKeyPackages {
    /// Not checked.
    Off,
    /// Checked, and a failure is logged.
    Log,
    /// Checked, and a failure refuses the event.
    Enforce,
}

impl VerifyKeyPackages {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Log, Self::Enforce, Self::Off];

    /// The word of the configuration and of NIP-11.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Log => "log",
            Self::Enforce => "enforce",
        }
    }
}

/// Effect of reading on KeyPackages (docs/rules.md, "Consumption on read").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPackageConsumption {
    /// Reading changes nothing.
    Never,
    /// A REQ with `authors` uses up the KeyPackages that it is served.
    OnRead,
}

impl KeyPackageConsumption {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::Never, Self::OnRead];

    /// The word of the configuration and of NIP-11.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRead => "on_read",
        }
    }
}

/// Kinds from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRange {
    /// The lowest kind.
    pub first: u16,
    /// The highest kind.
    pub last: u16,
}

impl KindRange {
    /// Whether it holds `kind`.
    #[must_use]
    pub const fn holds(self, kind: Kind) -> bool {
        self.first <= kind.0 && kind.0 <= self.last
    }
}

/// A rule of `[retention]`: how long events of some kinds are kept that are otherwise kept without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The kinds.
    pub kinds: KindRange,
    /// Seconds from receipt.
    pub secs: u64,
}

/// Kinds whose events are kept for a time by a rule of `[retention]`, for NIP-11.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFor {
    /// The kinds, in ascending order. Each range is as long as it may be.
    pub kinds: Vec<KindRange>,
    /// Seconds from receipt.
    pub secs: u64,
}

/// Most that the relay keeps without end of one key, in each of its quotas; 0 for any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaBounds {
    /// Events.
    pub events_max: u64,
    /// Bytes that the events take.
    pub bytes_max: u64,
}

/// The policy in force. It may be replaced while the relay runs, and every part of the relay reads it where it decides.
#[derive(Clone, Debug)]
pub struct CurrentPolicy(Arc<ArcSwap<Policy>>);

impl CurrentPolicy {
    /// The policy as of now. One decision goes by one value of it.
    #[must_use]
    pub fn now(&self) -> Guard<Arc<Policy>> {
        self.0.load()
    }

    /// Puts another policy into force.
    pub fn replace(&self, policy: Policy) {
        self.0.store(Arc::new(policy));
    }
}

impl From<Policy> for CurrentPolicy {
    fn from(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }
}

/// The operator's choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `[auth] enabled`: nothing but AUTH is answered before AUTH.
    pub auth_required: bool,
    /// `[auth] pubkey_whitelist` with the admin keys and the system key; `None` where there is no list.
    pub residents: Option<HashSet<PublicKey>>,
    /// `admin_pubkeys`.
    pub admin_keys: HashSet<PublicKey>,
    /// `system_pubkey`.
    pub system_key: Option<PublicKey>,
    /// `membership_sources`.
    pub sources: HashSet<Source>,
    /// `unlisted_groups`.
    pub unlisted_groups: bool,
    /// `open_bootstrap`.
    pub open_bootstrap: bool,
    /// `commit_ordering`: the order of commits in groups whose rosters chose none.
    pub commit_ordering: CommitOrdering,
    /// `commit_grace_secs`: how long messages of an epoch that was left are taken; 0 for any time.
    pub commit_grace_secs: u64,
    /// The bounds on memberships; no key of the configuration sets them.
    pub membership_bounds: MembershipBounds,
    /// `message_archive_ttl_days` in seconds; `None` when the archive is off.
    pub archive_secs: Option<u64>,
    /// `welcome_ttl`: life of a gift wrap when the archive is off.
    pub welcome_ttl_secs: u64,
    /// `keypackage_ttl`: life of a KeyPackage that names no end itself.
    pub keypackage_ttl_secs: u64,
    /// `keypackage_max_lifetime`.
    pub keypackage_max_lifetime_secs: u64,
    /// `keypackage_max_per_owner`: most KeyPackages of an owner that are kept, those of last resort not counted.
    pub keypackages_per_owner_max: usize,
    /// `keypackage_request_ttl`, at most 7 days.
    pub keypackage_request_ttl_secs: u64,
    /// `roster_policy_ttl_days` in seconds.
    pub roster_ttl_secs: u64,
    /// `verify_keypackages`.
    pub verify_keypackages: VerifyKeyPackages,
    /// `keypackage_consumption`.
    pub keypackage_consumption: KeyPackageConsumption,
    /// Most bytes of an event's JSON.
    pub event_bytes_max: usize,
    /// Most tags of an event.
    pub event_tags_max: usize,
    /// Most seconds that `created_at` may lie ahead of now.
    pub created_at_ahead_secs_max: u64,
    /// `[kinds] allowed`; `None` for every kind.
    pub kinds: Option<Vec<KindRange>>,
    /// `[retention] rules`. The first one that holds a kind counts.
    pub retention: Vec<Retention>,
    /// `[retention] events_per_key_max` and `bytes_per_key_max`.
    pub quota: QuotaBounds,
    /// `[strangers]`.
    pub strangers: StrangerRules,
    /// The standing orders over NIP-86.
    pub moderation: Arc<Moderation>,
}

impl Policy {
    /// Whether `key` is a resident. Without a list, every key is one.
    #[must_use]
    pub fn is_resident(&self, key: &PublicKey) -> bool {
        self.residents.is_none() || self.is_listed(key)
    }

    /// Whether a list of residents is set and `key` is on it.
    #[must_use]
    pub fn is_listed(&self, key: &PublicKey) -> bool {
        let is_allowed = || self.moderation.allowed_keys.contains(key);
        self.residents.as_ref().is_some_and(|residents| residents.contains(key) || is_allowed())
    }

    /// Whether the relay takes a proof of `key`.
    ///
    /// # Errors
    /// `restricted:` for a banned key, and where every reader must have a key, and this one is no resident; `error:`
    /// while the orders over NIP-86 are not known, since the key may be banned.
    pub fn may_authenticate(&self, key: &PublicKey) -> Result<(), Rejection> {
        self.require_orders()?;
        if self.is_banned(key) {
            return Err(Rejection::restricted(BANNED_KEY).under(BANNED_KEYS));
        }
        if !self.auth_required || self.is_resident(key) {
            return Ok(());
        }
        let listed = "this key is not on this relay's list; ask its operator to be listed";
        Err(Rejection::restricted(listed).under(Rule("Identity", 10)))
    }

    /// Whether `key` is one of `admin_pubkeys`.
    #[must_use]
    pub fn is_admin(&self, key: &PublicKey) -> bool {
        self.admin_keys.contains(key)
    }

    /// Whether the operator named `key`: as a resident, an admin key or the system key. Nobody else can make such a
    /// key.
    #[must_use]
    pub fn is_named(&self, key: &PublicKey) -> bool {
        self.is_listed(key) || self.is_admin(key) || self.system_key.as_ref() == Some(key)
    }

    /// Whether one of `keys` is one of `admin_pubkeys`.
    #[must_use]
    pub fn has_admin_key(&self, keys: &[PublicKey]) -> bool {
        keys.iter().any(|key| self.is_admin(key))
    }
}

impl Default for Policy {
    /// The defaults of a relay that is started without a configuration.
    fn default() -> Self {
        Self {
            auth_required: false,
            residents: None,
            admin_keys: HashSet::new(),
            system_key: None,
            sources: HashSet::from([Source::Roster, Source::GiftWrap]),
            unlisted_groups: true,
            open_bootstrap: false,
            commit_ordering: CommitOrdering::Off,
            commit_grace_secs: 0,
            membership_bounds: MembershipBounds::default(),
            archive_secs: Some(30 * DAY_SECS),
            welcome_ttl_secs: 3_600,
            keypackage_ttl_secs: DAY_SECS,
            keypackage_max_lifetime_secs: 90 * DAY_SECS,
            keypackages_per_owner_max: 15,
            keypackage_request_ttl_secs: 7 * DAY_SECS,
            roster_ttl_secs: 365 * DAY_SECS,
            verify_keypackages: VerifyKeyPackages::Log,
            keypackage_consumption: KeyPackageConsumption::Never,
            event_bytes_max: 256 * 1024,
            event_tags_max: 2_500,
            created_at_ahead_secs_max: 900,
            kinds: None,
            retention: Vec::new(),
            quota: QuotaBounds::default(),
            strangers: StrangerRules::default(),
            moderation: Arc::default(),
        }
    }
}
