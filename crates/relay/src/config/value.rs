//! One value as a file or a variable holds it, and the ways to read it.

use std::{ops::RangeInclusive, path::PathBuf};

use nostr_protocol::{PublicKey, sign::SecretKey};
use toml::de::DeValue;

use super::{
    network::is_taken,
    secret::{Secret, secret},
};

/// A value as it was written, before its key reads it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `true` or `false` in a file.
    Bool(bool),
    /// A whole number in a file.
    Integer(i128),
    /// A string in a file.
    Text(String),
    /// An array in a file, with the line of each item.
    List(Vec<(Self, usize)>),
    /// A value that no key takes, by its name.
    Other(&'static str),
    /// A variable's text, without spaces at its ends. The key reads it as its own type, a list by the commas.
    Variable(String),
}

/// The reason why a key does not take a value.
#[derive(Debug)]
pub(super) struct Problem {
    /// The index of the item at fault and its line, if the value is a list.
    pub(super) item: Option<(usize, Option<usize>)>,
    /// The fault, and the value to write instead.
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { item: None, text: text.into() }
    }
}

impl Value {
    /// Takes a value of a file; `line_of` turns an offset into a line.
    pub(super) fn from_file(value: &DeValue<'_>, line_of: &impl Fn(usize) -> usize) -> Self {
        match value {
            DeValue::Boolean(value) => Self::Bool(*value),
            DeValue::Integer(value) => {
                i128::from_str_radix(value.as_str(), value.radix()).map_or(Self::Other("a huge number"), Self::Integer)
            }
            DeValue::String(text) => Self::Text(text.trim().to_owned()),
            DeValue::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| (Self::from_file(item.get_ref(), line_of), line_of(item.span().start)))
                    .collect(),
            ),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a number",
            Self::Text(_) | Self::Variable(_) => "text",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }

    fn wrong(&self, right: &str) -> Problem {
        Problem::new(format!("this is {}; write {right}", self.name()))
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Problem> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Variable(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(Problem::new("not true or false; write true or false")),
            },
            other => Err(other.wrong("true or false, without quotes")),
        }
    }

    /// Reads a whole number within `range`.
    pub(super) fn integer<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T, Problem> {
        let right = format!("a whole number from {} to {}", range.start(), range.end());
        let number = match self {
            Self::Integer(number) => Some(*number),
            Self::Variable(text) => {
                let text = text.replace('_', "");
                let digits = text.strip_prefix('-').unwrap_or(&text);
                if digits.is_empty() || digits.bytes().any(|byte| !byte.is_ascii_digit()) {
                    return Err(Problem::new(format!("not a whole number; write {right}")));
                }
                text.parse().ok()
            }
            Self::Text(_) => return Err(self.wrong(&format!("{right}, without quotes"))),
            other => return Err(other.wrong(&right)),
        };
        number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Problem::new(format!("out of range; write {right}")))
    }

    /// Reads text by `read`, whose error says how to write the value.
    pub(super) fn parsed<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Problem> {
        match self {
            Self::Text(text) | Self::Variable(text) if text.is_empty() => Err(Problem::new("empty; write a value")),
            Self::Text(text) | Self::Variable(text) => read(text).map_err(Problem::new),
            other => Err(other.wrong("text in quotes")),
        }
    }

    /// Reads text as [`Value::parsed`] does; empty text is no value.
    pub(super) fn optional<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Problem> {
        match self {
            Self::Text(text) | Self::Variable(text) if text.is_empty() => Ok(None),
            other => other.parsed(read).map(Some),
        }
    }

    /// Reads one of the `known` words.
    pub(super) fn one_of<T: Copy>(&self, known: &[(&str, T)]) -> Result<T, Problem> {
        self.parsed(|text| one_of(text, known))
    }

    /// Reads a list of texts; in a variable they are separated by commas.
    pub(super) fn list<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Problem> {
        match self {
            Self::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, (item, line))| {
                    item.parsed(&read).map_err(|problem| Problem { item: Some((index, Some(*line))), ..problem })
                })
                .collect(),
            Self::Variable(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .enumerate()
                .map(|(index, item)| read(item).map_err(|text| Problem { item: Some((index, None)), text }))
                .collect(),
            other => Err(other.wrong("a list in brackets: [\"…\", \"…\"]")),
        }
    }
}

/// Reads any text.
pub(super) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// Reads the path of a file or directory.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// Reads a URL of Redis. It is a secret because it may hold a password.
pub(super) fn redis_url(text: &str) -> Result<Secret, String> {
    let is_over_network = text.starts_with("redis://") || text.starts_with("rediss://");
    if is_over_network && redis::Client::open(text).is_ok() {
        secret(text)
    } else {
        Err("not a URL of Redis; write redis://host:6379, or rediss://user:password@host:6379 for TLS".to_owned())
    }
}

/// Reads a public key. The error does not repeat the text, which may be a secret key.
pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex_or_npub(text).map_err(|error| error.to_string())
}

/// Reads a secret key. The error does not repeat the text.
pub(super) fn system_key(text: &str) -> Result<SecretKey, String> {
    SecretKey::from_hex_or_nsec(text)
        .ok_or_else(|| "not a secret key; write 64 hex digits or nsec1…, as rnostr keygen prints them".to_owned())
}

/// Reads one of the `known` words.
pub(super) fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("unknown value; write {}", words.join(" or "))
    })
}

/// Reads a log filter in the form of `RUST_LOG`. A bare word must be a level: a misspelt level would otherwise name a
/// module, and silence everything else.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = !text.contains(['=', ',', '[']);
    let lower = text.to_ascii_lowercase();
    if LEVELS.contains(&lower.as_str()) {
        Ok(lower)
    } else if !bare && tracing_subscriber::EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("not a log level; write error, warn, info, debug or trace, or module=level,…".to_owned())
    }
}

/// Reads the path of the REST API.
pub(super) fn api_prefix(text: &str) -> Result<String, String> {
    let segments = text.strip_prefix('/').unwrap_or("");
    let well_formed = !segments.is_empty()
        && segments.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.~".contains(&c))
        });
    if !well_formed {
        Err("not a path; write it with a slash in front and none at the end: /api/v1/mls".to_owned())
    } else if is_taken(segments) {
        Err("this path is taken; write another one, as /api/v1/mls".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Reads the URL of an HTTP service, and drops slashes at its end. A URL with a password is refused: logs may show it.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    match text.split_once("://") {
        Some(("http" | "https", host)) if !host.is_empty() && !host.contains([' ', '@', '?', '#']) => {
            Ok(text.to_owned())
        }
        _ => Err("not a URL; write https://host/path, and put a token into acl_token".to_owned()),
    }
}
