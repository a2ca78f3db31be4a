//! The table in `docs/bounds.md` is made from the constants of the code, so neither can differ from the other.
//!
//! A bound is a constant whose name ends in `_MAX`, `_AIM`, `_SECS` or `_MS`. Its value comes from its expression, its
//! unit from its name, and its meaning from the first sentence of its doc comment.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::files::{is_source, root, tracked};

const DOCUMENT: &str = "docs/bounds.md";
const BEGIN: &str = "<!-- bounds: begin -->\n";
const END: &str = "<!-- bounds: end -->";

#[derive(Debug)]
struct Constant {
    name: String,
    expression: String,
    file: String,
    meaning: String,
}

#[test]
fn the_table_of_bounds_is_the_code_s() {
    let constants = constants();
    let bounds: Vec<&Constant> = constants.iter().filter(|constant| is_bound(&constant.name)).collect();
    assert!(bounds.len() > 100, "the constants were not found: {}", bounds.len());
    let undocumented: Vec<_> = bounds.iter().filter(|bound| bound.meaning.is_empty()).collect();
    assert!(undocumented.is_empty(), "these bounds have no doc comment: {undocumented:?}");

    let path = root().join(DOCUMENT);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{DOCUMENT}: {error}"));
    let (head, rest) = text.split_once(BEGIN).expect("the table begins with its mark");
    let (old, tail) = rest.split_once(END).expect("the table ends with its mark");
    let table = table(&bounds, &constants);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).expect("the document is written");
    } else {
        assert_eq!(old, table, "{DOCUMENT} is not up to date: UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn expressions_have_values() {
    let known = |name: &str| (name == "BYTES").then_some(7);
    for (expression, value) in [("16 << 10", 16_384), ("(1 << 53) - 1", (1 << 53) - 1), ("2 + 3 * BYTES", 23), ("9", 9)]
    {
        assert_eq!(evaluate(expression, &known), Some(value), "{expression}");
    }
    assert_eq!(evaluate("MISSING * 2", &known), None);
}

fn constants() -> Vec<Constant> {
    let mut files: Vec<PathBuf> = tracked(&["rs"]).into_iter().filter(|file| is_source(file)).collect();
    files.sort();
    files.iter().flat_map(|file| read(file)).collect()
}

fn read(file: &Path) -> Vec<Constant> {
    let text = fs::read_to_string(root().join(file)).expect("a source file is read");
    let place = file.to_string_lossy().replace("crates/", "").replace("/src/", "/").replace(".rs", "");
    let (mut constants, mut doc) = (Vec::new(), Vec::new());
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            doc.push(words.trim().to_owned());
        } else if let Some((name, expression)) = constant(line) {
            constants.push(Constant {
                name: name.to_owned(),
                expression: expression.to_owned(),
                file: place.clone(),
                meaning: first_sentence(&doc.join(" ")),
            });
            doc.clear();
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    constants
}

/// The name and the expression of a constant that stands on one line.
fn constant(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("pub").map_or(line, |rest| match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(") ").map_or(rest, |(_, rest)| rest),
        None => rest.trim_start(),
    });
    let (name, rest) = rest.strip_prefix("const ")?.split_once(':')?;
    let (_, expression) = rest.split_once(" = ")?;
    Some((name, expression.trim_end_matches(';')))
}

fn is_bound(name: &str) -> bool {
    // A day's length is no bound.
    name != "DAY_SECS" && ["_MAX", "_AIM", "_SECS", "_MS"].iter().any(|end| name.ends_with(end))
}

fn first_sentence(doc: &str) -> String {
    let end = doc.match_indices(". ").map(|(at, _)| at).find(|at| !doc[..*at].ends_with("e.g"));
    doc[..end.unwrap_or(doc.len())].trim_end_matches('.').to_owned()
}

fn table(bounds: &[&Constant], constants: &[Constant]) -> String {
    let mut text = String::from("| bound | value | where | meaning |\n|---|---|---|---|\n");
    for bound in bounds {
        let value = value_of(bound, constants, 0)
            .map_or_else(|| format!("`{}`", bound.expression), |value| with_unit(bound, value));
        let _ = writeln!(text, "| `{}` | {value} | `{}` | {} |", bound.name, bound.file, bound.meaning);
    }
    text
}

/// The value of a constant. A name in its expression means the constant of that name that lies nearest.
fn value_of(constant: &Constant, constants: &[Constant], depth: usize) -> Option<u128> {
    const DEPTH_MAX: usize = 8;
    if depth > DEPTH_MAX {
        return None;
    }
    evaluate(&constant.expression, &|name| {
        let near = |other: &&Constant| {
            constant.file.bytes().zip(other.file.bytes()).take_while(|(one, another)| one == another).count()
        };
        let named = constants.iter().filter(|other| other.name == name);
        value_of(named.max_by_key(near)?, constants, depth + 1)
    })
}

/// Adds and multiplies whole numbers and named constants; shifts bind last, as in Rust.
fn evaluate(expression: &str, known: &dyn Fn(&str) -> Option<u128>) -> Option<u128> {
    let expression = expression.trim();
    let inner =
        expression.strip_prefix("Duration::from_secs(").or_else(|| expression.strip_prefix("Duration::from_millis("));
    if let Some(inner) = inner {
        return evaluate(inner.strip_suffix(')')?, known);
    }
    for operator in ["<<", "+", "-", "*", "/"] {
        let Some((left, right)) = split_outside(expression, operator) else { continue };
        let (left, right) = (evaluate(left, known)?, evaluate(right, known)?);
        return match operator {
            "<<" => left.checked_shl(u32::try_from(right).ok()?),
            "+" => left.checked_add(right),
            "-" => left.checked_sub(right),
            "*" => left.checked_mul(right),
            _ => left.checked_div(right),
        };
    }
    if let Some(inner) = expression.strip_prefix('(') {
        return evaluate(inner.strip_suffix(')')?, known);
    }
    let digits = expression.replace('_', "");
    digits.parse().ok().or_else(|| known(expression))
}

/// Splits at the last such operator that stands in no parentheses.
fn split_outside<'a>(expression: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    let outside = |at: usize| {
        let before = &expression[..at];
        before.matches('(').count() == before.matches(')').count()
    };
    let at = expression.match_indices(operator).map(|(at, _)| at).filter(|at| outside(*at)).last()?;
    Some((&expression[..at], &expression[at + operator.len()..]))
}

fn with_unit(bound: &Constant, value: u128) -> String {
    let grouped = |value: u128| {
        let digits = value.to_string();
        let mut text = String::new();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    };
    let binary = |value: u128| match value {
        value if value >= 1 << 20 && value.is_multiple_of(1 << 20) => format!("{} MiB", grouped(value >> 20)),
        value if value >= 1 << 10 && value.is_multiple_of(1 << 10) => format!("{} KiB", grouped(value >> 10)),
        value => format!("{} B", grouped(value)),
    };
    let words: Vec<&str> = bound.name.split('_').collect();
    let is = |unit: &str| words.contains(&unit);
    if bound.expression.starts_with("Duration::from_millis") {
        format!("{} ms", grouped(value))
    } else if bound.expression.starts_with("Duration::from_secs") {
        format!("{} s", grouped(value))
    } else if is("BYTES") {
        binary(value)
    } else if is("KIB") {
        binary(value << 10)
    } else if is("SECS") {
        format!("{} s", grouped(value))
    } else if is("MS") {
        format!("{} ms", grouped(value))
    } else {
        grouped(value)
    }
}
