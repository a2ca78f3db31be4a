//! Search for programs and files that packages install.

use std::path::{Path, PathBuf};

/// Finds a program of that name in `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    path_folders().into_iter().map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The folders of `PATH`.
pub(crate) fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Entries of a folder for whose names `of_kind` holds, the highest version first.
pub(crate) fn versions(folder: &Path, of_kind: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| of_kind(name))
        .map(|name| (numbers(&name), folder.join(name)))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The numbers in a name, by which versions are compared, so that `9.6` comes before `15`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
