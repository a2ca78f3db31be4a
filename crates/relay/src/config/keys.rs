//! The list of all sections, and look-ups in it.

use std::fmt::Write as _;

use super::{
    env,
    gateway::{MlsGateway, RateLimitRates},
    nip11::{Information, Limitation},
    section::{Key, Section, ShownDefault},
    server::{Auth, Data, Metrics, Outbound, Server},
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
];

/// Every key, in the order of the tables.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
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
