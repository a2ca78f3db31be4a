//! The operator's choices, parsed once at the start into plain values; nothing else reads a file or the environment.
//!
//! Source: MLS Gateway specification, "Configuration"; decisions.md, which names the further keys and their defaults.
//! [`KEYS`] is the one list of keys: reading, the environment's names, suggestions for a misspelt one and the table in
//! the README all come from it.
//!
//! What wins, first to last: `RNOSTR_SECTION__KEY`; the specification's variables (`PORT`, `ALLOWED_ORIGINS`,
//! `NOSTR_AUTH_REQUIRED`, `RUST_LOG` before `LOG_LEVEL`); the file; `GOOGLE_CLOUD_PROJECT`, then `FIREBASE_PROJECT_ID`;
//! what Cloud Run changes (see [`Config::on_cloud_run`]); the built-in default. Only the winner's value is read, so that
//! a variable can replace a value of the file that this machine cannot use.

mod env;
mod error;
mod gateway;
mod keys;
mod load;
mod network;
mod server;
mod summary;
#[cfg(test)]
mod tests;
mod value;

pub use env::process_environment;
pub use error::ConfigError;
pub use gateway::{
    KeyPackageConsumption, MembershipSource, MlsGateway, RateLimitRates, StorageBackend, VerifyKeyPackages, WakeBy,
};
pub use keys::{KEYS, Key, Section, markdown};
pub use network::{Cidr, Origins, RelayUrl};
pub use server::{Auth, Data, Durability, Information, Limitation, Log, LogFormat, Metrics, Outbound, Secret, Server};

/// Everything that an operator can choose.
///
/// `Config::default()` is what `rnostr relay` runs with when there is no file: 127.0.0.1:8080, `./data`, the embedded
/// store, no AUTH needed for what is public, unlisted groups on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`: where it listens and how connections are bounded.
    pub server: Server,
    /// `[auth]`: who must authenticate, who is a resident.
    pub auth: Auth,
    /// `[data]`: the embedded store.
    pub data: Data,
    /// `[limitation]`: what a client may send, by NIP-11's names.
    pub limitation: Limitation,
    /// `[information]`: what NIP-11 tells about the relay.
    pub information: Information,
    /// `[metrics]`: who may read `/metrics`.
    pub metrics: Metrics,
    /// `[outbound]`: what the relay sends to other relays.
    pub outbound: Outbound,
    /// `[server] log_format` and `log_level`.
    pub log: Log,
    /// `[extensions.mls_gateway]` and its `rate_limits`.
    pub mls_gateway: MlsGateway,
    /// Whether `K_SERVICE` is set: the Host header names the relay when no `public_url` does, the last hop's
    /// X-Forwarded-For is believed, logs are JSON and the address is 0.0.0.0 unless chosen otherwise.
    pub on_cloud_run: bool,
}
