//! The book has every page of `docs/`, and its blocks of code are run, marked, or taken from a test.

use std::{collections::BTreeSet, path::Path};

use crate::files::{read, root, tracked};

/// Languages whose blocks `tests/book/run.py` runs or reads.
const RUN: [&str; 3] = ["json", "sh", "toml"];
/// Languages of blocks that nobody can run: figures, output, parts of messages.
const SHOWN: [&str; 2] = ["http", "text"];
/// Words behind the language that the runner knows; a number is the port at which a block serves.
const WORDS: [&str; 2] = ["prints", "serves"];

/// A complaint about each block of a page that nobody runs although it looks as if it were run.
fn complaints(page: &str, file: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate().peekable();
    let mut mark = "";
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            let is_stray = !mark.is_empty() && !line.trim_start().starts_with("<!-- needs: ");
            if is_stray {
                found.push(format!("{at}: no block follows this mark: {mark}"));
            }
            let line = line.trim();
            mark = if line.starts_with("<!-- not run: ") || line.starts_with("<!-- from: ") { line } else { "" };
            continue;
        };
        let mut text = Vec::new();
        for (_, line) in lines.by_ref() {
            if line.trim() == "```" {
                break;
            }
            text.push(line.trim());
        }
        let mut words = info.split(' ');
        let language = words.next().unwrap_or_default();
        let number = at + 1;
        let unknown = words.find(|word| !WORDS.contains(word) && word.parse::<u16>().is_err());
        found.extend(unknown.map(|word| format!("{number}: the runner does not know the word {word}")));
        let value = |name: &str| mark.strip_prefix(name).and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(reason) = value("<!-- not run: ") {
            if reason.trim().is_empty() {
                found.push(format!("{number}: the mark has no reason"));
            }
        } else if let Some(path) = value("<!-- from: ") {
            let there = file(path).unwrap_or_default();
            let there: Vec<&str> = there.lines().map(str::trim).collect();
            if !there.join("\n").contains(&text.join("\n")) {
                found.push(format!("{number}: {path} does not have these lines"));
            }
        } else if !RUN.contains(&language) && !SHOWN.contains(&language) {
            found.push(format!(
                "{number}: nobody runs a block of \"{language}\"; name the test that has it by <!-- from: PATH -->, or \
                 the reason by <!-- not run: REASON -->"
            ));
        }
        mark = "";
    }
    found
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let file = |path: &str| std::fs::read_to_string(root().join(path)).ok();
    let mut all = Vec::new();
    for path in tracked(&["md"]) {
        all.extend(complaints(&read(&path), &file).into_iter().map(|it| format!("{}:{it}", path.display())));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
    // Without a page behind it the runner takes all tracked ones.
    let runs_all = |line: &str| line.trim_end().ends_with("tests/book/run.py");
    assert!(read(Path::new("test.sh")).lines().any(runs_all), "test.sh does not run all pages");
}

#[test]
fn the_book_has_every_page() {
    let summary = read(Path::new("docs/SUMMARY.md"));
    let listed: Vec<&str> =
        summary.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(path, _)| path).collect();
    let distinct: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(listed.len(), distinct.len(), "docs/SUMMARY.md lists a page twice");
    let pages = tracked(&["md"]);
    let pages = pages.iter().filter_map(|path| path.strip_prefix("docs").ok()?.to_str());
    let pages: BTreeSet<&str> = pages.filter(|page| *page != "SUMMARY.md").collect();
    assert_eq!(distinct, pages, "docs/SUMMARY.md lists the pages of docs/");
    let index = read(Path::new("docs/README.md"));
    let missing: Vec<_> = pages.iter().filter(|page| !index.contains(&format!("({page})"))).collect();
    assert_eq!(missing, [&"README.md"], "docs/README.md names each other page");
}

#[test]
fn the_book_links_to_the_repository() {
    let repository = |text: &str, key: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches([' ', '=', '"']).to_owned()))
    };
    let book = repository(&read(Path::new("docs/book.toml")), "git-repository-url");
    assert!(book.is_some());
    assert_eq!(book, repository(&read(Path::new("Cargo.toml")), "repository"));
}

#[test]
fn a_block_that_nobody_runs_is_found() {
    let file = |path: &str| (path == "a.rs").then(|| "fn main() {\n    let x = 1;\n}\n".to_owned());
    let of = |page: &str| complaints(page, &file).len();
    for good in [
        "```sh\nls\n```\n",
        "```sh serves 8090\nls\n```\n",
        "<!-- not run: it needs a printer -->\n```sh\nlpr\n```\n",
        "<!-- from: a.rs -->\n```rust\nlet x = 1;\n```\n",
        "```text prints\na\n```\n",
    ] {
        assert_eq!(of(good), 0, "{good}");
    }
    for bad in [
        "```\nls\n```\n",
        "```bash\nls\n```\n",
        "```sh later\nls\n```\n",
        "```js\nx()\n```\n",
        "<!-- from: a.rs -->\n```rust\nlet x = 2;\n```\n",
        "<!-- from: b.rs -->\n```rust\nlet x = 1;\n```\n",
        "<!-- not run:  -->\n```sh\nls\n```\n",
        "<!-- not run: it needs a printer -->\n\n```sh\nls\n```\n",
    ] {
        assert_eq!(of(bad), 1, "{bad}");
    }
}
