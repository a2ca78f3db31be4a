//! Code cites the rules by headings and numbers that are there.

use std::{collections::BTreeMap, path::Path};

use crate::files::{joined, read, tracked};

/// The page of the rules.
const RULES: &str = "docs/rules.md";
/// The directories whose files may cite them.
const CITING: [&str; 4] = ["crates", "src", "tests", "benches"];

/// Fewest citations that the search must find, lest it finds none and says nothing.
const CITED_MIN: usize = 40;

/// A cited heading, and the number of a rule under it.
type Citation = (String, Option<u32>);

/// How many rules stand under each heading.
fn rules(text: &str) -> BTreeMap<&str, u32> {
    let mut rules = BTreeMap::new();
    let mut heading = "";
    for line in text.lines() {
        if let Some(found) = line.strip_prefix("## ") {
            heading = found.trim();
            rules.insert(heading, 0);
        } else if let Some(number) = line.split_once(". ").and_then(|(number, _)| number.parse().ok()) {
            rules.insert(heading, number);
        }
    }
    rules
}

/// The citations in a text of one line: `docs/rules.md, "Identity" 3 and "Gift wraps"`.
fn citations(text: &str) -> Vec<Citation> {
    let mut found = Vec::new();
    for after in text.split(RULES).skip(1) {
        let mut rest = after;
        while let Some((heading, behind)) = quoted(rest) {
            let (number, behind) = numbered(behind);
            found.push((heading.to_owned(), number));
            rest = behind;
        }
    }
    found
}

/// The next heading of a citation and the text after it.
fn quoted(rest: &str) -> Option<(&str, &str)> {
    let opened = [", \"", " and \"", ", and \""].iter().find_map(|opening| rest.strip_prefix(opening))?;
    opened.split_once('"')
}

/// The last number after a heading, as 4 in ` 2 to 4`, and the text after it.
fn numbered(behind: &str) -> (Option<u32>, &str) {
    let mut last = None;
    let mut rest = behind;
    while let Some(after) = [" ", " to ", ", ", " and "].iter().filter_map(|gap| rest.strip_prefix(gap)).find(starts) {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        last = after[..digits].parse().ok();
        rest = &after[digits..];
    }
    (last, rest)
}

fn starts(text: &&str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// The rules that refusals name, as `Rule("Identity", 3)`; the number 0 stands for the heading's table.
fn named(text: &str) -> Vec<Citation> {
    let name = |after: &str| {
        let (heading, behind) = after.strip_prefix('"')?.split_once('"')?;
        let number: u32 = behind.strip_prefix(", ")?.split(')').next()?.parse().ok()?;
        Some((heading.to_owned(), Some(number)))
    };
    text.split("Rule(").skip(1).filter_map(name).collect()
}

/// A complaint about a citation of a rule that is not there.
fn missing(rules: &BTreeMap<&str, u32>, (heading, number): &Citation) -> Option<String> {
    match (rules.get(heading.as_str()), number) {
        (None, _) => Some(format!("there is no heading \"{heading}\" in {RULES}")),
        (Some(last), Some(number)) if number > last => {
            Some(format!("there is no rule {number} under \"{heading}\" in {RULES}"))
        }
        _ => None,
    }
}

/// Whether a text still cites the page that came before this one.
fn cites_old_page(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [",", ".md", ":"].iter().any(|end| text.contains(&format!("decis{}{end}", "ions")))
}

/// The files that may cite rules, each with its text in one line.
fn citing() -> Vec<(String, String)> {
    // This test's own files hold examples of both sorts.
    let cites = |path: &Path| CITING.iter().any(|it| path.starts_with(it)) && !path.starts_with("tests/docs");
    let paths = tracked(&["rs", "toml", "js", "sh", "sql"]).into_iter().filter(|path| cites(path));
    paths.map(|path| (path.display().to_string(), joined(&read(&path)))).collect()
}

#[test]
fn every_cited_rule_is_there() {
    let page = read(Path::new(RULES));
    let rules = rules(&page);
    let mut complaints = Vec::new();
    let mut cited = 0;
    for (path, text) in citing() {
        let citations = citations(&text);
        cited += citations.len();
        complaints.extend(citations.iter().filter_map(|it| Some(format!("{path}: {}", missing(&rules, it)?))));
    }
    assert!(cited >= CITED_MIN, "only {cited} citations were found");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_rule_that_a_refusal_names_is_there() {
    let page = read(Path::new(RULES));
    let rules = rules(&page);
    let all: Vec<Citation> = citing().iter().flat_map(|(_, text)| named(text)).collect();
    assert!(all.len() >= CITED_MIN, "only {} were found", all.len());
    let complaints: Vec<String> = all.iter().filter_map(|it| missing(&rules, it)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(named("f(Rule(\"One\", 2)), Rule(x)"), [("One".to_owned(), Some(2))]);
}

#[test]
fn no_citation_of_the_old_page_is_left() {
    let old = citing().into_iter().filter(|(_, text)| cites_old_page(text));
    let old: Vec<String> = old.map(|(path, _)| path).collect();
    assert!(old.is_empty(), "cite {RULES} instead of a page outside the repository:\n{}", old.join("\n"));
}

#[test]
fn citations_are_read_with_their_numbers() {
    let text = "see docs/rules.md, \"Identity\" 3 and \"Gift wraps\". Or (docs/rules.md, \"Rosters\" 2 to 4): x";
    let expected = [("Identity", Some(3)), ("Gift wraps", None), ("Rosters", Some(4))];
    assert_eq!(citations(text), expected.map(|(heading, number)| (heading.to_owned(), number)));
}

#[test]
fn a_citation_of_a_missing_rule_is_found() {
    let rules = rules("## One\n\n1. a\n2. b\n   1. c\n\n## Two\n");
    for (heading, number, found) in [
        ("One", None, true),
        ("One", Some(2), true),
        ("One", Some(3), false),
        ("Two", Some(1), false),
        ("x", None, false),
    ] {
        assert_eq!(missing(&rules, &(heading.to_owned(), number)).is_none(), found, "{heading} {number:?}");
    }
}

#[test]
fn citations_of_the_old_page_are_found() {
    let old = |end: &str| cites_old_page(&format!("Source: Decis{}{end} 3", "ions"));
    assert!(old(",") && old(".md") && old(":"));
    assert!(!old(""));
}
