//! The files that git tracks, and the text of their comments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tracked files with one of these extensions that are there, relative to the repository.
pub(crate) fn tracked(extensions: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).expect("paths in UTF-8");
    let has_extension = |path: &PathBuf| extensions.iter().any(|known| path.extension().is_some_and(|it| it == *known));
    let found: Vec<PathBuf> = paths
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|path| has_extension(path) && root().join(path).is_file())
        .collect();
    assert!(!found.is_empty(), "git tracks no file of these sorts here");
    found
}

/// Whether a file is a source of a program, and not of its tests.
pub(crate) fn is_source(file: &Path) -> bool {
    let text = file.to_string_lossy();
    let is_program = text.starts_with("src/") || text.starts_with("crates/") && text.contains("/src/");
    is_program && !text.ends_with("tests.rs") && !text.contains("/suite/")
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All lines of a file in one, without the marks of comments, so that a sentence is found across lines.
pub(crate) fn joined(text: &str) -> String {
    let line = |line: &str| {
        let line = line.trim();
        let rest = ["///", "//!", "//", "#"].iter().find_map(|mark| line.strip_prefix(mark));
        rest.unwrap_or(line).trim().to_owned()
    };
    text.lines().map(line).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_sentence_is_joined_across_the_lines_of_a_comment() {
    assert_eq!(joined("//! one\n    /// two\n# three\ncode"), "one two three code");
}
