//! Every text that a client or an operator can be told is on the page of texts, with an explanation.
//!
//! The test reads the tokens of all sources. It takes each string literal that reads as words for a text, unless the
//! literal stands at one of the [`SILENT`] places or is one of [`NOT_TOLD`]. So a new text is missing on the page until
//! it is explained there, wherever it is made.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::files::{is_source, read, tracked};

/// The page of texts.
const PAGE: &str = "docs/troubleshooting.md";

/// Fewest texts that the search must find, lest it finds none and says nothing.
const TEXTS_MIN: usize = 500;

/// Literals that read as words and that nobody is told, each with the reason.
const NOT_TOLD: [(&str, &str); 28] = [
    ("at line", "cuts a parser's text"),
    ("with found as (", "is SQL"),
    ("select flags,", "is SQL"),
    ("select e.cursor, i.age, i.id,", "is SQL"),
    ("p.content_hash, p.last_resort", "is SQL"),
    ("p.content_hash, p.last_resort, e.kind", "is SQL"),
    ("Bearer owner", "is a header"),
    ("GET, HEAD, OPTIONS, POST", "is a header"),
    ("public, max-age=86400", "is a header"),
    ("{\"reason\":\"operator\",\"note\":\"please publish new KeyPackages\"}", "is the content of an event"),
    (
        "{\"reason\":\"stock_low\",\"note\":\"few KeyPackages are left here; publish new ones\"}",
        "is the content of an event",
    ),
    (
        "HTTP/1.1 429 Too Many Requests retry-after: … connection: close content-type: text/plain; charset=utf-8 \
         content-length: … …",
        "is the frame of an answer",
    ),
    ("claims from", "is the name of a key that is derived"),
    ("claims of", "is the name of a key that is derived"),
    ("rate limits, 1", "is the name of a key that is derived"),
    ("rate limits, 2", "is the name of a key that is derived"),
    ("rest cursors, key", "is the name of a key that is derived"),
    ("rest cursors, mark", "is the name of a key that is derived"),
    ("rest cursors, nonces", "is the name of a key that is derived"),
    ("wake channel", "is the name of a key that is derived"),
    ("no route", "is the name of a route"),
    ("operation was canceled", "looks for a text"),
    ("retry in", "looks for a text"),
    ("a message in hex", "names an element in a text of the page"),
    ("a subscription id", "names an element in a text of the page"),
    ("an event", "names an element in a text of the page"),
    ("the message's name", "names an element in a text of the page"),
    ("NostrGroupId(… bytes)", "shows a value to a programmer"),
];

/// Calls, macros and functions whose texts nobody is told as the fault of something, each with the reason. The first
/// word is a file, or nothing for all.
const SILENT: [(&str, &str, &str); 35] = [
    ("", "Rule", "names a heading of docs/rules.md, which another test looks up"),
    ("", "assert", "states a thing that the code itself keeps"),
    ("", "assert_eq", "states a thing that the code itself keeps"),
    ("", "batch_execute", "is SQL"),
    ("", "contains", "looks for a text"),
    ("", "debug", "is a line of the log below its ordinary level"),
    ("", "debug_assert", "states a thing that the code itself keeps"),
    ("", "debug_assert_eq", "states a thing that the code itself keeps"),
    ("", "debug_span", "names a trace"),
    ("", "ends_with", "looks for a text"),
    ("", "execute", "is SQL"),
    ("", "expect", "states a thing that the code itself keeps"),
    ("", "expecting", "names a type in the text of a parser, which the page has as a whole"),
    ("", "find", "looks for a text"),
    ("", "info", "is a line of the log that asks for nothing"),
    ("", "info_span", "names a trace"),
    ("", "section", "is a key of docs/configuration.md, which another test compares"),
    ("", "starts_with", "looks for a text"),
    ("", "strip_prefix", "looks for a text"),
    ("", "trim_start_matches", "looks for a text"),
    ("", "trace", "is a line of the log below its ordinary level"),
    ("", "unreachable", "states a thing that the code itself keeps"),
    ("crates/relay/src/config/summary.rs", "policies", "is a rule of check-config, and no fault"),
    ("crates/relay/src/config/summary.rs", "quota_line", "is a rule of check-config, and no fault"),
    ("crates/relay/src/config/summary.rs", "rules", "is a rule of check-config, and no fault"),
    ("crates/relay/src/config/summary.rs", "strangers_lines", "is a rule of check-config, and no fault"),
    ("crates/relay/src/config/summary.rs", "summary", "is a rule of check-config, and no fault"),
    ("crates/relay/src/peers/message.rs", "new", "is the name of a key that is derived"),
    ("crates/relay/src/rest/problem.rs", "stated", "is the OpenAPI document"),
    ("crates/relay/src/rest/diagnose.rs", "schema", "is the OpenAPI document"),
    ("src/cli/doctor", "passed", "is a step that went well"),
    ("src/cli/doctor", "seal", "is the content of an event"),
    ("src/cli/group/view.rs", "println", "shows a group"),
    ("src/cli/stats.rs", "println", "shows the sizes of a store"),
    ("src/cli/group/mod.rs", "source", "shows a group"),
];

/// Sources that tell nobody of a fault, each with the reason.
const SILENT_FILES: [(&str, &str); 9] = [
    ("crates/protocol/src/testing.rs", "makes events for tests"),
    ("crates/relay/src/config/keys.rs", "prints the tables of docs/configuration.md"),
    ("crates/relay/src/observe/home.rs", "is the page for people"),
    ("crates/relay/src/observe/info.rs", "is the NIP-11 document and the page for people"),
    ("crates/relay/src/observe/metrics/catalogue.rs", "is docs/metrics.md, which another test compares"),
    ("crates/relay/src/rest/document.rs", "is the OpenAPI document"),
    ("crates/relay/src/rest/page.rs", "is the page of the OpenAPI document"),
    ("crates/store/src/firestore/documents/deploy.rs", "prints the files of deploy/"),
    ("crates/store/src/memory", "is the oracle of tests"),
];

/// The constructors of refusals, by which a text has its first word.
const WORDS: [(&str, &str); 9] = [
    ("duplicate", "duplicate"),
    ("invalid", "invalid"),
    ("unsupported", "unsupported"),
    ("pow", "pow"),
    ("blocked", "blocked"),
    ("restricted", "restricted"),
    ("auth_required", "auth-required"),
    ("rate_limited", "rate-limited"),
    ("error", "error"),
];

/// A text in the code.
#[derive(Debug)]
struct Text {
    text: String,
    word: Option<&'static str>,
    place: String,
}

/// Collects the texts of a file.
struct Collector<'f> {
    file: &'f Path,
    found: Vec<Text>,
}

impl Collector<'_> {
    /// Reads the tokens inside a call of this name; `word` is the first word of a refusal that it makes.
    fn read(&mut self, tokens: TokenStream, word: Option<&'static str>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => at = self.attribute(&tokens, at),
                TokenTree::Group(group) => {
                    let name = called(&tokens[..at - 1]);
                    if !self.is_silent(name.as_deref().unwrap_or_default()) {
                        let inner = name.as_deref().and_then(|name| refusal(&tokens[..at - 1], name));
                        let passes = group.delimiter() != Delimiter::Brace || inner.is_some();
                        self.read(group.stream(), inner.or(word.filter(|_| passes)));
                    }
                }
                TokenTree::Ident(ident) if ident == "fn" && self.is_silent_fn(tokens.get(at)) => {
                    at = end_of_item(&tokens, at);
                }
                TokenTree::Literal(literal) => {
                    if let Ok(string) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        self.literal(&string.value(), word, literal.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }

    fn is_silent_fn(&self, name: Option<&TokenTree>) -> bool {
        name.is_some_and(|name| self.is_silent(&name.to_string()))
    }

    fn is_silent(&self, name: &str) -> bool {
        SILENT.iter().any(|(file, silent, _)| *silent == name && self.file.starts_with(file))
    }

    /// Reads an attribute: `error` has a text, and `cfg(test)` takes the item behind it out. Tells where to go on.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let inner = matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == '!');
        let at = at + usize::from(inner);
        let Some(TokenTree::Group(group)) = tokens.get(at) else { return at };
        let text = group.stream().to_string().replace(' ', "");
        if text.starts_with("error(") {
            self.read(group.stream(), None);
        }
        if text == "cfg(test)" { end_of_item(tokens, at + 1) } else { at + 1 }
    }

    fn literal(&mut self, value: &str, word: Option<&'static str>, line: usize) {
        let text = normal(value);
        if is_for_machines(&text) || (word.is_none() && !reads_as_words(&text)) {
            return;
        }
        let place = format!("{}:{line}", self.file.display());
        self.found.push(Text { text, word, place });
    }
}

/// The place behind the item that begins here.
fn end_of_item(tokens: &[TokenTree], from: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    };
    tokens[from..].iter().position(ends).map_or(tokens.len(), |end| from + end + 1)
}

/// The name of the function or macro whose arguments come next.
fn called(before: &[TokenTree]) -> Option<String> {
    match before {
        [.., TokenTree::Ident(name), TokenTree::Punct(mark)] if mark.as_char() == '!' => Some(name.to_string()),
        [.., TokenTree::Ident(name)] => Some(name.to_string()),
        _ => None,
    }
}

/// The first word of the refusal that `Rejection::name` makes.
fn refusal(before: &[TokenTree], name: &str) -> Option<&'static str> {
    let [.., TokenTree::Ident(kind), TokenTree::Punct(_), TokenTree::Punct(_), TokenTree::Ident(_)] = before else {
        return None;
    };
    if kind != "Rejection" {
        return None;
    }
    WORDS.iter().find_map(|(constructor, word)| (*constructor == name).then_some(*word))
}

/// A text with `…` for each placeholder, and with one space between words.
fn normal(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('{') {
        out += &rest[..at];
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix("{{") {
            out.push('{');
            rest = behind;
            continue;
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_.:?#<>^+*$".contains(c);
        let end = rest[1..].find(|c| !is_part(c)).map_or(rest.len(), |end| end + 1);
        let (taken, mark) = if rest[end..].starts_with('}') { (end + 1, "…") } else { (1, "{") };
        out += mark;
        rest = &rest[taken..];
    }
    out += rest;
    out.replace("}}", "}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text has two words, of two letters or more, with a space between.
fn reads_as_words(text: &str) -> bool {
    let is_word = |word: &&str| word.chars().filter(|c| c.is_alphabetic()).count() >= 2;
    text.split(' ').filter(is_word).count() >= 2
}

/// Whether a text is a statement of SQL or a part of one, a value of a header, or markup of a page.
fn is_for_machines(text: &str) -> bool {
    ["::b", "::int", "::text", "$1", "?1", "p.cursor", "set local"].iter().any(|part| text.contains(part))
        || ["select count(", "select to_regclass("].iter().any(|start| text.starts_with(start))
        || ["from", "into", "join", "update"].iter().any(|verb| text.contains(&format!("{verb} rnostr.")))
        || ["application/", "default-src ", "text/"].iter().any(|start| text.starts_with(start))
        || text.starts_with('<') && text.ends_with('>')
}

fn texts() -> Vec<Text> {
    let mut files: Vec<PathBuf> = tracked(&["rs"]).into_iter().filter(|file| is_source(file)).collect();
    files.sort();
    let mut found = Vec::new();
    for file in &files {
        if SILENT_FILES.iter().any(|(silent, _)| file.starts_with(silent)) {
            continue;
        }
        found.append(&mut texts_of(file, &read(file)));
    }
    found
}

/// A text on the page.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    text: String,
    /// The heading of the second level above it.
    heading: String,
    is_explained: bool,
}

/// The entries of the page: items of lists that begin with code. An entry is explained by its own words, or by the
/// paragraph right above its list.
fn entries(page: &str) -> Vec<Entry> {
    let (mut found, mut heading, mut is_shared) = (Vec::<Entry>::new(), String::new(), false);
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            heading = name.to_owned();
        }
        if let Some((text, behind)) = line.strip_prefix("- ").and_then(code) {
            let is_explained = is_shared || behind.len() > ": ".len();
            found.push(Entry { text: text.to_owned(), heading: heading.clone(), is_explained });
        } else if line.starts_with("  ") && !line.trim().is_empty() {
            if let Some(last) = found.last_mut() {
                last.is_explained = true;
            }
        } else if !line.trim().is_empty() {
            is_shared = !line.starts_with('#');
        }
    }
    found
}

/// The code at the beginning of a line, and the words behind it.
fn code(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("`` ").and_then(|rest| rest.split_once(" ``")).or_else(|| line.strip_prefix('`')?.split_once('`'))
}

#[test]
fn every_text_is_explained_on_the_page() {
    let texts = texts();
    let told: Vec<&Text> =
        texts.iter().filter(|text| NOT_TOLD.iter().all(|(silent, _)| *silent != text.text)).collect();
    assert!(told.len() > TEXTS_MIN, "the texts were not found: {}", told.len());
    let entries = entries(&read(Path::new(PAGE)));
    let mut complaints = Vec::new();
    for Text { text, word, place } in told {
        let prefix = word.map(|word| format!("{word}:"));
        let fits =
            |entry: &&Entry| entry.text == *text && prefix.as_ref().is_none_or(|prefix| entry.heading.contains(prefix));
        if !entries.iter().any(|entry| fits(&entry)) {
            let under = prefix.map(|prefix| format!(", under `{prefix}`")).unwrap_or_default();
            complaints.push(format!("{place} is not on the page; add it with an explanation{under}:\n- `{text}`"));
        }
    }
    let known: BTreeSet<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    for entry in &entries {
        if !known.contains(entry.text.as_str()) {
            complaints.push(format!("the page has a text that the code has not:\n- `{}`", entry.text));
        }
        if !entry.is_explained {
            complaints.push(format!("the page does not explain this text:\n- `{}`", entry.text));
        }
    }
    for (silent, _) in NOT_TOLD {
        if !known.contains(silent) {
            complaints.push(format!("NOT_TOLD has a text that the code has not: {silent}"));
        }
    }
    complaints.sort_unstable();
    complaints.dedup();
    assert!(complaints.is_empty(), "{PAGE}: {}\n{}", complaints.len(), complaints.join("\n"));
}

/// The texts of a source.
fn texts_of(file: &Path, source: &str) -> Vec<Text> {
    let tokens = TokenStream::from_str(source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut collector = Collector { file, found: Vec::new() };
    collector.read(tokens, None);
    collector.found
}

#[test]
fn texts_are_found_wherever_they_are_made() {
    let source = r##"
        /// A comment is no text.
        #[derive(Debug, thiserror::Error)]
        enum Fault { #[error("a fault of {0}")] One(u8) }
        const A: &str = "a constant that is told";
        #[cfg(test)]
        mod tests { const B: &str = "a text of a test"; }
        fn f() -> Result<(), Rejection> {
            let _ = cx.expect("the proof is beside it");
            tracing::debug!("a line for programmers");
            tracing::warn!(why, "a line for operators");
            let wrong = || Rejection::invalid("short");
            Err(Rejection::auth_required(format!("{{x}} of {name:?} \
                goes on")))
        }
        fn expecting() -> &'static str { "a type of a parser" }
    "##;
    let found = texts_of(Path::new("src/x.rs"), source);
    let found: Vec<_> = found.iter().map(|text| (text.word, text.text.as_str())).collect();
    let expected = [
        (None, "a fault of …"),
        (None, "a constant that is told"),
        (None, "a line for operators"),
        (Some("invalid"), "short"),
        (Some("auth-required"), "{x} of … goes on"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_entry_is_explained_by_itself_or_by_its_list() {
    let page = "## `invalid:`\n\n- `one`\n- `two`: words\n- `` a `b` ``:\n  words\n\nShared.\n\n- `three`\n\n\
                ### x\n\n- `four`\n";
    let found: Vec<_> = entries(page).into_iter().map(|entry| (entry.text, entry.is_explained)).collect();
    let expected = [("one", false), ("two", true), ("a `b`", true), ("three", true), ("four", false)];
    assert_eq!(found, expected.map(|(text, is_explained)| (text.to_owned(), is_explained)));
}

#[test]
fn words_for_people_are_not_taken_for_those_of_machines() {
    for text in
        ["delete some of them (kind 5)", "not an address; write ::1 or 2001:db8::/48", "with another rnostr.toml"]
    {
        assert!(!is_for_machines(text), "{text}");
    }
    for text in ["delete from rnostr.log", "text/css; charset=utf-8", "<li>a page</li>", "key = any($1::text[])"] {
        assert!(is_for_machines(text), "{text}");
    }
}
