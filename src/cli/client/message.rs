//! A message of a relay, parsed once: verb, texts that a terminal may show, and a verified event.

use nostr_protocol::{Event, EventError, Unverified};
use serde_json::value::RawValue;

use super::{Trouble, text::said};

/// Most bytes of a challenge.
const CHALLENGE_BYTES_MAX: usize = 1_024;

/// The relay's answer to an event.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) accepted: bool,
    /// The relay's words; a terminal may show them.
    pub(in crate::cli) reason: String,
}

/// A message of a relay (NIP-01, NIP-42).
#[derive(Debug)]
pub(in crate::cli) enum Message {
    /// A challenge.
    Auth(String),
    /// The answer to the event of this id.
    Ok {
        id: String,
        answer: Answer,
    },
    /// An event of a subscription; an error for one whose id or signature is wrong.
    Event {
        subscription: String,
        event: Result<Event, EventError>,
    },
    Eose {
        subscription: String,
        /// Whether the relay holds more stored events than it sent (NIP-67).
        holds_more: bool,
    },
    Closed {
        subscription: String,
        reason: String,
    },
    Notice(String),
    /// A sign of life, or a message of another sort.
    Other,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// The text is no JSON array, or a challenge is too long to be signed.
    pub(super) fn parse(text: &str) -> Result<Self, Trouble> {
        let parts: Vec<&RawValue> = serde_json::from_str(text)
            .map_err(|_| Trouble(format!("the relay sent a message that is no JSON array: {}", said(text))))?;
        let word = |at: usize| serde_json::from_str::<String>(parts.get(at)?.get()).ok();
        let words = |at: usize| said(&word(at).unwrap_or_default());
        let (Some(verb), Some(second)) = (word(0), word(1)) else { return Ok(Self::Other) };
        Ok(match verb.as_str() {
            "AUTH" if second.len() > CHALLENGE_BYTES_MAX => {
                return Err(Trouble(format!("the relay's challenge is longer than {CHALLENGE_BYTES_MAX} bytes")));
            }
            "AUTH" => Self::Auth(second),
            "OK" => {
                let accepted = parts.get(2).is_some_and(|it| it.get() == "true");
                Self::Ok { id: second, answer: Answer { accepted, reason: words(3) } }
            }
            "EVENT" => {
                let json = parts.get(2).map_or("null", |it| it.get());
                let event = Unverified::parse(json.as_bytes()).and_then(Unverified::verify);
                Self::Event { subscription: second, event: event.map(|verified| verified.into_event()) }
            }
            "EOSE" => {
                let hints: Vec<String> =
                    parts.get(2).and_then(|it| serde_json::from_str(it.get()).ok()).unwrap_or_default();
                Self::Eose { subscription: second, holds_more: hints.iter().any(|hint| hint == "more") }
            }
            "CLOSED" => Self::Closed { subscription: second, reason: words(2) },
            "NOTICE" => Self::Notice(said(&second)),
            _ => Self::Other,
        })
    }

    /// Bytes that the message takes while it waits, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Event { subscription, event: Ok(event) } => subscription.len() + event.record().len(),
            Self::Auth(text) | Self::Eose { subscription: text, .. } | Self::Notice(text) => text.len(),
            Self::Ok { id, answer } => id.len() + answer.reason.len(),
            Self::Closed { subscription, reason } => subscription.len() + reason.len(),
            Self::Event { subscription, event: Err(error) } => subscription.len() + error.to_string().len(),
            Self::Other => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    #[test]
    fn messages_are_read() {
        let event = EventBuilder::new(1).content("hi").event(&keypair("alice"));
        let json = String::from_utf8(event.json().to_vec()).expect("text");
        let read = |text: &str| Message::parse(text).expect("a message");
        let got = read(&format!("[\"EVENT\",\"s\",{json}]"));
        assert!(matches!(got, Message::Event { event: Ok(it), .. } if it.id() == event.id()));
        let forged = json.replace("\"hi\"", "\"ho\"");
        let got = read(&format!("[\"EVENT\",\"s\",{forged}]"));
        assert!(matches!(got, Message::Event { event: Err(EventError::WrongId { .. }), .. }));
        assert!(matches!(read("[\"EVENT\",\"s\"]"), Message::Event { event: Err(_), .. }));
        assert!(matches!(read("[\"OK\",\"a\",true,\"\"]"), Message::Ok { answer: Answer { accepted: true, .. }, .. }));
        assert!(matches!(read("[\"OK\",\"a\",1]"), Message::Ok { answer: Answer { accepted: false, .. }, .. }));
        assert!(matches!(read("[\"NOTICE\",\"\\u001b[2J\"]"), Message::Notice(text) if text == "\\u{1b}[2J"));
        assert!(matches!(read("[\"EOSE\",\"s\",[\"more\"]]"), Message::Eose { holds_more: true, .. }));
        assert!(matches!(read("[\"EOSE\",\"s\"]"), Message::Eose { holds_more: false, .. }));
        assert!(matches!(read("[]"), Message::Other) && matches!(read("[1,2]"), Message::Other));
        assert!(Message::parse("{}").is_err() && Message::parse("[").is_err());
        assert!(Message::parse(&format!("[\"AUTH\",\"{}\"]", "x".repeat(CHALLENGE_BYTES_MAX + 1))).is_err());
    }
}
