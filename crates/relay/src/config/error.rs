//! The error that stops a start: its location, the fault, and the value to write instead.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// The reason why a configuration was not taken, shown as `config/rnostr.toml:12: auth.enabled: …` or as
/// `PORT: server.port: …`.
///
/// The value at fault is repeated only where it cannot be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    location: Location,
    key: Option<String>,
    message: String,
}

/// The location of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// A file; the line counts from 1, and `None` means the file as a whole.
    File { path: PathBuf, line: Option<usize> },
    /// A variable of the environment.
    Variable(String),
}

impl ConfigError {
    pub(super) fn new(location: Location, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { location, key: Some(key.into()), message: message.into() }
    }

    pub(super) fn keyless(location: Location, message: impl Into<String>) -> Self {
        Self { location, key: None, message: message.into() }
    }

    /// The key at fault, as `auth.pubkey_whitelist[1]`; `None` if the file or the variable itself is at fault.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Sorts the file's lines first and in their order, so that the first fault is the one nearest to its top.
    pub(super) fn order(&self) -> (bool, usize) {
        match &self.location {
            Location::File { line, .. } => (false, line.unwrap_or(0)),
            Location::Variable(_) => (true, 0),
        }
    }

    /// The line of the file, from 1.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match self.location {
            Location::File { line, .. } => line,
            Location::Variable(_) => None,
        }
    }
}

impl Location {
    pub(super) fn line(path: &Path, line: usize) -> Self {
        Self::File { path: path.to_owned(), line: Some(line) }
    }

    pub(super) fn whole(path: &Path) -> Self {
        Self::File { path: path.to_owned(), line: None }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.location)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Guesses which of `known` was meant by `text`: at most a third of its letters, and at most three, differ.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let differing_max = (text.chars().count() / 3).clamp(1, 3);
    known
        .map(|candidate| (strsim::osa_distance(text, candidate), candidate))
        .filter(|(differing, _)| *differing <= differing_max)
        .min_by_key(|(differing, _)| *differing)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_something_near_is_suggested() {
        let known = ["host", "port", "workers"];
        assert_eq!(nearest("worker", known.into_iter()), Some("workers"));
        assert_eq!(nearest("prt", known.into_iter()), Some("port"));
        assert_eq!(nearest("prot", known.into_iter()), Some("port"), "two letters that changed places are one fault");
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
