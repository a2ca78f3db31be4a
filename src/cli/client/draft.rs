//! An event of now, before and after it is signed.

use nostr_protocol::{
    Event, Kind,
    sign::{SecretKey, Unsigned},
};

use super::{super::moving::now, Trouble};

/// An event of now, before it is signed.
#[derive(Debug)]
pub(in crate::cli) struct Draft {
    kind: Kind,
    tags: Vec<Vec<String>>,
    content: String,
}

impl Draft {
    pub(in crate::cli) const fn new(kind: Kind) -> Self {
        Self { kind, tags: Vec::new(), content: String::new() }
    }

    /// Adds a tag.
    pub(in crate::cli) fn tag(mut self, strings: &[&str]) -> Self {
        self.tags.push(strings.iter().map(|&text| text.to_owned()).collect());
        self
    }

    /// Sets the content.
    pub(in crate::cli) fn content(mut self, content: impl Into<String>) -> Self {
        self.content = content.into();
        self
    }
}

/// Signs a draft.
///
/// # Errors
/// The draft makes no event, as one with more tags than an event has.
pub(in crate::cli) fn sign(draft: &Draft, keys: &SecretKey) -> Result<Event, Trouble> {
    let Draft { kind, tags, content } = draft;
    let signed = keys.sign(&Unsigned { created_at: now(), kind: kind.0, tags, content });
    let signed = signed.map_err(|error| Trouble(format!("this makes no event: {error}")))?;
    Ok(signed.into_event())
}
