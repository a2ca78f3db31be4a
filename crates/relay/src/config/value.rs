//! One value as a file or a variable holds it, and the ways to read it.

use std::{net::IpAddr, ops::RangeInclusive};

use nostr_protocol::PublicKey;
use toml::de::DeValue;

use super::server::Secret;

/// A value before anyone asked what it should be.
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
    /// What no key takes; its name.
    Other(&'static str),
    /// A variable's text, without spaces at its ends: it becomes what the key asks for, a list by its commas.
    Variable(String),
}

/// Why a value is not what its key takes; which item of a list, and that item's line, where it is one of them.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) item: Option<(usize, Option<usize>)>,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { item: None, text: text.into() }
    }
}

impl Value {
    /// A value of a file; `line_of` turns an offset into a line.
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

    /// `true` or `false`.
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

    /// A whole number within `range`.
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

    /// Text, read by `read`, whose error says what to write instead.
    pub(super) fn parsed<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Problem> {
        match self {
            Self::Text(text) | Self::Variable(text) if text.is_empty() => Err(Problem::new("empty; write a value")),
            Self::Text(text) | Self::Variable(text) => read(text).map_err(Problem::new),
            other => Err(other.wrong("text in quotes")),
        }
    }

    /// As [`Value::parsed`], where empty text means that there is no value.
    pub(super) fn optional<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Problem> {
        match self {
            Self::Text(text) | Self::Variable(text) if text.is_empty() => Ok(None),
            other => other.parsed(read).map(Some),
        }
    }

    /// A list of texts; in a variable they are separated by commas.
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

/// Any text.
pub(super) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// Any text, never shown again.
pub(super) fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text.to_owned()))
}

/// A URL of Redis, never shown again: it may hold a password.
pub(super) fn redis_url(text: &str) -> Result<Secret, String> {
    let is_over_network = text.starts_with("redis://") || text.starts_with("rediss://");
    if is_over_network && redis::Client::open(text).is_ok() {
        secret(text)
    } else {
        Err("not a URL of Redis; write redis://host:6379, or rediss://user:password@host:6379 for TLS".to_owned())
    }
}

/// An IP address, not a name: a name may mean several addresses, or another one tomorrow.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "not an IP address; write 127.0.0.1, 0.0.0.0, ::1 or ::".to_owned())
}

/// A public key; the text is not repeated, for it may be a secret key.
pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex_or_npub(text).map_err(|error| error.to_string())
}

/// One of the `known` words.
pub(super) fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("unknown value; write {}", words.join(" or "))
    })
}

/// A log filter as `RUST_LOG` has it. A bare word must be a level: a misspelt level would otherwise name a module, and
/// silence everything else.
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

/// Where the REST API lies.
pub(super) fn api_prefix(text: &str) -> Result<String, String> {
    let segments = text.strip_prefix('/').unwrap_or("");
    let well_formed = !segments.is_empty()
        && segments.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.~".contains(&c))
        });
    if !well_formed {
        Err("not a path; write it with a slash in front and none at the end: /api/v1/mls".to_owned())
    } else if matches!(text, "/health" | "/metrics" | "/ready") {
        Err("this path is taken; write another one, as /api/v1/mls".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// The URL of an HTTP service, without a slash at the end. A password in it would show in logs, so there is none.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    match text.split_once("://") {
        Some(("http" | "https", host)) if !host.is_empty() && !host.contains([' ', '@', '?', '#']) => {
            Ok(text.to_owned())
        }
        _ => Err("not a URL; write https://host/path, and put a token into acl_token".to_owned()),
    }
}
