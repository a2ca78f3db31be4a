//! Reading: a file and the environment become a [`Config`], or the errors in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use nostr_extensions::Source;
use nostr_protocol::auth::RelayAddress;
use toml::de::{DeTable, DeValue};

use super::{
    Config, LogFormat, StorageBackend, WakeBy,
    env::{self, Environment},
    error::{ConfigError, Location, nearest},
    keys,
    section::Key,
    value::{Problem, Value},
};
use crate::rate_limit::PARTIES_AT_THE_CEILING;

/// Longest time-out that Cloud Run has for a request, which a WebSocket is to it, in seconds.
const CLOUD_RUN_TIMEOUT_SECS: u64 = 3_600;

/// A key that was set, with its value and the location of both.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) location: Location,
}

impl Setting {
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

/// A configuration as far as it could be read, and all of its faults.
#[derive(Debug)]
pub struct Reading {
    /// The configuration. A key with a fault has its default.
    pub config: Config,
    /// The faults: those of the file in the order of its lines, then those of variables.
    pub faults: Vec<ConfigError>,
    /// Set where the file sets no key.
    is_blank: bool,
}

impl From<Config> for Reading {
    /// A reading without a fault.
    fn from(config: Config) -> Self {
        Self { config, faults: Vec::new(), is_blank: false }
    }
}

impl Reading {
    /// Reads `file` (`None`: the built-in defaults) and `env`, which wins. It goes on behind a fault.
    pub fn of(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let Some(path) = file else {
            return Self::from_parts(Vec::new(), Vec::new(), env::read(env));
        };
        let read = fs::read(path)
            .map_err(|error| ConfigError::keyless(Location::whole(path), format!("cannot be read: {error}")));
        let text = read.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
                ConfigError::keyless(Location::line(path, line), "not UTF-8; save the file as UTF-8")
            })
        });
        match text {
            Ok(text) => Self::of_text(&text, path, env),
            Err(fault) => Self::from_parts(Vec::new(), vec![fault], env::read(env)),
        }
    }

    /// Reads as [`Reading::of`] does, for a relay that runs. A file that sets no key has a fault: it was cut off, or is
    /// being written, and its defaults would open the relay.
    pub fn again(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut reading = Self::of(file, env);
        if let Some(path) = file.filter(|_| reading.is_blank) {
            let text = "sets no key, and a relay that runs is not opened by its defaults; write the file as a whole";
            reading.faults.push(ConfigError::keyless(Location::whole(path), text));
        }
        reading
    }

    fn of_text(text: &str, path: &Path, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let (settings, faults) = read_file(text, path);
        Self::from_parts(settings, faults, env::read(env))
    }

    fn from_parts(file: Vec<Setting>, mut faults: Vec<ConfigError>, environment: Environment) -> Self {
        let is_blank = file.is_empty() && faults.is_empty();
        faults.extend(environment.faults);
        let layers = [environment.under_file, file, environment.over_file];
        // A later layer wins.
        let settings: BTreeMap<String, Setting> =
            layers.into_iter().flatten().map(|setting| (setting.key.path(), setting)).collect();
        let mut config = Config { on_cloud_run: environment.on_cloud_run, ..Config::default() };
        let mut refused = BTreeSet::new();
        for setting in settings.values() {
            if let Err(problem) = (setting.key.set)(&mut config, &setting.value) {
                faults.push(setting.error(problem));
                refused.insert(setting.key.path());
            }
        }
        config.fill_in(|path| settings.contains_key(path));
        faults.extend(config.check_pairs(&settings, &refused));
        config.places = settings.into_iter().map(|(path, setting)| (path, setting.location)).collect();
        faults.sort_by_key(ConfigError::order);
        Self { config, faults, is_blank }
    }

    fn into_first_fault(self) -> Result<Config, ConfigError> {
        match self.faults.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(self.config),
        }
    }
}

impl Config {
    /// Reads `file` (`None`: the built-in defaults) and `env`, which wins.
    ///
    /// # Errors
    /// If the file cannot be read or is no TOML, if a key or variable is unknown, if a key does not take its value, or
    /// if this build does not have a backend or source. The error names the first fault; [`Reading`] has all.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Reading::of(file, env).into_first_fault()
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
        Reading::of_text(text, path, env).into_first_fault()
    }

    /// Sets the defaults that depend on other values.
    fn fill_in(&mut self, is_set: impl Fn(&str) -> bool) {
        if self.on_cloud_run && !is_set("server.host") {
            self.server.host = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        if self.on_cloud_run && !is_set("server.log_format") {
            self.server.log_format = LogFormat::Json;
        }
        if self.on_cloud_run && !is_set("server.connection_lifetime_secs") {
            self.server.connection_lifetime_secs = CLOUD_RUN_TIMEOUT_SECS;
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

    /// Checks the keys that must agree with another one, unless one of both was `refused`. An error names the location
    /// of the key that was set.
    fn check_pairs(&self, settings: &BTreeMap<String, Setting>, refused: &BTreeSet<String>) -> Vec<ConfigError> {
        let limits = &self.limitation;
        let gateway = &self.mls_gateway;
        let pairs = [
            (
                gateway.storage_backend == StorageBackend::Firestore && gateway.project_id.is_none(),
                ["extensions.mls_gateway.storage_backend", "extensions.mls_gateway.project_id"],
                "project_id required for Firestore backend; write project_id, or set GOOGLE_CLOUD_PROJECT",
            ),
            (
                gateway.storage_backend == StorageBackend::Postgres && gateway.database_url.is_none(),
                ["extensions.mls_gateway.storage_backend", "extensions.mls_gateway.database_url"],
                "database_url required for PostgreSQL; write database_url = \"postgresql://user:password@host/db\"",
            ),
            (
                self.server.tls_cert.is_some() && self.server.tls_key.is_none(),
                ["server.tls_cert", "server.tls_key"],
                "set tls_key as well",
            ),
            (
                self.server.tls_key.is_some() && self.server.tls_cert.is_none(),
                ["server.tls_key", "server.tls_cert"],
                "set tls_cert as well",
            ),
            (
                gateway.wake == WakeBy::Redis && gateway.redis_url.is_none(),
                ["extensions.mls_gateway.wake", "extensions.mls_gateway.redis_url"],
                "set redis_url as well",
            ),
            (
                gateway.enable_api
                    && self.server.relay_addresses().iter().any(|address| is_under(address, &gateway.api_prefix)),
                ["server.public_url", "extensions.mls_gateway.api_prefix"],
                "the path lies under api_prefix, where the REST API is; write another path, or another api_prefix",
            ),
            (
                gateway.membership_sources.contains(&Source::Acl) && gateway.acl_url.is_none(),
                ["extensions.mls_gateway.membership_sources", "extensions.mls_gateway.acl_url"],
                "the source acl needs its service; write acl_url = \"https://host/path\"",
            ),
            (
                limits.default_limit > limits.max_limit,
                ["limitation.default_limit", "limitation.max_limit"],
                "write at most max_limit",
            ),
            (
                limits.max_event_length > limits.max_message_length,
                ["limitation.max_event_length", "limitation.max_message_length"],
                "write at most max_message_length",
            ),
        ];
        let pairs = pairs.into_iter().chain(self.quota_and_strangers());
        let broken = pairs.filter(|(broken, keys, _)| *broken && !keys.iter().any(|key| refused.contains(*key)));
        broken.filter_map(|(_, [path, _], message)| Some(settings.get(path)?.error(Problem::new(message)))).collect()
    }

    /// Pairs of `[retention]` and `[strangers]`: whether one is broken, its keys and the message.
    fn quota_and_strangers(&self) -> [(bool, [&'static str; 2], &'static str); 3] {
        let (gateway, strangers) = (&self.mls_gateway, &self.strangers);
        // A count reads each event of a full quota, and one party may read so many documents in a minute.
        let readable = u64::from(gateway.firestore_reads_per_minute_max / PARTIES_AT_THE_CEILING);
        let is_dear = readable > 0 && self.retention.events_per_key_max > readable;
        [
            (
                strangers.founding_by_invitation
                    && strangers.founding_min_pow == 0
                    && strangers.invitation_pubkeys.is_empty(),
                ["strangers.founding_by_invitation", "strangers.invitation_pubkeys"],
                "nobody could found a group; write the keys that invite into invitation_pubkeys",
            ),
            (
                // A count looks at the index and at each event, and large events cost more.
                self.retention.events_per_key_max.saturating_mul(3) > self.limitation.max_query_cost,
                ["retention.events_per_key_max", "limitation.max_query_cost"],
                "write at most a third of max_query_cost, at which a count of a key's events ends",
            ),
            (
                gateway.storage_backend == StorageBackend::Firestore && is_dear,
                ["retention.events_per_key_max", "extensions.mls_gateway.firestore_reads_per_minute_max"],
                "a count of a key's events reads each of them; write at most an eighth of \
                 firestore_reads_per_minute_max",
            ),
        ]
    }
}

/// Whether the relay's URL has a path under this one.
fn is_under(address: &RelayAddress, prefix: &str) -> bool {
    let path = format!("/{}", address.path());
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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

/// The settings of a file, and the faults in its form and its names.
fn read_file(text: &str, path: &Path) -> (Vec<Setting>, Vec<ConfigError>) {
    let file = File { text, path };
    let (mut settings, mut errors) = (Vec::new(), Vec::new());
    match DeTable::parse(text) {
        Ok(table) => walk(&file, table.get_ref(), "", &mut settings, &mut errors),
        Err(error) => {
            // The message alone: the error's own display repeats the line, which may hold a token.
            let line = file.line_of(error.span().map_or(0, |span| span.start));
            errors.push(ConfigError::keyless(Location::line(path, line), format!("not TOML: {}", error.message())));
        }
    }
    (settings, errors)
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
