//! Which variables of the environment set which keys.
//!
//! Source: MLS Gateway specification, "Environment Variables" and "Google Cloud Run Deployment".

use std::collections::BTreeMap;

use super::{
    error::{ConfigError, Place, nearest},
    keys::{self, Found},
    load::Entry,
    value::Value,
};

/// What every variable of the relay's own starts with.
const PREFIX: &str = "RNOSTR_";
/// Cloud Run names the service in it.
const CLOUD_RUN: &str = "K_SERVICE";

/// The specification's variables that stand above the file, the weaker first where two set one key.
const OVER_FILE: [(&str, &str); 5] = [
    ("PORT", "server.port"),
    ("ALLOWED_ORIGINS", "server.allowed_origins"),
    ("LOG_LEVEL", "server.log_level"),
    ("RUST_LOG", "server.log_level"),
    ("NOSTR_AUTH_REQUIRED", "auth.enabled"),
];
/// Those that stand below it: they are the machine's, and say nothing about this relay in particular.
const UNDER_FILE: [(&str, &str); 2] = [
    ("FIREBASE_PROJECT_ID", "extensions.mls_gateway.project_id"),
    ("GOOGLE_CLOUD_PROJECT", "extensions.mls_gateway.project_id"),
];

/// What the environment says.
pub(super) struct Environment {
    pub(super) under_file: Vec<Entry>,
    pub(super) over_file: Vec<Entry>,
    pub(super) on_cloud_run: bool,
}

/// The process's own environment, for [`super::Config::load`]. What is not UTF-8 comes with replacement characters, so
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

/// Sorts the variables that concern the relay out of `variables`.
pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Environment, ConfigError> {
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let is_set = |name: &str| variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let entry = |(name, path): &(&str, &str)| {
        let found = keys::find(path)?;
        Some(Entry::new(found, Value::Variable(is_set(name)?.to_owned()), Place::Variable((*name).to_owned())))
    };
    let mut over_file: Vec<Entry> = OVER_FILE.iter().filter_map(entry).collect();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if !name.contains("__") && !is_misspelt(name) {
            continue;
        }
        let place = Place::Variable(name.clone());
        let found = find(name).ok_or_else(|| ConfigError::keyless(place.clone(), unknown(name)))?;
        over_file.push(Entry::new(found, Value::Variable(value.trim().to_owned()), place));
    }
    Ok(Environment {
        under_file: UNDER_FILE.iter().filter_map(entry).collect(),
        over_file,
        on_cloud_run: is_set(CLOUD_RUN).is_some(),
    })
}

fn find(name: &str) -> Option<Found> {
    keys::all().find(|found| variable(found.section.path, found.key.name) == name)
}

/// Whether a variable without `__` is a key's name with a single underscore between section and key. Others are not
/// ours: Kubernetes sets `RNOSTR_SERVICE_HOST` and its like for a service of the relay's name.
fn is_misspelt(name: &str) -> bool {
    keys::all().any(|found| variable(found.section.path, found.key.name).replace("__", "_") == name)
}

fn unknown(name: &str) -> String {
    let known: Vec<String> = keys::all().map(|found| variable(found.section.path, found.key.name)).collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(known) => format!("unknown variable; did you mean {known}?"),
        None => "unknown variable; write RNOSTR_SECTION__KEY with two underscores, as RNOSTR_SERVER__PORT".to_owned(),
    }
}
