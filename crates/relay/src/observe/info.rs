//! The relay's statements about itself: NIP-11's document, the health check and readiness.
//!
//! Source: NIP-11; MLS Gateway specification, "Health Check".

use nostr_extensions::{
    kinds::{KINDS, rules},
    policy::KeptFor,
};
use nostr_protocol::PublicKey;
use serde::Serialize;

use crate::{
    config::{Config, Information, Limitation},
    rate_limit::{BURST, KEY_BURST, TARGET_BURST},
};

/// The NIPs that this relay keeps. A NIP that is listed works.
pub(super) const SUPPORTED_NIPS: [u16; 13] = [1, 9, 11, 17, 40, 42, 45, 59, 62, 67, 70, 77, 86];

/// The Marmot MIPs whose events this relay carries: KeyPackages, groups, welcomes, group messages.
pub(super) const SUPPORTED_MIPS: [u8; 4] = [0, 1, 2, 3];

/// The software's name, on the page.
pub(super) const SOFTWARE: &str = "rnostr";
/// The software's URL, which NIP-11's `software` holds.
const SOFTWARE_URL: &str = env!("CARGO_PKG_REPOSITORY");
/// The software's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// NIP-11's relay information document.
#[derive(Debug, Serialize)]
pub(crate) struct InformationDocument<'a> {
    name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pubkey: Option<String>,
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    self_pubkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<&'a str>,
    supported_nips: &'static [u16],
    software: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    banner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    privacy_policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms_of_service: Option<&'a str>,
    limitation: LimitationDocument,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retention: Vec<RetentionDocument>,
    mls_gateway: GatewayDocument,
}

/// An entry of `retention`: seconds for which events of these kinds are kept.
#[derive(Debug, Serialize)]
struct RetentionDocument {
    kinds: Vec<[u16; 2]>,
    time: u64,
}

impl RetentionDocument {
    fn of(rule: &KeptFor) -> Self {
        Self { kinds: rule.kinds.iter().map(|range| [range.first, range.last]).collect(), time: rule.secs }
    }
}

/// `limitation`. The costs of reads and the fields from `max_event_length` on are not NIP-11's; clients pass over
/// fields that they do not know.
#[derive(Debug, Serialize)]
struct LimitationDocument {
    max_message_length: usize,
    max_subscriptions: usize,
    max_limit: usize,
    default_limit: usize,
    max_query_cost: u64,
    /// 0 for no limit.
    max_read_cost_per_minute: u32,
    max_subid_length: usize,
    max_event_tags: usize,
    min_pow_difficulty: u8,
    auth_required: bool,
    payment_required: bool,
    restricted_writes: bool,
    created_at_upper_limit: u64,
    max_event_length: usize,
    max_filters: usize,
    max_tag_values: usize,
    max_authors: usize,
    max_ids: usize,
    rate_limits: RateLimitsDocument,
    /// 0 for no quota.
    events_per_key_max: u64,
    /// 0 for no quota.
    bytes_per_key_max: u64,
}

/// `limitation.rate_limits`: the events that a client may send, so that it need not find out by refusals. A rate that
/// is `null` has no limit.
#[derive(Debug, Serialize)]
struct RateLimitsDocument {
    /// Those of an address, and of a key.
    events: Option<RateDocument>,
    /// Those of a key that pays alone: of a resident, and of a member to its groups.
    events_of_member_or_resident: Option<RateDocument>,
    keypackages: Option<RateDocument>,
    /// Those of one sender to one group.
    group_messages: Option<RateDocument>,
    gift_wraps_to_one_recipient: Option<RateDocument>,
}

/// A sustained rate, and the number of events that go through at once.
#[derive(Debug, Serialize)]
struct RateDocument {
    number: u32,
    period_secs: u32,
    burst: u32,
}

impl RateDocument {
    const fn new(number: u32, period_secs: u32, burst: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self { number, period_secs, burst }) }
    }
}

/// `mls_gateway`: facts that an MLS client must know before it uses the relay.
#[derive(Debug, Serialize)]
struct GatewayDocument {
    kinds: Vec<u16>,
    membership_sources: Vec<&'static str>,
    supported_mips: &'static [u8],
    unlisted_groups: bool,
    open_bootstrap: bool,
    /// The order in groups whose rosters chose none.
    commit_ordering: &'static str,
    verify_keypackages: &'static str,
    keypackage_consumption: &'static str,
    /// Days; 0 means that messages are passed on and not kept.
    message_archive_ttl_days: u64,
    /// Bits of work that a founding of a stranger takes; 0 for none.
    founding_min_pow: u16,
    /// Whether an invitation is asked of a stranger that founds a group, or the work.
    founding_by_invitation: bool,
    /// Bits of work that a gift wrap of a stranger takes; 0 for none.
    inbox_min_pow: u16,
    /// Whether the owner of an inbox may ask for more by its kind 10050.
    inbox_owners_ask: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_pubkey: Option<String>,
}

/// The document of a relay that runs with `config` and keeps some kinds for a time.
pub(crate) fn document<'a>(config: &'a Config, retention: &[KeptFor]) -> InformationDocument<'a> {
    let Information {
        name,
        description,
        pubkey,
        self_pubkey,
        contact,
        icon,
        banner,
        privacy_policy,
        terms_of_service: terms,
    } = &config.information;
    InformationDocument {
        name,
        description,
        pubkey: pubkey.as_ref().map(PublicKey::to_hex),
        self_pubkey: self_pubkey.as_ref().map(PublicKey::to_hex),
        contact: contact.as_deref(),
        supported_nips: &SUPPORTED_NIPS,
        software: SOFTWARE_URL,
        version: VERSION,
        icon: icon.as_deref(),
        banner: banner.as_deref(),
        privacy_policy: privacy_policy.as_deref(),
        terms_of_service: terms.as_deref(),
        limitation: limitation(config),
        retention: retention.iter().map(RetentionDocument::of).collect(),
        mls_gateway: gateway(config),
    }
}

fn limitation(config: &Config) -> LimitationDocument {
    let Limitation {
        max_message_length,
        max_event_length,
        max_subscriptions,
        max_filters,
        max_limit,
        default_limit,
        max_query_cost,
        max_subid_length,
        max_event_tags,
        max_tag_values,
        max_authors,
        max_ids,
        created_at_upper_limit_secs: created_at_upper_limit,
    } = config.limitation;
    LimitationDocument {
        max_message_length,
        max_subscriptions,
        max_limit,
        default_limit,
        max_query_cost,
        max_read_cost_per_minute: config.mls_gateway.rate_limits.max_read_cost_per_minute,
        max_subid_length,
        max_event_tags,
        min_pow_difficulty: 0,
        auth_required: config.auth.enabled,
        payment_required: false,
        restricted_writes: config.has_whitelist()
            || !config.kinds.allowed.is_empty()
            || config.write_policy.plugin.is_some(),
        created_at_upper_limit,
        max_event_length,
        max_filters,
        max_tag_values,
        max_authors,
        max_ids,
        rate_limits: rate_limits(config),
        events_per_key_max: config.retention.events_per_key_max,
        bytes_per_key_max: config.retention.bytes_per_key_max,
    }
}

fn rate_limits(config: &Config) -> RateLimitsDocument {
    let rates = &config.mls_gateway.rate_limits;
    RateLimitsDocument {
        events: RateDocument::new(rates.max_events_per_minute, 60, BURST),
        events_of_member_or_resident: RateDocument::new(rates.max_events_per_minute, 60, KEY_BURST),
        keypackages: RateDocument::new(rates.max_keypackages_per_hour, 3_600, TARGET_BURST),
        group_messages: RateDocument::new(rates.max_group_messages_per_minute, 60, TARGET_BURST),
        gift_wraps_to_one_recipient: RateDocument::new(rates.max_events_per_minute, 60, TARGET_BURST),
    }
}

fn gateway(config: &Config) -> GatewayDocument {
    let (gateway, strangers) = (&config.mls_gateway, &config.strangers);
    GatewayDocument {
        kinds: KINDS.iter().filter(|kind| rules(**kind).in_nip11).map(|kind| kind.0).collect(),
        membership_sources: gateway.membership_sources.iter().map(|source| source.as_str()).collect(),
        supported_mips: &SUPPORTED_MIPS,
        unlisted_groups: gateway.unlisted_groups,
        open_bootstrap: gateway.open_bootstrap,
        commit_ordering: gateway.commit_ordering.as_str(),
        verify_keypackages: gateway.verify_keypackages.as_str(),
        keypackage_consumption: gateway.keypackage_consumption.as_str(),
        message_archive_ttl_days: if gateway.enable_message_archive { gateway.message_archive_ttl_days } else { 0 },
        founding_min_pow: strangers.founding_min_pow,
        founding_by_invitation: strangers.founding_by_invitation,
        inbox_min_pow: strangers.inbox_min_pow,
        inbox_owners_ask: strangers.inbox_owners_ask,
        system_pubkey: gateway.system_pubkey.as_ref().map(PublicKey::to_hex),
    }
}

/// The answer to `GET /health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    status: &'static str,
    version: &'static str,
    uptime_seconds: u64,
}

impl Health {
    /// A relay that has run for `uptime_secs`.
    pub(crate) const fn healthy(uptime_secs: u64) -> Self {
        Self { status: "healthy", version: VERSION, uptime_seconds: uptime_secs }
    }
}

/// The answer to `GET /ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Ready {
    /// A relay that is ready, unless there is a reason why it is not.
    pub(crate) const fn because_not(reason: Option<&'static str>) -> Self {
        Self { status: if reason.is_none() { "ready" } else { "not ready" }, reason }
    }

    /// Returns whether the relay is ready.
    pub(crate) const fn is_ready(self) -> bool {
        self.reason.is_none()
    }
}

/// The icon that browsers show beside the page's address.
pub(crate) const ICON: &[u8] = include_bytes!("favicon.ico");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_document_says_what_the_configuration_enforces() {
        let mut config = Config::default();
        config.auth.enabled = true;
        config.auth.pubkey_whitelist = vec![PublicKey::from_bytes([1; 32])];
        config.information.self_pubkey = Some(PublicKey::from_bytes([2; 32]));
        config.retention.events_per_key_max = 10_000;
        config.strangers.founding_min_pow = 20;
        let document = serde_json::to_value(document(&config, &[])).expect("JSON");
        assert_eq!(document["supported_nips"], json!([1, 9, 11, 17, 40, 42, 45, 59, 62, 67, 70, 77, 86]));
        assert_eq!(document["limitation"]["auth_required"], true);
        assert_eq!(document["limitation"]["restricted_writes"], true);
        assert_eq!(document["limitation"]["max_message_length"], 1_048_576);
        assert_eq!(document["limitation"]["max_authors"], 10_000);
        assert_eq!(document["limitation"]["max_ids"], 10_000);
        assert_eq!(document["limitation"]["created_at_upper_limit"], 900);
        assert_eq!(document["limitation"]["events_per_key_max"], 10_000);
        assert_eq!(document["mls_gateway"]["founding_min_pow"], 20);
        assert_eq!(document["mls_gateway"]["kinds"], json!([443, 445, 446, 447, 450, 1059, 30443]));
        assert_eq!(document["mls_gateway"]["membership_sources"], json!(["roster", "giftwrap"]));
        assert_eq!(document["mls_gateway"]["supported_mips"], json!([0, 1, 2, 3]));
        assert_eq!(document["self"], "02".repeat(32));
        assert_eq!(document.get("pubkey"), None);
        assert!(!document.to_string().contains(&"01".repeat(32)), "the list of residents is not told");
    }

    /// A client learns from the document how much it may send, and need not find out by refusals.
    #[test]
    fn the_document_tells_the_rates_and_the_bursts() {
        let mut config = Config::default();
        config.mls_gateway.rate_limits.max_keypackages_per_hour = 0;
        let document = serde_json::to_value(document(&config, &[])).expect("JSON");
        let rate = |number: u32, burst: u32| json!({"number": number, "period_secs": 60, "burst": burst});
        let expected = json!({
            "events": rate(100, 200),
            "events_of_member_or_resident": rate(100, 400),
            "keypackages": null,
            "group_messages": rate(50, 150),
            "gift_wraps_to_one_recipient": rate(100, 150),
        });
        assert_eq!(document["limitation"]["rate_limits"], expected);
    }

    #[test]
    fn health_is_exactly_as_specified() {
        let body = serde_json::to_string(&Health::healthy(3600)).expect("JSON");
        assert_eq!(body, format!(r#"{{"status":"healthy","version":"{VERSION}","uptime_seconds":3600}}"#));
    }

    #[test]
    fn readiness_is_exactly_as_documented() {
        let body = |reason| serde_json::to_string(&Ready::because_not(reason)).expect("JSON");
        assert_eq!(body(None), r#"{"status":"ready"}"#);
        assert_eq!(body(Some("why")), r#"{"status":"not ready","reason":"why"}"#);
    }
}
