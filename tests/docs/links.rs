//! Every relative link of a document leads to a file, and to a heading in it.

use std::path::{Component, Path, PathBuf};

use crate::files::{read, root, tracked};

/// The targets of the inline links outside code.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // Every second part stands between backquotes.
        for part in line.split('`').step_by(2) {
            found.extend(part.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
        // The text of a link may be code: its target then stands after the last backquote.
        found.extend(line.split("`](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The lines outside blocks of code.
fn prose(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push(line);
        }
    }
    lines
}

/// The headings of a document.
fn headings(text: &str) -> Vec<&str> {
    let lines = prose(text).into_iter().filter(|line| line.starts_with('#'));
    lines.map(|line| line.trim_start_matches('#').trim()).collect()
}

/// The name under which a link finds a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// A complaint about a link that leads nowhere.
fn broken(document: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
    let path = match file {
        "" => document.to_owned(),
        file => plain(&document.parent().unwrap_or(Path::new("")).join(file)),
    };
    if !root().join(&path).exists() {
        return Some(format!("{}: there is no {}", document.display(), path.display()));
    }
    let heading = heading?;
    let found = headings(&read(&path)).into_iter().any(|known| anchor(known) == heading);
    (!found).then(|| format!("{}: there is no heading #{heading} in {}", document.display(), path.display()))
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut complaints = Vec::new();
    let mut links = 0;
    for document in tracked(&["md"]) {
        let targets = targets(&read(&document));
        links += targets.len();
        complaints.extend(targets.iter().filter_map(|target| broken(&document, target)));
    }
    assert!(links > 20, "only {links} links were found");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn links_are_found_outside_code_alone() {
    let text = "[a](one.md) and [`b`](two.md#x), `[c](no.md)`\n```\n[d](no.md)\n```\n- [e](three.md)";
    assert_eq!(targets(text), ["one.md", "three.md", "two.md#x"]);
}

#[test]
fn a_link_to_a_missing_file_or_heading_is_found() {
    let document = Path::new("docs/rules.md");
    for good in ["../README.md", "#who-may-publish-who-may-read", "rules.md#identity", "https://example.com/x#y"] {
        assert_eq!(broken(document, good), None);
    }
    for bad in ["README.md/x", "../docs/none.md", "#nothing", "../README.md#nothing"] {
        assert!(broken(document, bad).is_some(), "{bad}");
    }
}
