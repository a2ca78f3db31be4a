//! The rule that decided a step, and the line of the configuration that would change the outcome.
//!
//! The doctor knows the relay's words alone: the first word of a reason (docs/rules.md, "Answers to clients") and the
//! step at which it came tell the rule.

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Advice {
    /// Heading and number in docs/rules.md.
    pub(super) rule: &'static str,
    /// Section, key and value to write, and why.
    pub(super) line: Option<String>,
}

/// A step at which the relay may refuse.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// AUTH over a connection to this URL.
    Auth(&'a str),
    KeyPackage,
    /// A claim by REST at this URL.
    Claim(&'a str),
    Request,
    GiftWrap,
    GroupMessage,
    UnlistedMessage,
    NoiseMessage,
    Vanish(&'a str),
}

impl Advice {
    fn new(rule: &'static str, line: impl Into<String>) -> Self {
        Self { rule, line: Some(line.into()) }
    }

    /// Advice where an answer is missing.
    pub(super) fn of_connection(why: &str) -> Self {
        // A relay closes a direct peer that has too many connections before it reads the handshake.
        if ["429", "operation was canceled"].iter().any(|text| why.contains(text)) {
            return Self::new(
                "\"Rate limits\" 9",
                "[server] connections_per_address_max and handshakes_per_minute_max: raise them, or list the proxy in \
                 [server] trusted_proxies",
            );
        }
        if why.contains("404") || why.contains("Not Found") {
            return Self::new("\"Identity\" 5", "[server] public_url: name the path by which clients reach the relay");
        }
        Self::new(
            "\"Identity\" 5",
            "[server] host, port, tls_cert and tls_key: the address at which the relay listens; behind a proxy, the \
             proxy's route to it",
        )
    }

    /// Advice where the REST API is not there.
    pub(super) fn of_no_api() -> Self {
        Self::new("\"REST\" 1", "[extensions.mls_gateway] enable_api = true, and api_prefix where the API should be")
    }

    /// Advice where a stored message is not found.
    pub(super) fn of_missing_archive() -> Self {
        Self::new("\"Archive\" 2", "[extensions.mls_gateway] enable_message_archive = true")
    }

    /// Advice where a reader got an event that is not its own.
    pub(super) const fn of_leak() -> Self {
        Self { rule: "\"Who may publish, who may read\" 1; please report this to the project", line: None }
    }

    /// Advice where an event that the relay accepted does not reach its reader.
    pub(super) const fn of_silence() -> Self {
        Self { rule: "\"Live delivery\" 1; GET /ready says whether the relay follows its store", line: None }
    }

    fn of_claim(url: &str, reason: &str) -> Self {
        match reason.get(..3) {
            Some("401") => Self::new(
                "\"REST\" 3",
                format!("[server] public_url_aliases = [\"{url}\"], or public_url if clients come by this URL alone"),
            ),
            Some("403") => Self::new("\"Identity\" 10", "[auth] pubkey_whitelist: leave it out, or list the keys"),
            Some("429") => Self::new(
                "\"Claims\" 3",
                "[extensions.mls_gateway] claims_per_hour, claims_per_address_hour and claim_strangers_percent, or \
                 [extensions.mls_gateway.rate_limits]: raise them, or wait as the reason says",
            ),
            _ => Self { rule: "\"Claims\" 1; GET /ready says whether the relay has its store", line: None },
        }
    }

    /// Advice where the relay refused with this reason.
    pub(super) fn of(step: Step<'_>, reason: &str) -> Self {
        let word = reason.split(':').next().unwrap_or_default();
        if let Step::Claim(url) = step {
            return Self::of_claim(url, reason);
        }
        match (word, step) {
            ("rate-limited", Step::KeyPackage) => Self::new(
                "\"Rate limits\" 5",
                "[extensions.mls_gateway.rate_limits] max_keypackages_per_hour: raise it, or wait as the reason says",
            ),
            ("rate-limited", Step::GroupMessage | Step::UnlistedMessage) => Self::new(
                "\"Rate limits\" 5",
                "[extensions.mls_gateway.rate_limits] max_group_messages_per_minute or max_events_per_minute: raise \
                 them, or wait as the reason says",
            ),
            ("rate-limited", Step::Request) => Self::new(
                "\"Cost of reads\" 4",
                "[extensions.mls_gateway.rate_limits] max_read_cost_per_minute: raise it, or wait as the reason says",
            ),
            ("rate-limited", _) => Self::new(
                "\"Rate limits\" 4",
                "[extensions.mls_gateway.rate_limits] max_events_per_minute: raise it, or wait as the reason says",
            ),
            ("pow", _) => {
                Self::new("\"Strangers\" 1", "[strangers] founding_min_pow = 0, inbox_min_pow = 0, or an invitation")
            }
            ("error", Step::Auth(url) | Step::Vanish(url)) if reason.contains("public_url") => {
                Self::new("\"Identity\" 5", format!("[server] public_url = \"{url}\""))
            }
            ("error", _) => Self::new(
                "\"Answers to clients\" 1",
                "[data] path, or the store that [extensions.mls_gateway] storage_backend names: GET /ready says what \
                 it lacks",
            ),
            (_, Step::Auth(url) | Step::Vanish(url)) if names_relay(reason) => Self::new(
                "\"Identity\" 5",
                format!("[server] public_url_aliases = [\"{url}\"], or public_url if clients come by this URL alone"),
            ),
            ("restricted", Step::Auth(_)) => {
                Self::new("\"Identity\" 10", "[auth] pubkey_whitelist: leave it out, or list the keys that may come in")
            }
            ("auth-required", _) if reason.contains("before AUTH") => {
                Self::new("\"Identity\" 7", "[auth] enabled = false")
            }
            ("auth-required", Step::UnlistedMessage) => {
                Self::new("\"Unlisted groups\" 1", "[extensions.mls_gateway] unlisted_groups = true")
            }
            ("invalid", Step::KeyPackage) => {
                Self::new("\"KeyPackages\" 4", "[extensions.mls_gateway] verify_keypackages = \"log\"")
            }
            ("restricted", Step::GroupMessage) => Self::new(
                "\"Membership sources\" 4",
                "[extensions.mls_gateway] membership_sources = [\"roster\", \"giftwrap\"]: gift wraps found no groups \
                 without the second",
            ),
            ("restricted", Step::UnlistedMessage) => {
                Self::new("\"Unlisted groups\" 1", "[extensions.mls_gateway] unlisted_groups = true")
            }
            ("restricted", _) if reason.contains("invitation") => Self::new(
                "\"Strangers\" 1",
                "[strangers] founding_by_invitation = false and inbox_owners_ask = false, or list the inviting key in \
                 invitation_pubkeys",
            ),
            ("restricted" | "auth-required", _) => Self::new(
                "\"Identity\" 11",
                "[auth] pubkey_whitelist: leave it out, or list the keys that may publish here",
            ),
            ("invalid", _) => Self::new(
                "\"Who may publish, who may read\" 3",
                "[limitation]: max_message_length, max_event_tags and the other bounds may be too low",
            ),
            _ => Self { rule: "\"Answers to clients\" 1", line: None },
        }
    }
}

/// Whether a reason is about the name by which a client calls the relay.
fn names_relay(reason: &str) -> bool {
    reason.contains("relay tag") || reason.contains("ws://") || reason.contains("wss://")
}
