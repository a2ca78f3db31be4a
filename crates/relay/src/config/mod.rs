//! The operator's choices, parsed once at the start into plain values; nothing else reads a file or the environment.
//!
//! Source: MLS Gateway specification, "Configuration"; docs/configuration.md, which lists every key. Each key is one
//! entry of a `section!` in `server`, `gateway` or `nip11`. From the entry come the key's field, its default and
//! reading, its variable, the suggestions for a misspelt one, and its line in `docs/configuration.md`.
//!
//! The first of these that sets a key wins:
//! 1. `RNOSTR_SECTION__KEY`;
//! 2. the specification's variables (`PORT`, `ALLOWED_ORIGINS`, `NOSTR_AUTH_REQUIRED`, `RUST_LOG` before `LOG_LEVEL`);
//! 3. the file;
//! 4. `GOOGLE_CLOUD_PROJECT`, then `FIREBASE_PROJECT_ID`;
//! 5. the defaults on Cloud Run (see [`Config::on_cloud_run`]);
//! 6. the built-in defaults.
//!
//! Only the winner's value is read, so that a variable can replace a value of the file that this machine cannot use.

mod env;
mod error;
mod gateway;
mod keys;
mod load;
mod memory;
mod moderation;
mod network;
mod nip11;
mod policy;
mod secret;
mod section;
mod server;
mod shown;
mod strangers;
mod summary;
#[cfg(test)]
mod tests;
mod value;

pub use env::process_environment;
pub use error::ConfigError;
pub use gateway::{MlsGateway, RateLimitRates, StorageBackend, WakeBy};
#[cfg(test)]
pub(crate) use keys::paths as key_paths;
pub use keys::{Differences, markdown};
pub use load::Reading;
pub use moderation::{Kinds, RetentionRules, WritePolicy};
pub use network::{Origins, RelayUrl};
pub use nip11::{Information, Limitation};
pub use secret::Secret;
pub use server::{Auth, Data, Durability, LogFormat, Metrics, Outbound, Server};
pub use shown::Places;
pub(crate) use shown::{ShownKey, shown_keys};
pub use strangers::Strangers;

/// Everything that an operator can choose.
///
/// `Config::default()` is the configuration of `rnostr relay` without a file: 127.0.0.1:8080, `./data`, the embedded
/// store, no AUTH needed for public events, unlisted groups on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[auth]`.
    pub auth: Auth,
    /// `[data]`.
    pub data: Data,
    /// `[extensions.mls_gateway]` and its `rate_limits`.
    pub mls_gateway: MlsGateway,
    /// `[limitation]`.
    pub limitation: Limitation,
    /// `[information]`.
    pub information: Information,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[outbound]`.
    pub outbound: Outbound,
    /// `[kinds]`.
    pub kinds: Kinds,
    /// `[retention]`.
    pub retention: RetentionRules,
    /// `[write_policy]`.
    pub write_policy: WritePolicy,
    /// `[strangers]`.
    pub strangers: Strangers,
    /// Set when `K_SERVICE` is. Then the Host header names the relay if no `public_url` does, the last hop's
    /// X-Forwarded-For is believed, logs are JSON, and the relay listens on 0.0.0.0, unless chosen otherwise.
    pub on_cloud_run: bool,
    /// The place that set each key.
    pub places: Places,
}
