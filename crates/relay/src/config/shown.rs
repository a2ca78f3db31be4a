//! The configuration in force as an operator reads it: values, and the places that set them. Secrets are left out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use nostr_extensions::{
    KindRange, Retention, Source,
    mls_gateway::group::CommitOrdering,
    policy::{KeyPackageConsumption, VerifyKeyPackages},
};
use nostr_protocol::{DAY_SECS, PublicKey, sign::SecretKey};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Config, Durability, LogFormat, Origins, RelayUrl, Secret, StorageBackend, WakeBy, error::Location, keys,
    section::Key,
};

/// The place that set each key. A key that is not here has its default.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Location>);

impl PartialEq for Places {
    /// Two configurations with the same values are the same, wherever the values were written.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl FromIterator<(String, Location)> for Places {
    fn from_iter<T: IntoIterator<Item = (String, Location)>>(places: T) -> Self {
        Self(places.into_iter().collect())
    }
}

impl Places {
    /// Takes over the place of a key.
    pub(super) fn take_over(&mut self, path: &str, next: &Self) {
        match next.0.get(path) {
            Some(place) => self.0.insert(path.to_owned(), place.clone()),
            None => self.0.remove(path),
        };
    }
}

/// A key as an operator reads it.
#[derive(Debug, Serialize)]
pub(crate) struct ShownKey {
    section: &'static str,
    key: &'static str,
    /// Null for no value, and for a secret.
    value: Value,
    unit: &'static str,
    /// `file`, `variable` or `default`.
    source: &'static str,
    /// File and line, or the variable's name.
    origin: Option<String>,
    secret: bool,
    /// Whether a change takes effect at the next start alone.
    restart: bool,
    about: &'static str,
}

/// Every key of a configuration. `is_live` tells the keys that may change while the relay runs.
pub(crate) fn shown_keys(config: &Config, is_live: impl Fn(&str) -> bool) -> Vec<ShownKey> {
    keys::all().map(|key| shown(key, config, is_live(&key.path()))).collect()
}

fn shown(key: &'static Key, config: &Config, is_live: bool) -> ShownKey {
    let place = config.places.0.get(&key.path());
    let value = (key.show)(config);
    // A command may be given a token, and a URL may hold a password.
    let value = match value {
        Some(Value::String(text)) if key.path() == "write_policy.plugin" => Some(without_arguments(&text).into()),
        Some(Value::String(text)) if holds_password(&text) => None,
        value => value,
    };
    ShownKey {
        section: key.section,
        key: key.name,
        secret: value.is_none(),
        value: value.unwrap_or_default(),
        unit: key.unit,
        source: match place {
            Some(Location::File { .. }) => "file",
            Some(Location::Variable(_)) => "variable",
            None => "default",
        },
        origin: place.map(ToString::to_string),
        restart: !is_live,
        about: key.help,
    }
}

/// Whether a text is a URL with a user or a password in front of its host.
fn holds_password(text: &str) -> bool {
    let behind_scheme = text.split_once("://").map(|(_, rest)| rest);
    behind_scheme.is_some_and(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@'))
}

/// The program of a command. A shell's command may begin with variables, of which nothing is shown.
fn without_arguments(command: &str) -> String {
    match command.split_once(char::is_whitespace) {
        Some((program, _)) if program.contains('=') => "…".to_owned(),
        Some((program, _)) => format!("{program} …"),
        None => command.to_owned(),
    }
}

/// A value that an operator can read.
pub(super) trait Shown {
    /// The value; null for no value, and `None` for a secret.
    fn shown(&self) -> Option<Value>;
}

macro_rules! shown {
    ($($type:ty => |$value:ident| $shown:expr;)+) => {
        $(impl Shown for $type {
            fn shown(&self) -> Option<Value> {
                let $value = self;
                $shown
            }
        })+
    };
}

shown! {
    bool => |it| Some(json!(it));
    u16 => |it| Some(json!(it));
    u32 => |it| Some(json!(it));
    u64 => |it| Some(json!(it));
    usize => |it| Some(json!(it));
    String => |it| Some(json!(it));
    PathBuf => |it| Some(json!(it.display().to_string()));
    IpAddr => |it| Some(json!(it.to_string()));
    SocketAddr => |it| Some(json!(it.to_string()));
    IpNet => |it| Some(json!(it.to_string()));
    RelayUrl => |it| Some(json!(it.to_string()));
    PublicKey => |it| Some(json!(it.to_hex()));
    Secret => |_it| None;
    SecretKey => |_it| None;
    Source => |it| Some(json!(it.as_str()));
    CommitOrdering => |it| Some(json!(it.as_str()));
    VerifyKeyPackages => |it| Some(json!(it.as_str()));
    KeyPackageConsumption => |it| Some(json!(it.as_str()));
    KindRange => |it| Some(json!(kinds(*it)));
    Retention => |it| Some(json!(format!("{}={}", kinds(it.kinds), time(it.secs))));
    Origins => |it| Some(match it {
        Origins::Any => json!(["*"]),
        Origins::Only(origins) => json!(origins),
    });
    LogFormat => |it| Some(json!(match it {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    }));
    Durability => |it| Some(json!(match it {
        Durability::Commit => "commit",
        Durability::Interval => "interval",
    }));
    StorageBackend => |it| Some(json!(match it {
        StorageBackend::Embedded => "embedded",
        StorageBackend::Postgres => "postgres",
        StorageBackend::Firestore => "firestore",
    }));
    WakeBy => |it| Some(json!(match it {
        WakeBy::Store => "store",
        WakeBy::Redis => "redis",
    }));
}

impl<T: Shown> Shown for Option<T> {
    /// A secret that nobody set is no secret.
    fn shown(&self) -> Option<Value> {
        self.as_ref().map_or(Some(Value::Null), Shown::shown)
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> Option<Value> {
        self.iter().map(Shown::shown).collect()
    }
}

fn kinds(KindRange { first, last }: KindRange) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// A time in the largest unit that it is a multiple of, as an operator writes it.
fn time(secs: u64) -> String {
    let units = [(DAY_SECS, 'd'), (3_600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(unit_secs, _)| secs.is_multiple_of(*unit_secs));
    let (unit_secs, letter) = unit.unwrap_or((1, 's'));
    format!("{}{letter}", secs / unit_secs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = "[server]\nport = 9000\notlp_endpoint = ''\n[retention]\nrules = ['1=36h', '3-9=30d']\n\
        [extensions.mls_gateway]\ndatabase_url = 'postgresql://relay:hunter2@localhost/relay'\n\
        acl_token = 'hunter3'\n[write_policy]\nplugin = '/usr/bin/policy --token hunter4'\n\
        [information]\nicon = 'https://user:hunter5@example.com/icon.png'\n";

    fn shown_of(config: &Config) -> Vec<Value> {
        let keys = shown_keys(config, |path| path == "information.icon");
        keys.iter().map(|key| serde_json::to_value(key).expect("JSON")).collect()
    }

    fn find<'a>(keys: &'a [Value], section: &str, key: &str) -> &'a Value {
        keys.iter().find(|it| it["section"] == section && it["key"] == key).expect("the key")
    }

    #[test]
    fn each_key_tells_its_value_and_its_place() {
        let env = [("RNOSTR_SERVER__LOG_LEVEL".to_owned(), "warn".to_owned()), ("PORT".to_owned(), "7".to_owned())];
        let config = Config::parse(TEXT, Path::new("relay.toml"), env).expect("a configuration");
        let keys = shown_of(&config);
        assert_eq!(keys.len(), keys::all().count());
        let of = |section, key| {
            let key = find(&keys, section, key);
            (key["value"].clone(), key["source"].clone(), key["origin"].clone())
        };
        assert_eq!(of("server", "port"), (json!(7), json!("variable"), json!("PORT")));
        assert_eq!(of("server", "log_level"), (json!("warn"), json!("variable"), json!("RNOSTR_SERVER__LOG_LEVEL")));
        assert_eq!(of("retention", "rules"), (json!(["1=36h", "3-9=30d"]), json!("file"), json!("relay.toml:5")));
        assert_eq!(of("data", "durability"), (json!("commit"), json!("default"), json!(null)));
        let port = find(&keys, "server", "port");
        assert_eq!((&port["restart"], &port["secret"]), (&json!(true), &json!(false)));
        assert_eq!(find(&keys, "information", "icon")["restart"], json!(false));
    }

    #[test]
    fn no_secret_is_shown() {
        let config = Config::parse(TEXT, Path::new("relay.toml"), []).expect("a configuration");
        let keys = shown_of(&config);
        assert!(!json!(keys).to_string().contains("hunter"), "{keys:?}");
        for (section, key) in [
            ("extensions.mls_gateway", "database_url"),
            ("extensions.mls_gateway", "acl_token"),
            ("information", "icon"),
        ] {
            let key = find(&keys, section, key);
            assert_eq!((&key["value"], &key["secret"]), (&json!(null), &json!(true)), "{key}");
        }
        assert_eq!(find(&keys, "write_policy", "plugin")["value"], json!("/usr/bin/policy …"));
        assert_eq!(find(&keys, "metrics", "auth")["secret"], json!(false), "nobody set it");
    }

    #[test]
    fn a_key_that_is_taken_over_has_its_new_place() {
        let read = |text: &str| Config::parse(text, Path::new("relay.toml"), []).expect("a configuration");
        let mut config = read("[information]\nname = 'one'\n[server]\nport = 1\n");
        config.take_over(&read("[server]\n\nport = 2\n[information]\n\nname = 'one'\n"), |path| {
            path.starts_with("information.")
        });
        let keys = shown_of(&config);
        assert_eq!(find(&keys, "information", "name")["origin"], json!("relay.toml:6"));
        assert_eq!(find(&keys, "server", "port")["origin"], json!("relay.toml:4"));
    }
}
