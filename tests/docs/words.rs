//! Comments are plain sentences that name their actors: few open with a question word, and few hold one.

use crate::files::{read, tracked};

/// Most sentences that open with one of [`OPENERS`], in 10,000; to be lowered to 200 and never raised.
const OPENERS_PER_10_000_MAX: usize = 200;
/// Most of [`QUESTION_WORDS`] in 10,000 words; to be lowered to 25 and never raised.
const QUESTION_WORDS_PER_10_000_MAX: usize = 25;

/// Words by which a sentence avoids to name its actor.
const OPENERS: [&str; 7] = ["What", "Who", "Whom", "Whoever", "Whatever", "Of", "Where"];
const QUESTION_WORDS: [&str; 5] = ["what", "who", "whom", "whoever", "whatever"];

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    words: usize,
    question_words: usize,
    sentences: usize,
    openers: usize,
}

/// The comments of a Rust file, each paragraph in one line.
fn comments(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    let mut kind = None;
    for line in text.lines() {
        let found = comment(line);
        if found.is_none()
            && !line.contains('"')
            && let Some((_, trailing)) = line.split_once(" // ")
        {
            blocks.push(trailing.to_owned());
        }
        let (next, text) = found.map_or((None, ""), |(kind, text)| (Some(kind), text));
        if next != kind || text.is_empty() {
            blocks.push(std::mem::take(&mut block));
        }
        kind = next;
        if !text.is_empty() {
            block.push_str(if block.is_empty() { "" } else { " " });
            block.push_str(text);
        }
    }
    blocks.push(block);
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// The kind and the text of a line that is a comment.
fn comment(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim();
    let kind = ["///", "//!", "//"].into_iter().find(|kind| line.starts_with(kind))?;
    Some((kind, line[kind.len()..].trim()))
}

/// The sentences of a paragraph: each ends with a full stop, `!` or `?` before a space.
fn sentences(paragraph: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, _) in paragraph.match_indices(' ') {
        if paragraph[..at].ends_with(['.', '!', '?']) {
            found.push(paragraph[start..at].trim());
            start = at;
        }
    }
    found.push(paragraph[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Whether a sentence, or an entry of a list or table, opens with one of [`OPENERS`].
fn opens_badly(sentence: &str) -> bool {
    let bare =
        sentence.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(['-', '|', '.']).trim_start();
    let first = bare.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
    OPENERS.contains(&first)
}

/// The text without cited headings, which stand as they are.
fn without_headings(paragraph: &str) -> String {
    let mut parts = paragraph.split("docs/rules.md, \"");
    let mut kept = parts.next().unwrap_or("").to_owned();
    kept.extend(parts.map(|part| part.split_once('"').map_or(part, |(_, behind)| behind)));
    kept
}

fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    for paragraph in comments(text) {
        let sentences = sentences(&paragraph);
        counts.sentences += sentences.len();
        counts.openers += sentences.iter().filter(|sentence| opens_badly(sentence)).count();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '\'' | '`' | ':' | '.' | '-');
        counts.words += paragraph.split(|c| !is_part(c)).filter(|word| !word.is_empty()).count();
        let plain = without_headings(&paragraph).to_lowercase();
        let words = plain.split(|c: char| !c.is_alphanumeric() && c != '_');
        counts.question_words += words.filter(|word| QUESTION_WORDS.contains(word)).count();
    }
    counts
}

#[test]
fn comments_name_their_actors() {
    let mut all = Counts::default();
    let mut opening = Vec::new();
    for path in tracked(&["rs"]) {
        let text = read(&path);
        let Counts { words, question_words, sentences, openers } = count(&text);
        all.words += words;
        all.question_words += question_words;
        all.sentences += sentences;
        all.openers += openers;
        if openers > 0 || question_words > 0 {
            opening.push(format!("{}: {openers} openers, {question_words} question words", path.display()));
        }
    }
    assert!(all.words > 10_000, "the comments were not found");
    println!("{all:?}");
    let listed = opening.join("\n");
    assert!(all.openers * 10_000 <= OPENERS_PER_10_000_MAX * all.sentences, "{all:?}\n{listed}");
    assert!(all.question_words * 10_000 <= QUESTION_WORDS_PER_10_000_MAX * all.words, "{all:?}\n{listed}");
}

#[test]
fn words_and_sentences_are_counted() {
    let text =
        "//! One sentence. Of two.\n//! What?\n\ncode(); // who knows\n/// - Where it is\n///\n/// Fine `who` is.\n";
    assert_eq!(count(text), Counts { words: 14, question_words: 3, sentences: 6, openers: 3 });
    let cited = "// The rule (docs/rules.md, \"Who may publish, who may read\" 3).\n";
    assert_eq!(count(cited).question_words, 0);
}
