//! The meaning of a configuration in sentences, for the start, for `check-config` and for the page at `/`.

use nostr_extensions::{
    Source,
    mls_gateway::group::CommitOrdering,
    policy::{KeyPackageConsumption, VerifyKeyPackages},
};
use nostr_store::postgres::Postgres;

use super::{Config, Durability, Origins, StorageBackend, WakeBy};

impl Config {
    /// The rules that clients meet here; the page at `/` shows them to everyone.
    #[must_use]
    pub fn policies(&self) -> Vec<String> {
        let gateway = &self.mls_gateway;
        let mut lines = vec![
            if self.auth.enabled {
                "Authentication (NIP-42) is required for everything.".to_owned()
            } else {
                "Authentication (NIP-42) is required for reading direct messages and for managed groups.".to_owned()
            },
            match (self.has_whitelist(), self.auth.enabled) {
                (false, false) => "Anyone may write.".to_owned(),
                (false, true) => "Any key that authenticates may write.".to_owned(),
                (true, true) => "Only keys that the operator has listed may use the relay.".to_owned(),
                (true, false) => {
                    "Writing is for keys that the operator has listed, and for messages to them.".to_owned()
                }
            },
            format!("Sources of group membership: {}.", self.membership_sources()),
            if gateway.unlisted_groups {
                "Unlisted groups are on: anyone with a group's 64-hex id may write to it and read it.".to_owned()
            } else {
                "Unlisted groups are off.".to_owned()
            },
            if gateway.enable_message_archive {
                format!("Messages are kept {} days for clients that are away.", gateway.message_archive_ttl_days)
            } else {
                "Messages are passed on and not kept.".to_owned()
            },
        ];
        if gateway.keypackage_consumption == KeyPackageConsumption::OnRead {
            lines.push("A KeyPackage is served once; the last one of an owner is always served.".to_owned());
        }
        if !self.kinds.allowed.is_empty() {
            lines.push("Events of some kinds alone are taken.".to_owned());
        }
        if !self.retention.rules.is_empty() {
            lines.push("Events of some kinds are kept for a limited time.".to_owned());
        }
        lines.extend(self.quota_line());
        lines.extend(self.strangers_lines());
        if self.write_policy.plugin.is_some() {
            lines.push("A program of the operator may refuse events.".to_owned());
        }
        lines
    }

    fn quota_line(&self) -> Option<String> {
        let (events, bytes) = (self.retention.events_per_key_max, self.retention.bytes_per_key_max);
        let most = match (events, bytes) {
            (0, 0) => return None,
            (events, 0) => format!("{events} events"),
            (0, bytes) => format!("{bytes} bytes of events"),
            (events, bytes) => format!("{events} events and {bytes} bytes"),
        };
        Some(format!("At most {most} of a key are kept without end."))
    }

    fn strangers_lines(&self) -> Vec<String> {
        let strangers = &self.strangers;
        let mut lines = Vec::new();
        match (strangers.founding_min_pow, strangers.founding_by_invitation) {
            (0, false) => {}
            (0, true) => lines.push("Founding a group takes an invitation.".to_owned()),
            (bits, false) => lines.push(format!("Founding a group takes {bits} bits of work (NIP-13).")),
            (bits, true) => {
                lines.push(format!("Founding a group takes an invitation, or {bits} bits of work (NIP-13)."));
            }
        }
        if strangers.inbox_min_pow > 0 {
            lines.push(format!("A gift wrap of a stranger takes {} bits of work (NIP-13).", strangers.inbox_min_pow));
        }
        if strangers.inbox_owners_ask {
            lines.push("Owners of inboxes may ask strangers for work or an invitation.".to_owned());
        }
        lines
    }

    /// The lines that `check-config` prints: the address to listen on, and the [rules](Self::rules).
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let scheme = if self.server.tls_cert.is_some() { "wss" } else { "ws" };
        let mut lines = vec![format!("listen: {scheme}://{}", self.server.socket_address())];
        lines.extend(self.rules());
        lines
    }

    /// The lines that the operator sees at the start, beside the address: store, rules, keys and rates. No line shows a
    /// secret.
    #[must_use]
    pub fn rules(&self) -> Vec<String> {
        let gateway = &self.mls_gateway;
        let durability = match self.data.durability {
            Durability::Commit => "on disk before OK".to_owned(),
            Durability::Interval => format!("on disk within {} ms, OK before", self.data.sync_interval_ms),
        };
        let verify = match gateway.verify_keypackages {
            VerifyKeyPackages::Log => "verified, failures logged",
            VerifyKeyPackages::Enforce => "verified, failures refused",
            VerifyKeyPackages::Off => "not verified",
        };
        let rates = &gateway.rate_limits;
        let rate = |number: u32, unit: &str| match number {
            0 => format!("any number of {unit}"),
            number => format!("{number} {unit}"),
        };
        let mut lines = vec![match gateway.storage_backend {
            StorageBackend::Embedded => {
                format!("data: {} (embedded store, {durability})", self.data.path.display())
            }
            StorageBackend::Postgres => {
                let database = gateway.database_url.as_ref().and_then(|url| Postgres::describe(url.expose()).ok());
                format!("data: PostgreSQL at {}", database.as_deref().unwrap_or("database_url"))
            }
            StorageBackend::Firestore => {
                format!("data: Firestore in project {}", gateway.project_id.as_deref().unwrap_or_default())
            }
        }];
        lines.extend(self.policies().into_iter().map(|line| format!("policy: {line}")));
        lines.push(format!(
            "keys: {} admins, {} residents listed, {} system key",
            gateway.admin_pubkeys.len(),
            self.auth.pubkey_whitelist.len(),
            if gateway.system_pubkey.is_some() { "a" } else { "no" },
        ));
        lines.push(format!("key packages: {verify}"));
        lines.push(format!(
            "rate limits: {}, {}, {}, {}",
            rate(rates.max_events_per_minute, "events a minute"),
            rate(rates.max_keypackages_per_hour, "KeyPackages an hour"),
            rate(rates.max_group_messages_per_minute, "group messages a minute"),
            rate(rates.max_read_cost_per_minute, "units of reading a minute"),
        ));
        if let Origins::Only(origins) = &self.server.allowed_origins {
            let origins = if origins.is_empty() { "none".to_owned() } else { origins.join(", ") };
            lines.push(format!("web pages: {origins}"));
        }
        lines
    }

    /// Faults of the configuration that do not stop the start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let gateway = &self.mls_gateway;
        let mut lines = Vec::new();
        if self.server.relay_addresses().is_empty() && !self.on_cloud_run {
            lines.push(
                "[server] public_url is not set: AUTH is refused to every client that is not on this machine"
                    .to_owned(),
            );
        }
        if self.expects_proxy() && self.server.trusted_proxies.is_empty() {
            lines.push(
                "public_url is wss://, this relay has no tls_cert, and [server] trusted_proxies is empty: all clients \
                 of the proxy in front count as one address; write the proxy's address there"
                    .to_owned(),
            );
        }
        if self.on_cloud_run && gateway.storage_backend == StorageBackend::Embedded {
            lines.push(
                "this is Cloud Run (K_SERVICE is set), and the embedded store's data goes with the instance: write \
                 storage_backend = \"firestore\" or \"cloudsql\""
                    .to_owned(),
            );
        }
        if gateway.database_url.is_some() && gateway.storage_backend != StorageBackend::Postgres {
            lines.push("database_url is set, and nothing uses it: write storage_backend = \"cloudsql\"".to_owned());
        }
        if gateway.redis_url.is_some() && gateway.wake != WakeBy::Redis {
            lines.push("redis_url is set, and nothing uses it: write wake = \"redis\"".to_owned());
        }
        if gateway.wake == WakeBy::Redis && gateway.storage_backend == StorageBackend::Embedded {
            lines.push("wake is \"redis\", and the embedded store has no other instances to notify".to_owned());
        }
        if gateway.acl_url.is_some() && !gateway.membership_sources.contains(&Source::Acl) {
            lines.push("acl_url is set, and nothing uses it: write \"acl\" into membership_sources".to_owned());
        }
        let is_bare = |url: &String| url.starts_with("http://");
        if gateway.acl_token.is_some() && gateway.acl_url.as_ref().is_some_and(is_bare) {
            lines.push(
                "acl_url is http://, so acl_token and the members of groups cross the network in clear".to_owned(),
            );
        }
        let by_roster = gateway.membership_sources.contains(&Source::Roster) && !gateway.open_bootstrap;
        if by_roster && gateway.admin_pubkeys.is_empty() && !gateway.unlisted_groups {
            lines.push(
                "[extensions.mls_gateway] admin_pubkeys is empty: nobody can found a group by a roster (450); write \
                 admin_pubkeys = [\"npub1…\"] with the public key that `rnostr keygen --out admin.key` shows"
                    .to_owned(),
            );
        }
        if gateway.commit_ordering == CommitOrdering::Strict && !gateway.enable_message_archive {
            lines.push(
                "commit_ordering is \"strict\" and enable_message_archive is off: a member that is away for 120 s \
                 misses a commit for good, and the relay takes no other one for its epoch; turn the archive on"
                    .to_owned(),
            );
        }
        if gateway.membership_sources.is_empty() && !gateway.unlisted_groups {
            lines.push("membership_sources is empty and unlisted_groups is off: no group can be used".to_owned());
        }
        lines
    }

    /// Returns whether clients reach the relay by TLS that something in front of it speaks. Cloud Run's front end is
    /// trusted in any case.
    fn expects_proxy(&self) -> bool {
        let is_tls = self.server.public_url.as_ref().is_some_and(|url| url.as_str().starts_with("wss://"));
        is_tls && self.server.tls().is_none() && !self.on_cloud_run
    }

    fn membership_sources(&self) -> String {
        let sources: Vec<&str> = self.mls_gateway.membership_sources.iter().map(|source| source.as_str()).collect();
        if sources.is_empty() { "none".to_owned() } else { sources.join(", ") }
    }
}
