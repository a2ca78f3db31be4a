//! The rules' view of a configuration.

use std::sync::Arc;

use nostr_extensions::{ForeignRules, Policy, mls_gateway::group::MembershipBounds, policy::QuotaBounds};
use nostr_protocol::{DAY_SECS, auth::RelayNames};

use super::Config;

impl Config {
    /// The choices that the rules read.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let gateway = &self.mls_gateway;
        let listed = &self.auth.pubkey_whitelist;
        let residents = listed.iter().chain(&gateway.admin_pubkeys).chain(&gateway.system_pubkey).copied();
        Policy {
            auth_required: self.auth.enabled,
            residents: self.has_whitelist().then(|| residents.collect()),
            admin_keys: gateway.admin_pubkeys.iter().copied().collect(),
            system_key: gateway.system_pubkey,
            sources: gateway.membership_sources.iter().copied().collect(),
            unlisted_groups: gateway.unlisted_groups,
            open_bootstrap: gateway.open_bootstrap,
            commit_ordering: gateway.commit_ordering,
            commit_grace_secs: gateway.commit_grace_secs,
            membership_bounds: MembershipBounds::default(),
            archive_secs: gateway.enable_message_archive.then_some(gateway.message_archive_ttl_days * DAY_SECS),
            welcome_ttl_secs: gateway.welcome_ttl_secs,
            keypackage_ttl_secs: gateway.keypackage_ttl_secs,
            keypackage_max_lifetime_secs: gateway.keypackage_max_lifetime_secs,
            keypackages_per_owner_max: gateway.keypackages_per_owner_max,
            keypackage_request_ttl_secs: gateway.keypackage_request_ttl_secs,
            roster_ttl_secs: gateway.roster_policy_ttl_days * DAY_SECS,
            verify_keypackages: gateway.verify_keypackages,
            keypackage_consumption: gateway.keypackage_consumption,
            event_bytes_max: self.limitation.max_event_length,
            event_tags_max: self.limitation.max_event_tags,
            created_at_ahead_secs_max: self.limitation.created_at_upper_limit_secs,
            kinds: (!self.kinds.allowed.is_empty()).then(|| self.kinds.allowed.clone()),
            retention: self.retention.rules.clone(),
            quota: QuotaBounds {
                events_max: self.retention.events_per_key_max,
                bytes_max: self.retention.bytes_per_key_max,
            },
            strangers: self.strangers.rules(),
            moderation: Arc::default(),
        }
    }

    /// The rules by which an import takes events of another relay.
    #[must_use]
    pub fn foreign_rules(&self) -> ForeignRules {
        ForeignRules::new(self.policy(), RelayNames::Configured(self.server.relay_addresses()))
    }

    /// Returns whether a list of residents is set.
    #[must_use]
    pub const fn has_whitelist(&self) -> bool {
        !self.auth.pubkey_whitelist.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_configuration_and_rules_agree() {
        assert_eq!(Config::default().policy(), Policy::default());
    }
}
