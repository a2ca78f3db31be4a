//! A file and the environment become a [`Config`], or the first thing that is wrong with them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use toml::de::{DeTable, DeValue};

use super::{
    Config, LogFormat, StorageBackend, WakeBy,
    env::{self, Environment},
    error::{ConfigError, Place, nearest},
    keys::{self, Found},
    value::{Problem, Value},
};

/// A key that was written somewhere.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    found: Found,
    value: Value,
    place: Place,
}

impl Entry {
    pub(super) const fn new(found: Found, value: Value, place: Place) -> Self {
        Self { found, value, place }
    }

    /// The file's lines come first and in their order, so that the first error is the one nearest to its top.
    fn order(&self) -> (bool, usize) {
        match &self.place {
            Place::File { line, .. } => (false, line.unwrap_or(0)),
            Place::Variable(_) => (true, 0),
        }
    }

    fn error(&self, problem: Problem) -> ConfigError {
        let path = self.found.path();
        let Some((index, line)) = problem.item else {
            return ConfigError::new(self.place.clone(), path, problem.text);
        };
        let place = match (&self.place, line) {
            (Place::File { path, .. }, Some(line)) => Place::line(path, line),
            (place, _) => place.clone(),
        };
        ConfigError::new(place, format!("{path}[{index}]"), problem.text)
    }
}

impl Config {
    /// The configuration of `file` (none: built-in defaults), with `env` over it.
    ///
    /// # Errors
    /// The first thing that is wrong: a file that cannot be read or is no TOML, an unknown key or variable, a value that
    /// its key does not take, or a backend or source that this build does not have.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::from_entries(Vec::new(), env::read(env)?);
        };
        let failed = |message: String| ConfigError::keyless(Place::whole(path), message);
        let bytes = fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            ConfigError::keyless(Place::line(path, line), "not UTF-8; save the file as UTF-8")
        })?;
        Self::parse(&text, path, env)
    }

    /// As [`Config::load`], of a file's text; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        text: &str,
        path: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment = env::read(env)?;
        Self::from_entries(read_file(text, path)?, environment)
    }

    fn from_entries(file: Vec<Entry>, environment: Environment) -> Result<Self, ConfigError> {
        let layers = [environment.under_file, file, environment.over_file];
        let written: BTreeMap<String, Entry> =
            layers.into_iter().flatten().map(|entry| (entry.found.path(), entry)).collect();
        let mut in_order: Vec<&Entry> = written.values().collect();
        in_order.sort_by_key(|entry| entry.order());
        let mut config = Self { on_cloud_run: environment.on_cloud_run, ..Self::default() };
        for entry in in_order {
            entry.found.key.set(&mut config, &entry.value).map_err(|problem| entry.error(problem))?;
        }
        config.fill_in(|path| written.contains_key(path));
        config.check_pairs(&written)?;
        Ok(config)
    }

    /// The defaults that depend on other values.
    fn fill_in(&mut self, is_written: impl Fn(&str) -> bool) {
        if self.on_cloud_run && !is_written("server.host") {
            self.server.host = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        if self.on_cloud_run && !is_written("server.log_format") {
            self.log.format = LogFormat::Json;
        }
        if !is_written("extensions.mls_gateway.unlisted_groups") {
            self.mls_gateway.unlisted_groups = !self.auth.enabled;
        }
        let limits = &mut self.limitation;
        if !is_written("limitation.default_limit") {
            limits.default_limit = limits.default_limit.min(limits.max_limit);
        }
        if !is_written("limitation.max_event_length") {
            limits.max_event_length = limits.max_event_length.min(limits.max_message_length);
        }
    }

    /// What two keys must agree on. The place named is that of the key that was written.
    fn check_pairs(&self, written: &BTreeMap<String, Entry>) -> Result<(), ConfigError> {
        let limits = &self.limitation;
        let gateway = &self.mls_gateway;
        let pairs = [
            (
                gateway.storage_backend == StorageBackend::Firestore && gateway.project_id.is_none(),
                "extensions.mls_gateway.storage_backend",
                "project_id required for Firestore backend; write project_id, or set GOOGLE_CLOUD_PROJECT",
            ),
            (
                gateway.storage_backend == StorageBackend::Postgres && gateway.database_url.is_none(),
                "extensions.mls_gateway.storage_backend",
                "database_url required for PostgreSQL; write database_url = \"postgresql://user:password@host/db\"",
            ),
            (self.server.tls_cert.is_some() && self.server.tls_key.is_none(), "server.tls_cert", "set tls_key as well"),
            (self.server.tls_key.is_some() && self.server.tls_cert.is_none(), "server.tls_key", "set tls_cert as well"),
            (
                self.mls_gateway.wake == WakeBy::Redis && self.mls_gateway.redis_url.is_none(),
                "extensions.mls_gateway.wake",
                "set redis_url as well",
            ),
            (limits.default_limit > limits.max_limit, "limitation.default_limit", "write at most max_limit"),
            (
                limits.max_event_length > limits.max_message_length,
                "limitation.max_event_length",
                "write at most max_message_length",
            ),
        ];
        let broken = pairs.into_iter().find(|(broken, _, _)| *broken);
        match broken.and_then(|(_, path, message)| Some((written.get(path)?, message))) {
            Some((entry, message)) => Err(entry.error(Problem::new(message))),
            None => Ok(()),
        }
    }
}

/// A file's text, as it is read.
struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn line_of(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn error(&self, offset: usize, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(Place::line(self.path, self.line_of(offset)), key, message)
    }
}

fn read_file(text: &str, path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let file = File { text, path };
    let table = DeTable::parse(text).map_err(|error| {
        // The message alone: the error's own display repeats the line, which may hold a token.
        let line = file.line_of(error.span().map_or(0, |span| span.start));
        ConfigError::keyless(Place::line(path, line), format!("not TOML: {}", error.message()))
    })?;
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    walk(&file, table.get_ref(), "", &mut entries, &mut errors);
    match errors.into_iter().min_by_key(ConfigError::line) {
        Some(first) => Err(first),
        None => Ok(entries),
    }
}

/// Collects the keys of `table`, which stands at `section`, and what is wrong with their names.
fn walk(file: &File<'_>, table: &DeTable<'_>, section: &str, entries: &mut Vec<Entry>, errors: &mut Vec<ConfigError>) {
    for (name, value) in table {
        let path =
            if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
        let offset = name.span().start;
        match (value.get_ref(), keys::find(&path)) {
            (value, Some(found)) => {
                let place = Place::line(file.path, file.line_of(offset));
                let value = Value::from_file(value, &|offset| file.line_of(offset));
                entries.push(Entry::new(found, value, place));
            }
            (DeValue::Table(table), None) if keys::is_section(&path) => walk(file, table, &path, entries, errors),
            (_, None) if keys::is_section(&path) => {
                errors.push(file.error(
                    offset,
                    &path,
                    format!("this is a section; write [{path}] on a line of its own"),
                ));
            }
            (DeValue::Table(_), None) => errors.push(file.error(offset, &path, unknown_section(&path))),
            (_, None) => errors.push(file.error(offset, &path, unknown_key(section, name.get_ref()))),
        }
    }
}

fn unknown_section(path: &str) -> String {
    match nearest(path, keys::KEYS.iter().map(|section| section.path)) {
        Some(known) => format!("unknown section; did you mean [{known}]?"),
        None => {
            let known: Vec<String> = keys::KEYS.iter().map(|section| format!("[{}]", section.path)).collect();
            format!("unknown section; the sections are {}", known.join(", "))
        }
    }
}

/// A misspelt key of its section, a key of another section, or neither.
fn unknown_key(section: &str, name: &str) -> String {
    let siblings = || keys::all().filter(|found| found.section.path == section).map(|found| found.key.name);
    if let Some(known) = nearest(name, siblings()) {
        return format!("unknown key; did you mean {known}?");
    }
    if let Some(found) = keys::all().find(|found| found.key.name == name) {
        return format!("not a key of this section; write {name} in [{}]", found.section.path);
    }
    if let Some(known) = nearest(name, keys::all().map(|found| found.key.name)) {
        return format!("unknown key; did you mean {known}?");
    }
    let siblings: Vec<&str> = siblings().collect();
    if siblings.is_empty() {
        "unknown key; a key stands in a section, as port in [server]".to_owned()
    } else {
        format!("unknown key; the keys of [{section}] are {}", siblings.join(", "))
    }
}
