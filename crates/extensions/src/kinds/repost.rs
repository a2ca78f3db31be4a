//! Kinds 6 and 16, reposts: public, unless they carry a protected event.
//!
//! Source: NIP-18; NIP-70. The `content` of a repost may be the event that it reposts, as JSON.

use std::{borrow::Cow, fmt};

use nostr_protocol::{Event, Rejection, tag::name};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{KindRules, any};
use crate::{
    admit::PUBLISHED_BY,
    context::{Context, Verdict},
};

pub(super) const RULES: KindRules = any::regular(admit);

/// Open to every publisher; a protected event stays where its author published it.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    if carries_protected(&event.content()) {
        let refusal = Rejection::blocked(
            "this repost carries an event that is protected by a \"-\" tag (NIP-70); repost it by its id alone",
        );
        return Err(refusal.under(PUBLISHED_BY));
    }
    any::admit(event, cx)
}

/// Whether `content` begins with a JSON object that has a tag `-`.
fn carries_protected(content: &str) -> bool {
    let mut found = false;
    let mut read = serde_json::Deserializer::from_str(content);
    // Text behind a fault is no JSON; a tag before it counts.
    let _ = read.deserialize_map(Carried { found: &mut found });
    found
}

/// Looks for the tag in each member `tags` of an object.
struct Carried<'f> {
    found: &'f mut bool,
}

impl<'de> Visitor<'de> for Carried<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            if name == "tags" {
                let Tags(has_protected) = map.next_value()?;
                *self.found |= has_protected;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whether a list of tags holds a tag `-`.
struct Tags(bool);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tags, A::Error> {
                let mut has_protected = false;
                while let Some(Tag(is_protected)) = list.next_element()? {
                    has_protected |= is_protected;
                }
                Ok(Tags(has_protected))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Whether a tag's name is `-`.
struct Tag(bool);

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Tag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tag")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Tag, A::Error> {
                let first = words.next_element::<Text<'de>>()?;
                while words.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Tag(first.is_some_and(|Text(word)| word == name::PROTECTED)))
            }
        }
        deserializer.deserialize_seq(Words)
    }
}
