//! Every key, in one list.

mod client;
mod gateway;
mod server;

use std::fmt::{self, Write as _};

use super::{
    Config, env,
    value::{Problem, Value},
};

/// Every section with its keys, in the order of the README's table.
pub const KEYS: &[Section] = &[
    Section { path: "server", about: "Where it listens and how connections are bounded.", keys: server::SERVER },
    Section { path: "auth", about: "Who must authenticate, and who is a resident.", keys: server::AUTH },
    Section { path: "data", about: "The embedded store.", keys: server::DATA },
    Section {
        path: "extensions.mls_gateway",
        about: "Groups, KeyPackages, messages and their lifetimes.",
        keys: gateway::MLS_GATEWAY,
    },
    Section {
        path: "extensions.mls_gateway.rate_limits",
        about: "Sustained rates, with a burst of 150; 0 means no limit.",
        keys: gateway::RATE_LIMITS,
    },
    Section { path: "limitation", about: "What a client may send; told in NIP-11.", keys: client::LIMITATION },
    Section { path: "information", about: "What NIP-11 and the page at `/` tell.", keys: client::INFORMATION },
    Section { path: "metrics", about: "Who may read `/metrics`.", keys: server::METRICS },
    Section { path: "outbound", about: "What is sent to other relays.", keys: server::OUTBOUND },
];

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// As it stands between brackets.
    pub path: &'static str,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of a section.
pub struct Key {
    /// As it stands in front of the equals sign.
    pub name: &'static str,
    /// The default as a variable would hold it (lists by commas), or in words within parentheses; empty: none.
    pub default: &'static str,
    /// The unit of a number; empty where there is none.
    pub unit: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    set: Set,
}

/// Reads a value and puts it into its place.
type Set = fn(&mut Config, &Value) -> Result<(), Problem>;

const fn key(name: &'static str, default: &'static str, unit: &'static str, help: &'static str, set: Set) -> Key {
    Key { name, default, unit, help, set }
}

/// Puts what was read into its place.
fn put<T>(place: &mut T, read: Result<T, Problem>) -> Result<(), Problem> {
    *place = read?;
    Ok(())
}

impl Key {
    pub(super) fn set(&self, config: &mut Config, value: &Value) -> Result<(), Problem> {
        (self.set)(config, value)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A key and its section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) section: &'static Section,
    pub(super) key: &'static Key,
}

impl Found {
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section.path, self.key.name)
    }
}

pub(super) fn all() -> impl Iterator<Item = Found> {
    KEYS.iter().flat_map(|section| section.keys.iter().map(move |key| Found { section, key }))
}

pub(super) fn find(path: &str) -> Option<Found> {
    let (section, name) = path.rsplit_once('.')?;
    all().find(|found| found.section.path == section && found.key.name == name)
}

/// Whether `path` is a section, or holds one.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter()
        .any(|section| section.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Every key as the README's tables: default, unit, variables, meaning.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    for section in KEYS {
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "### `[{}]`\n\n{}\n\n| key | default | unit | environment | meaning |\n|---|---|---|---|---|\n",
            section.path, section.about
        );
        for key in section.keys {
            let path = format!("{}.{}", section.path, key.name);
            let mut variables = vec![format!("`{}`", env::variable(section.path, key.name))];
            variables.extend(env::specified(&path).map(|name| format!("`{name}`")));
            let default = match key.default {
                "" => "-".to_owned(),
                words if words.starts_with('(') => words.trim_matches(['(', ')']).to_owned(),
                value => format!("`{value}`"),
            };
            let unit = if key.unit.is_empty() { "-" } else { key.unit };
            let variables = variables.join(", ");
            let _ = writeln!(out, "| `{}` | {default} | {unit} | {variables} | {} |", key.name, key.help);
        }
        out.push('\n');
    }
    out
}
