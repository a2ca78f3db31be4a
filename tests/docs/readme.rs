//! The README stays short, and its table is that of the rules.

use std::path::Path;

use crate::files::read;

/// Most lines of the README.
const README_LINES_MAX: usize = 250;

fn table(text: &str) -> Option<&str> {
    Some(text.split_once("<!-- table: begin -->")?.1.split_once("<!-- table: end -->")?.0)
}

#[test]
fn the_readme_is_short() {
    let lines = read(Path::new("README.md")).lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; move some of it to docs/");
}

#[test]
fn the_readme_has_the_table_of_the_rules() {
    let [readme, rules] = ["README.md", "docs/rules.md"].map(|path| read(Path::new(path)));
    let rules = table(&rules).expect("docs/rules.md has a table between its marks");
    assert!(rules.lines().count() > 10, "the table is cut short");
    assert_eq!(table(&readme), Some(rules), "copy the table of docs/rules.md into README.md");
}
