//! The variables of the environment that set keys.
//!
//! Source: MLS Gateway specification, "Environment Variables" and "Google Cloud Run Deployment".

use std::collections::BTreeMap;

use super::{
    error::{ConfigError, Location, nearest},
    keys,
    load::Setting,
    section::Key,
    value::Value,
};

/// The front of every variable of the relay's own.
const PREFIX: &str = "RNOSTR_";
/// The variable in which Cloud Run names the service.
const CLOUD_RUN: &str = "K_SERVICE";

/// The specification's variables, and the system key's, that win over the file; of two for one key the later one wins.
const OVER_FILE: [(&str, &str); 6] = [
    ("PORT", "server.port"),
    ("ALLOWED_ORIGINS", "server.allowed_origins"),
    ("LOG_LEVEL", "server.log_level"),
    ("RUST_LOG", "server.log_level"),
    ("NOSTR_AUTH_REQUIRED", "auth.enabled"),
    ("RNOSTR_SYSTEM_KEY", "extensions.mls_gateway.system_key"),
];
/// The specification's variables that the file wins over: they belong to the machine, and not to this relay.
const UNDER_FILE: [(&str, &str); 2] = [
    ("FIREBASE_PROJECT_ID", "extensions.mls_gateway.project_id"),
    ("GOOGLE_CLOUD_PROJECT", "extensions.mls_gateway.project_id"),
];

/// The settings in the environment.
pub(super) struct Environment {
    pub(super) under_file: Vec<Setting>,
    pub(super) over_file: Vec<Setting>,
    pub(super) on_cloud_run: bool,
    /// The variables that set no key.
    pub(super) faults: Vec<ConfigError>,
}

/// The process's own environment, for [`super::Config::load`]. Text that is not UTF-8 gets replacement characters, so
/// that a key set to it is refused and not passed over.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// The variable that sets `section.key`: `RNOSTR_SECTION__KEY`.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{}", section.replace('.', "__"), key).to_ascii_uppercase()
}

/// The specification's own variables that set `path`, the strongest first.
pub(super) fn specified(path: &str) -> impl Iterator<Item = &'static str> {
    OVER_FILE.iter().chain(&UNDER_FILE).rev().filter(move |(_, key)| *key == path).map(|(name, _)| *name)
}

/// Picks the variables that concern the relay out of `variables`.
pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Environment {
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let is_set = |name: &str| variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let setting = |(name, path): &(&str, &str)| {
        let value = Value::Variable(is_set(name)?.to_owned());
        Some(Setting { key: keys::find(path)?, value, location: Location::Variable((*name).to_owned()) })
    };
    let mut over_file: Vec<Setting> = OVER_FILE.iter().filter_map(setting).collect();
    let mut faults = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if !name.contains("__") && !is_misspelt(name) {
            continue;
        }
        let location = Location::Variable(name.clone());
        match find(name) {
            Some(key) => over_file.push(Setting { key, value: Value::Variable(value.trim().to_owned()), location }),
            None => faults.push(ConfigError::keyless(location, unknown(name))),
        }
    }
    Environment {
        under_file: UNDER_FILE.iter().filter_map(setting).collect(),
        over_file,
        on_cloud_run: is_set(CLOUD_RUN).is_some(),
        faults,
    }
}

fn find(name: &str) -> Option<&'static Key> {
    keys::all().find(|key| key.variable() == name)
}

/// Returns whether a variable without `__` is a key's variable with one underscore where two belong. All others are
/// foreign: Kubernetes sets `RNOSTR_SERVICE_HOST` and its like for a service of the relay's name.
fn is_misspelt(name: &str) -> bool {
    keys::all().any(|key| key.variable().replace("__", "_") == name)
}

fn unknown(name: &str) -> String {
    let known: Vec<String> = keys::all().map(Key::variable).collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(known) => format!("unknown variable; did you mean {known}?"),
        None => "unknown variable; write RNOSTR_SECTION__KEY with two underscores, as RNOSTR_SERVER__PORT".to_owned(),
    }
}
