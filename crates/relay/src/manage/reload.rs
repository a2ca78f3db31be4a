//! A configuration that is read again while the relay runs.
//!
//! Source: docs/rules.md, "Management" 11. The keys of [`LIVE`] take effect at once, on this instance. Every other key
//! keeps its value until the next start, and the operator is told of those that differ.

use super::Management;
use crate::config::{Differences, Reading};

/// Keys that take effect while the relay runs; a name that ends with a dot stands for a whole section.
const LIVE: &[&str] = &[
    "auth.pubkey_whitelist",
    "extensions.mls_gateway.admin_pubkeys",
    "extensions.mls_gateway.commit_grace_secs",
    "extensions.mls_gateway.commit_ordering",
    "extensions.mls_gateway.keypackage_max_lifetime",
    "extensions.mls_gateway.keypackage_ttl",
    "extensions.mls_gateway.open_bootstrap",
    "extensions.mls_gateway.roster_policy_ttl_days",
    "extensions.mls_gateway.verify_keypackages",
    "extensions.mls_gateway.welcome_ttl",
    "information.",
    "kinds.",
    "limitation.created_at_upper_limit",
    "retention.",
    "strangers.",
    "write_policy.",
];

/// Whether a key may change while the relay runs.
pub(crate) fn is_live(path: &str) -> bool {
    LIVE.iter().any(|live| path == *live || (live.ends_with('.') && path.starts_with(live)))
}

impl Management {
    /// Puts the keys of another reading into force that may change while the relay runs.
    ///
    /// # Errors
    /// The faults of the reading, which changes nothing then.
    pub(crate) fn reload(&self, reading: &Reading) -> Result<Differences, Vec<String>> {
        if !reading.faults.is_empty() {
            return Err(reading.faults.iter().map(ToString::to_string).collect());
        }
        let mut known = self.known.lock();
        let differences = known.config.take_over(&reading.config, is_live);
        if !differences.taken.is_empty() {
            self.put_into_force(&known);
        }
        Ok(differences)
    }
}

/// Tells the operator the outcome in the log.
pub(crate) fn tell(outcome: &Result<Differences, Vec<String>>) {
    match outcome {
        Ok(Differences { taken, left }) => {
            let list = |paths: &[String]| if paths.is_empty() { "none".to_owned() } else { paths.join(", ") };
            tracing::info!("the configuration was read again; keys that changed and are in force: {}", list(taken));
            if !left.is_empty() {
                tracing::warn!("keys that changed and need a restart: {}", list(left));
            }
        }
        Err(faults) => {
            for fault in faults {
                tracing::error!("{fault}");
            }
            tracing::error!("the configuration has faults; the earlier one stays in force");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, key_paths};

    #[test]
    fn every_live_key_is_a_key() {
        let paths: Vec<String> = key_paths().collect();
        for live in LIVE {
            assert!(paths.iter().any(|path| path == live || (live.ends_with('.') && path.starts_with(live))), "{live}");
        }
        assert!(is_live("information.name") && !is_live("server.port") && !is_live("auth.enabled"));
    }

    #[test]
    fn live_keys_are_taken_and_others_are_told() {
        let (mut config, mut next) = (Config::default(), Config::default());
        next.server.port = 9_999;
        next.information.name = "another".to_owned();
        next.auth.enabled = true;
        let differences = config.take_over(&next, is_live);
        assert_eq!(differences.taken, ["information.name"]);
        assert_eq!(differences.left, ["server.port", "auth.enabled"]);
        assert_eq!((config.information.name.as_str(), config.server.port), ("another", 8080));
    }
}
