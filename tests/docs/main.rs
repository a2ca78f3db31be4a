//! The documents agree with each other and with the code: citations, links, blocks of code, texts, the README's size,
//! long lines, plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod alerts;
mod book;
mod bounds;
mod citations;
mod files;
mod lines;
mod links;
mod readme;
mod security;
mod texts;
mod words;
