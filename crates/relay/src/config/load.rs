//! Reading: a file and the environment become a [`Config`], or the first error in them.

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
    error::{ConfigError, Location, nearest},
    keys,
    section::Key,
    value::{Problem, Value},
};

/// A key that was set, with its value and the location of both.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) location: Location,
}

impl Setting {
    /// Sorts the file's lines first and in their order, so that the first error is the one nearest to its top.
    fn order(&self) -> (bool, usize) {
        match &self.location {
            Location::File { line, .. } => (false, line.unwrap_or(0)),
            Location::Variable(_) => (true, 0),
        }
    }

    fn error(&self, problem: Problem) -> ConfigError {
        let key = self.key.path();
        let Some((index, line)) = problem.item else {
            return ConfigError::new(self.location.clone(), key, problem.text);
        };
        let location = match (&self.location, line) {
            (Location::File { path, .. }, Some(line)) => Location::line(path, line),
            (location, _) => location.clone(),
        };
        ConfigError::new(location, format!("{key}[{index}]"), problem.text)
    }
}

impl Config {
    /// Reads `file` (`None`: the built-in defaults) and `env`, which wins.
    ///
    /// # Errors
    /// If the file cannot be read or is no TOML, if a key or variable is unknown, if a key does not take its value, or
    /// if this build does not have a backend or source. The error names the first fault.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::from_settings(Vec::new(), env::read(env)?);
        };
        let failed = |message: String| ConfigError::keyless(Location::whole(path), message);
        let bytes = fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            ConfigError::keyless(Location::line(path, line), "not UTF-8; save the file as UTF-8")
        })?;
        Self::parse(&text, path, env)
    }

    /// Reads a file's text as [`Config::load`] reads the file; errors call it `path`.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse(
        text: &str,
        path: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment = env::read(env)?;
        Self::from_settings(read_file(text, path)?, environment)
    }

    fn from_settings(file: Vec<Setting>, environment: Environment) -> Result<Self, ConfigError> {
        let layers = [environment.under_file, file, environment.over_file];
        // A later layer wins.
        let settings: BTreeMap<String, Setting> =
            layers.into_iter().flatten().map(|setting| (setting.key.path(), setting)).collect();
        let mut in_order: Vec<&Setting> = settings.values().collect();
        in_order.sort_by_key(|setting| setting.order());
        let mut config = Self { on_cloud_run: environment.on_cloud_run, ..Self::default() };
        for setting in in_order {
            (setting.key.set)(&mut config, &setting.value).map_err(|problem| setting.error(problem))?;
        }
        config.fill_in(|path| settings.contains_key(path));
        config.check_pairs(&settings)?;
        Ok(config)
    }

    /// Sets the defaults that depend on other values.
    fn fill_in(&mut self, is_set: impl Fn(&str) -> bool) {
        if self.on_cloud_run && !is_set("server.host") {
            self.server.host = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        if self.on_cloud_run && !is_set("server.log_format") {
            self.server.log_format = LogFormat::Json;
        }
        if !is_set("extensions.mls_gateway.unlisted_groups") {
            self.mls_gateway.unlisted_groups = !self.auth.enabled;
        }
        let limits = &mut self.limitation;
        if !is_set("limitation.default_limit") {
            limits.default_limit = limits.default_limit.min(limits.max_limit);
        }
        if !is_set("limitation.max_event_length") {
            limits.max_event_length = limits.max_event_length.min(limits.max_message_length);
        }
    }

    /// Checks the keys that must agree with another one. The error names the location of the key that was set.
    fn check_pairs(&self, settings: &BTreeMap<String, Setting>) -> Result<(), ConfigError> {
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
                gateway.wake == WakeBy::Redis && gateway.redis_url.is_none(),
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
        match broken.and_then(|(_, path, message)| Some((settings.get(path)?, message))) {
            Some((setting, message)) => Err(setting.error(Problem::new(message))),
            None => Ok(()),
        }
    }
}

/// A file's text and name.
struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn line_of(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn error(&self, offset: usize, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(Location::line(self.path, self.line_of(offset)), key, message)
    }
}

fn read_file(text: &str, path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let file = File { text, path };
    let table = DeTable::parse(text).map_err(|error| {
        // The message alone: the error's own display repeats the line, which may hold a token.
        let line = file.line_of(error.span().map_or(0, |span| span.start));
        ConfigError::keyless(Location::line(path, line), format!("not TOML: {}", error.message()))
    })?;
    let (mut settings, mut errors) = (Vec::new(), Vec::new());
    walk(&file, table.get_ref(), "", &mut settings, &mut errors);
    match errors.into_iter().min_by_key(ConfigError::line) {
        Some(first) => Err(first),
        None => Ok(settings),
    }
}

/// Collects the keys of `table`, which stands at `section`, and the faults in their names.
fn walk(
    file: &File<'_>,
    table: &DeTable<'_>,
    section: &str,
    settings: &mut Vec<Setting>,
    errors: &mut Vec<ConfigError>,
) {
    for (name, value) in table {
        let path =
            if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
        let offset = name.span().start;
        match (value.get_ref(), keys::find(&path)) {
            (value, Some(key)) => {
                let location = Location::line(file.path, file.line_of(offset));
                let value = Value::from_file(value, &|offset| file.line_of(offset));
                settings.push(Setting { key, value, location });
            }
            (DeValue::Table(table), None) if keys::is_section(&path) => walk(file, table, &path, settings, errors),
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
    match nearest(path, keys::SECTIONS.iter().map(|section| section.path)) {
        Some(known) => format!("unknown section; did you mean [{known}]?"),
        None => {
            let known: Vec<String> = keys::SECTIONS.iter().map(|section| format!("[{}]", section.path)).collect();
            format!("unknown section; the sections are {}", known.join(", "))
        }
    }
}

/// Describes a misspelt key of its section, a key of another section, or neither.
fn unknown_key(section: &str, name: &str) -> String {
    let siblings = || keys::all().filter(|key| key.section == section).map(|key| key.name);
    if let Some(known) = nearest(name, siblings()) {
        return format!("unknown key; did you mean {known}?");
    }
    if let Some(key) = keys::all().find(|key| key.name == name) {
        return format!("not a key of this section; write {name} in [{}]", key.section);
    }
    if let Some(known) = nearest(name, keys::all().map(|key| key.name)) {
        return format!("unknown key; did you mean {known}?");
    }
    let siblings: Vec<&str> = siblings().collect();
    if siblings.is_empty() {
        "unknown key; a key stands in a section, as port in [server]".to_owned()
    } else {
        format!("unknown key; the keys of [{section}] are {}", siblings.join(", "))
    }
}
