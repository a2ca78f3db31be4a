//! Frames: messages of clients and answers of the relay (NIP-01, 42, 45, 77).
//!
//! A frame is parsed once: the event of an `EVENT` stays the bytes of the frame, and [`crate::event`] parses them. An
//! [`Answer`] is written straight into a string, and carries no event. The server makes the frame of an event out of a
//! `Released`, which only the gate gives.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    filter::{Filter, FilterSeed},
    key::EventId,
    parse::without_position,
    rejection::{Rejection, Word},
};

/// A message of a client.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// `["EVENT", event]`: the event's JSON, not yet parsed.
    Event(Cow<'a, RawValue>),
    /// `["AUTH", event]` (NIP-42): the event's JSON, not yet parsed.
    Auth(Cow<'a, RawValue>),
    /// `["REQ", id, filter…]`
    Req(Cow<'a, str>, Vec<Filter>),
    /// `["COUNT", id, filter…]` (NIP-45)
    Count(Cow<'a, str>, Vec<Filter>),
    /// `["CLOSE", id]`
    Close(Cow<'a, str>),
    /// `["NEG-OPEN", id, filter, message in hex]` (NIP-77)
    NegOpen(Cow<'a, str>, Box<Filter>, Cow<'a, str>),
    /// `["NEG-MSG", id, message in hex]` (NIP-77)
    NegMsg(Cow<'a, str>, Cow<'a, str>),
    /// `["NEG-CLOSE", id]` (NIP-77)
    NegClose(Cow<'a, str>),
}

/// The reason why a frame is no message, and the subscription to answer, where the frame named one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// The message's name, where it is a known one.
    pub verb: Option<Verb>,
    /// The subscription id, at most 64 characters of it, where the frame was right up to there.
    pub subscription: Option<String>,
    /// The fault, in words for the client.
    pub rejection: Rejection,
}

/// The first element of a message.
#[allow(missing_docs, reason = "each is the protocol's own word")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Event,
    Auth,
    Req,
    Count,
    Close,
    NegOpen,
    NegMsg,
    NegClose,
}

impl<'a> ClientMessage<'a> {
    /// The same message, which no longer borrows from its frame.
    #[must_use]
    pub fn into_owned(self) -> ClientMessage<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Event(json) => ClientMessage::Event(Cow::Owned(json.into_owned())),
            Self::Auth(json) => ClientMessage::Auth(Cow::Owned(json.into_owned())),
            Self::Req(id, filters) => ClientMessage::Req(owned(id), filters),
            Self::Count(id, filters) => ClientMessage::Count(owned(id), filters),
            Self::Close(id) => ClientMessage::Close(owned(id)),
            Self::NegOpen(id, filter, message) => ClientMessage::NegOpen(owned(id), filter, owned(message)),
            Self::NegMsg(id, message) => ClientMessage::NegMsg(owned(id), owned(message)),
            Self::NegClose(id) => ClientMessage::NegClose(owned(id)),
        }
    }

    /// Reads a text frame.
    ///
    /// `filters_max` bounds the filters of one request. A longer list is an error; it is never cut.
    ///
    /// # Errors
    /// [`MessageError`], whose text says what to change.
    pub fn parse(frame: &'a str, filters_max: usize) -> Result<Self, MessageError> {
        let mut seen = Seen::default();
        let mut de = serde_json::Deserializer::from_str(frame);
        let read = de
            .deserialize_seq(MessageVisitor { seen: &mut seen, filters_max })
            .and_then(|message| de.end().map(|()| message));
        read.map_err(|error| {
            let wrong = without_position(&error);
            let text = match seen.verb {
                Some(_) => wrong,
                None => format!("{wrong}; send a JSON array such as [\"REQ\",\"id\",{{}}]"),
            };
            let rejection = if seen.is_unsupported { Rejection::unsupported(text) } else { Rejection::invalid(text) };
            MessageError { verb: seen.verb, subscription: seen.subscription, rejection }
        })
    }
}

/// Reads a text frame up to its subscription id, however long it is, so that a request can be refused unread. Gives
/// the message's name, and at most 64 characters of the id, as far as the frame is right up to there.
#[must_use]
pub fn head(frame: &str) -> (Option<Verb>, Option<String>) {
    let mut seen = Seen { is_head_alone: true, ..Seen::default() };
    let visitor = MessageVisitor { seen: &mut seen, filters_max: 0 };
    // The visitor stops behind the head by an error.
    let _stopped = serde_json::Deserializer::from_str(frame).deserialize_seq(visitor);
    (seen.verb, seen.subscription)
}

#[derive(Default)]
struct Seen {
    verb: Option<Verb>,
    subscription: Option<String>,
    /// Set where nothing behind the id is read.
    is_head_alone: bool,
    /// Set where a filter has a key that this relay does not know.
    is_unsupported: bool,
}

struct MessageVisitor<'s> {
    seen: &'s mut Seen,
    filters_max: usize,
}

impl<'de> Visitor<'de> for MessageVisitor<'_> {
    type Value = ClientMessage<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array such as [\"REQ\", \"id\", {}]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ClientMessage<'de>, A::Error> {
        let verb: Text<'de> = next(&mut seq, "the message's name")?;
        let verb = match &*verb.0 {
            "EVENT" => Verb::Event,
            "AUTH" => Verb::Auth,
            "REQ" => Verb::Req,
            "COUNT" => Verb::Count,
            "CLOSE" => Verb::Close,
            "NEG-OPEN" => Verb::NegOpen,
            "NEG-MSG" => Verb::NegMsg,
            "NEG-CLOSE" => Verb::NegClose,
            other => {
                return Err(de::Error::custom(format_args!(
                    "unknown message \"{}\"; use EVENT, REQ, CLOSE, COUNT, AUTH, NEG-OPEN, NEG-MSG or NEG-CLOSE",
                    other.chars().take(16).collect::<String>()
                )));
            }
        };
        self.seen.verb = Some(verb);
        if self.seen.is_head_alone && matches!(verb, Verb::Event | Verb::Auth) {
            return Err(de::Error::custom("the event is not read"));
        }
        if let Verb::Event | Verb::Auth = verb {
            let event: &'de RawValue = next(&mut seq, "an event")?;
            end(&mut seq)?;
            let event = Cow::Borrowed(event);
            return Ok(if verb == Verb::Event { ClientMessage::Event(event) } else { ClientMessage::Auth(event) });
        }
        let id = next::<Text<'de>, A>(&mut seq, "a subscription id")?.0;
        self.seen.subscription = Some(id.chars().take(64).collect());
        if self.seen.is_head_alone {
            return Err(de::Error::custom("the rest is not read"));
        }
        match verb {
            Verb::Req | Verb::Count => {
                let mut filters = Vec::new();
                let is_unsupported = &mut self.seen.is_unsupported;
                while let Some(filter) = seq.next_element_seed(FilterSeed { is_unsupported })? {
                    if filters.len() == self.filters_max {
                        return Err(de::Error::custom(format_args!(
                            "more than {} filters; send the rest in another request",
                            self.filters_max
                        )));
                    }
                    filters.push(filter);
                }
                if filters.is_empty() {
                    return Err(de::Error::custom("a filter is missing; {} asks for everything"));
                }
                Ok(if verb == Verb::Req { ClientMessage::Req(id, filters) } else { ClientMessage::Count(id, filters) })
            }
            Verb::NegOpen => {
                let seed = FilterSeed { is_unsupported: &mut self.seen.is_unsupported };
                let filter = seq.next_element_seed(seed)?.ok_or_else(|| de::Error::custom("a filter is missing"))?;
                let message = next::<Text<'de>, A>(&mut seq, "a message in hex")?.0;
                end(&mut seq)?;
                Ok(ClientMessage::NegOpen(id, Box::new(filter), message))
            }
            Verb::NegMsg => {
                let message = next::<Text<'de>, A>(&mut seq, "a message in hex")?.0;
                end(&mut seq)?;
                Ok(ClientMessage::NegMsg(id, message))
            }
            _ => {
                end(&mut seq)?;
                Ok(if verb == Verb::Close { ClientMessage::Close(id) } else { ClientMessage::NegClose(id) })
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn next<'de, T: serde::Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A, what: &str) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| de::Error::custom(format_args!("{what} is missing")))
}

fn end<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    match seq.next_element::<de::IgnoredAny>()? {
        None => Ok(()),
        Some(_) => Err(de::Error::custom("the message goes on after its last element")),
    }
}

/// A frame that answers a client and carries no event. The functions below are the only way to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    text: String,
    asks_for_auth: bool,
}

impl Answer {
    /// A frame of this text.
    const fn new(text: String) -> Self {
        Self { text, asks_for_auth: false }
    }

    /// A frame of this text, which tells the client of `rejection`.
    fn refusing(text: String, rejection: &Rejection) -> Self {
        Self { text, asks_for_auth: rejection.word == Word::AuthRequired }
    }

    /// Whether the frame refuses something with `auth-required:`.
    #[must_use]
    pub const fn asks_for_auth(&self) -> bool {
        self.asks_for_auth
    }
}

impl Deref for Answer {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<Answer> for String {
    fn from(answer: Answer) -> Self {
        answer.text
    }
}

/// `["OK", id, accepted, reason]`
#[must_use]
pub fn ok_frame(id: &EventId, accepted: bool, reason: &str) -> Answer {
    Answer::new(format!("[\"OK\",\"{id}\",{accepted},{}]", json_str(reason)))
}

/// `["OK", id, false, reason]` for a refused event.
#[must_use]
pub fn refused_frame(id: &EventId, rejection: &Rejection) -> Answer {
    let text = format!("[\"OK\",\"{id}\",false,{}]", json_str(&rejection.to_string()));
    Answer::refusing(text, rejection)
}

/// Completeness of the stored part of an answer (NIP-67).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Every stored event that matches was sent.
    Finish,
    /// More stored events match than were sent.
    More,
    /// The relay did not look further.
    Unknown,
}

/// `["EOSE", subscription]`, with NIP-67's hint where the relay has one.
#[must_use]
pub fn eose_frame(subscription: &str, completeness: Completeness) -> Answer {
    let hint = match completeness {
        Completeness::Finish => ",[\"finish\"]",
        Completeness::More => ",[\"more\"]",
        Completeness::Unknown => "",
    };
    Answer::new(format!("[\"EOSE\",{}{hint}]", json_str(subscription)))
}

/// `["CLOSED", subscription, reason]`
#[must_use]
pub fn closed_frame(subscription: &str, rejection: &Rejection) -> Answer {
    let text = format!("[\"CLOSED\",{},{}]", json_str(subscription), json_str(&rejection.to_string()));
    Answer::refusing(text, rejection)
}

/// `["NOTICE", text]`
#[must_use]
pub fn notice_frame(text: &str) -> Answer {
    Answer::new(format!("[\"NOTICE\",{}]", json_str(text)))
}

/// `["AUTH", challenge]` (NIP-42)
#[must_use]
pub fn auth_frame(challenge: &str) -> Answer {
    Answer::new(format!("[\"AUTH\",{}]", json_str(challenge)))
}

/// `["COUNT", subscription, {"count": n}]` (NIP-45)
#[must_use]
pub fn count_frame(subscription: &str, count: u64) -> Answer {
    Answer::new(format!("[\"COUNT\",{},{{\"count\":{count}}}]", json_str(subscription)))
}

/// `["COUNT", subscription, {"count": count, "approximate": true}]` (NIP-45)
#[must_use]
pub fn approximate_count_frame(subscription: &str, count: u64) -> Answer {
    Answer::new(format!("[\"COUNT\",{},{{\"count\":{count},\"approximate\":true}}]", json_str(subscription)))
}

/// `["NEG-MSG", subscription, message in hex]` (NIP-77)
#[must_use]
pub fn neg_msg_frame(subscription: &str, message_hex: &str) -> Answer {
    Answer::new(format!("[\"NEG-MSG\",{},{}]", json_str(subscription), json_str(message_hex)))
}

/// `["NEG-ERR", subscription, reason]` (NIP-77)
#[must_use]
pub fn neg_err_frame(subscription: &str, reason: &str) -> Answer {
    Answer::new(format!("[\"NEG-ERR\",{},{}]", json_str(subscription), json_str(reason)))
}

/// `["NEG-ERR", subscription, reason]` for a refused session.
#[must_use]
pub fn neg_refused_frame(subscription: &str, rejection: &Rejection) -> Answer {
    Answer {
        asks_for_auth: rejection.word == Word::AuthRequired,
        ..neg_err_frame(subscription, &rejection.to_string())
    }
}

/// Writes `text` as a JSON string.
#[must_use]
pub fn json_str(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
