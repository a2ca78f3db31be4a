//! No tracked line of code is longer than the formatter allows.

use crate::files::{read, tracked};

/// Most columns of a line, as in `rustfmt.toml`.
const COLUMNS_MAX: usize = 120;
/// Directory of files that the console's sources give.
const GENERATED: &str = "console/dist";

fn long_lines(text: &str) -> Vec<usize> {
    let numbered = text.lines().enumerate();
    numbered.filter(|(_, line)| line.chars().count() > COLUMNS_MAX).map(|(at, _)| at + 1).collect()
}

#[test]
fn no_line_is_too_long() {
    let mut found = Vec::new();
    for path in tracked(&["rs", "sh", "js", "mjs", "ts", "tsx", "css"]) {
        if path.starts_with(GENERATED) {
            continue;
        }
        found.extend(long_lines(&read(&path)).into_iter().map(|line| format!("{}:{line}", path.display())));
    }
    let count = found.len();
    assert!(count == 0, "{count} lines over {COLUMNS_MAX} columns:\n{}", found.join("\n"));
}

#[test]
fn a_line_is_measured_in_characters() {
    let text = format!("{}\n{}\nshort", "ü".repeat(COLUMNS_MAX), "x".repeat(COLUMNS_MAX + 1));
    assert_eq!(long_lines(&text), [2]);
}
