//! What stops the start: where it stands, what is wrong, what would be right.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Why a configuration was not taken. Shown as `config/rnostr.toml:12: auth.enabled: …` or `PORT: server.port: …`.
///
/// The value at fault is repeated only where it cannot be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    place: Place,
    key: Option<String>,
    message: String,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file; the line counts from 1, and is missing where the file as a whole is meant.
    File { path: PathBuf, line: Option<usize> },
    /// In a variable of the environment.
    Variable(String),
}

impl ConfigError {
    pub(super) fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, key: Some(key.into()), message: message.into() }
    }

    pub(super) fn keyless(place: Place, message: impl Into<String>) -> Self {
        Self { place, key: None, message: message.into() }
    }

    /// The key at fault, as `auth.pubkey_whitelist[1]`; `None` where the file or the variable itself is.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The line of the file, from 1.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match self.place {
            Place::File { line, .. } => line,
            Place::Variable(_) => None,
        }
    }
}

impl Place {
    pub(super) fn line(path: &Path, line: usize) -> Self {
        Self::File { path: path.to_owned(), line: Some(line) }
    }

    pub(super) fn whole(path: &Path) -> Self {
        Self::File { path: path.to_owned(), line: None }
    }
}

impl fmt::Display for Place {
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
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// The one of `known` that `text` most likely was meant to be: at most a third of its letters, and at most three, differ.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let differing_max = (text.chars().count() / 3).clamp(1, 3);
    known
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(differing, _)| *differing <= differing_max)
        .min_by_key(|(differing, _)| *differing)
        .map(|(_, candidate)| candidate)
}

/// How many characters were put in, left out, replaced, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // rows[i][j] is the distance of a's first i characters and b's first j.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, edits) | (edits, 0) => edits,
                (i, j) => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let edited = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swapped { edited.min(rows[i - 2][j - 2] + 1) } else { edited }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [("", "", 0), ("port", "port", 0), ("prot", "port", 1), ("prt", "port", 1), ("", "ab", 2)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn only_something_near_is_suggested() {
        let known = ["host", "port", "workers"];
        assert_eq!(nearest("worker", known.into_iter()), Some("workers"));
        assert_eq!(nearest("prt", known.into_iter()), Some("port"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
