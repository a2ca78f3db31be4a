//! The list of all sections, and look-ups in it.

use std::fmt::Write as _;

use super::{
    Config, env,
    gateway::{MlsGateway, RateLimitRates},
    moderation::{Kinds, RetentionRules, WritePolicy},
    nip11::{Information, Limitation},
    section::{Key, Section, ShownDefault},
    server::{Auth, Data, Metrics, Outbound, Server},
    strangers::Strangers,
};

/// Every section with its keys, in the order of the tables.
pub(super) const SECTIONS: &[Section] = &[
    Server::SECTION,
    Auth::SECTION,
    Data::SECTION,
    MlsGateway::SECTION,
    RateLimitRates::SECTION,
    Limitation::SECTION,
    Information::SECTION,
    Metrics::SECTION,
    Outbound::SECTION,
    Kinds::SECTION,
    RetentionRules::SECTION,
    WritePolicy::SECTION,
    Strangers::SECTION,
];

/// Every key, in the order of the tables.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The path of every key.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = String> {
    all().map(Key::path)
}

/// Keys of which a configuration that was read again has another value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Keys whose new value was taken over.
    pub taken: Vec<String>,
    /// Keys that keep their value until the next start.
    pub left: Vec<String>,
}

impl Config {
    /// Takes over the keys of `next` that `is_live` names, and tells all keys that differ.
    pub(crate) fn take_over(&mut self, next: &Self, is_live: impl Fn(&str) -> bool) -> Differences {
        let mut differences = Differences::default();
        let mut others = self.clone();
        for key in all() {
            let path = key.path();
            if is_live(&path) {
                self.places.take_over(&path, &next.places);
                if (key.take_over)(self, next) {
                    differences.taken.push(path);
                }
            } else if (key.take_over)(&mut others, next) {
                differences.left.push(path);
            }
        }
        differences
    }
}

/// The key at `path`, as `server.port`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let (section, name) = path.rsplit_once('.')?;
    all().find(|key| key.section == section && key.name == name)
}

/// Returns whether `path` is a section, or holds one.
pub(super) fn is_section(path: &str) -> bool {
    SECTIONS
        .iter()
        .any(|section| section.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Every key as Markdown, one table a section: name, default, unit, variables, meaning.
#[must_use]
pub fn markdown() -> String {
    SECTIONS.iter().map(table).collect()
}

fn table(section: &Section) -> String {
    let mut out = format!(
        "### `[{}]`\n\n{}\n\n| key | default | unit | environment | meaning |\n|---|---|---|---|---|\n",
        section.path, section.about
    );
    for key in section.keys {
        let default = match key.default {
            ShownDefault::Text("") => "-".to_owned(),
            ShownDefault::Text(text) => format!("`{text}`"),
            ShownDefault::Words(words) => words.to_owned(),
        };
        let unit = if key.unit.is_empty() { "-" } else { key.unit };
        let path = key.path();
        let mut variables = vec![format!("`{}`", key.variable())];
        variables.extend(env::specified(&path).map(|name| format!("`{name}`")));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| `{}` | {default} | {unit} | {} | {} |", key.name, variables.join(", "), key.help);
    }
    out.push('\n');
    out
}
