//! Readers of tags that several kinds share: each gives the value, or the rejection that names the tag.

use nostr_protocol::{Event, EventId, EventRef, PublicKey, Rejection, Rule, UnixSecs, tag::name};

use crate::mls_gateway::group::NostrGroupId;

const IDS: Rule = Rule("Who may publish, who may read", 4);

/// Largest time in a tag; a larger number is taken for milliseconds.
const TAG_SECS_MAX: u64 = 100_000_000_000;

/// The keys that an event names by `p`.
#[must_use]
pub fn recipients(event: EventRef<'_>) -> Vec<PublicKey> {
    event.tags().values(name::PUBLIC_KEY).filter_map(PublicKey::from_hex).collect()
}

/// The group that the first `h` of an event names.
pub(crate) fn group(event: EventRef<'_>) -> Option<NostrGroupId> {
    event.tags().value(name::GROUP).and_then(NostrGroupId::parse)
}

/// The `d` of an addressable event; a missing one is empty (NIP-01).
pub(crate) fn identifier(event: &Event) -> Box<str> {
    event.tags().value(name::IDENTIFIER).unwrap_or("").into()
}

/// Unix seconds from the first tag of this name.
///
/// # Errors
/// `invalid:` for text that is no whole number, and for milliseconds.
pub(crate) fn tag_secs(event: &Event, tag: &'static str) -> Result<Option<UnixSecs>, Rejection> {
    let Some(found) = event.tags().named(tag).next() else { return Ok(None) };
    let text = found.value().unwrap_or("");
    let refusal = if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        Rejection::invalid(format!("the {tag} tag is no whole number of Unix seconds; write decimal digits"))
    } else {
        // A number that does not fit 64 bits is over the bound too.
        match decimal(text).filter(|secs| *secs <= TAG_SECS_MAX) {
            Some(secs) => return Ok(Some(secs)),
            None => Rejection::invalid(format!("the {tag} tag is in milliseconds; write Unix seconds")),
        }
    };
    Err(refusal.under(Rule("Archive", 4)))
}

/// A decimal number of digits alone.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The value of a tag that an event carries exactly once.
pub(crate) fn exactly_one<'e>(event: &'e Event, tag: &'static str) -> Result<&'e str, Rejection> {
    let mut found = event.tags().named(tag);
    match (found.next().and_then(|tag| tag.value()), found.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Rejection::invalid(format!("kind {} carries exactly one {tag} tag", event.kind()))),
    }
}

/// The one recipient of an event.
pub(crate) fn one_recipient(event: &Event) -> Result<PublicKey, Rejection> {
    PublicKey::from_hex(exactly_one(event, name::PUBLIC_KEY)?)
        .ok_or_else(|| Rejection::invalid("the p tag is not a public key of 64 lower-case hex digits").under(IDS))
}

/// The group of an event that carries exactly one `h`.
pub(crate) fn one_group(event: &Event) -> Result<NostrGroupId, Rejection> {
    NostrGroupId::parse(exactly_one(event, name::GROUP)?).ok_or_else(|| {
        Rejection::invalid("the h tag is no group id: 1 to 128 of A-Z a-z 0-9 _ . : -, the first a letter or digit")
            .under(IDS)
    })
}

/// The group of an event that carries at most one `h`.
pub(crate) fn optional_group(event: &Event) -> Result<Option<NostrGroupId>, Rejection> {
    if event.tags().named(name::GROUP).next().is_none() { Ok(None) } else { one_group(event).map(Some) }
}

/// An id out of an `e` tag.
pub(crate) fn event_id(text: &str) -> Result<EventId, Rejection> {
    EventId::from_hex(text).ok_or_else(|| Rejection::invalid("an e tag is not an id of 64 lower-case hex digits"))
}
