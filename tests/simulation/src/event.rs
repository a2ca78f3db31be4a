//! Events as clients see them, and the keys that sign them.

use std::sync::Arc;

use nostr_protocol::testing::{EventBuilder, keypair, public_key};
use secp256k1::Keypair;
use serde_json::Value;

/// A key pair, the same for one name in every simulation.
#[derive(Clone)]
pub struct Keys {
    pair: Keypair,
    /// The public half in hex.
    pub hex: String,
}

impl Keys {
    /// The pair of a name.
    pub fn of(name: &str) -> Self {
        let pair = keypair(name);
        Self { pair, hex: public_key(&pair).to_hex() }
    }

    /// Signs an event of this key.
    pub fn sign(&self, draft: &EventBuilder) -> Event {
        Event::of(draft.value(&self.pair))
    }
}

/// A signed event.
#[derive(Clone, Debug)]
pub struct Event(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    id: String,
    author: String,
    kind: u64,
    created_at: u64,
    tags: Vec<Vec<String>>,
    json: Value,
}

impl Event {
    /// Reads an event's JSON.
    pub fn of_json(json: &[u8]) -> Self {
        Self::of(serde_json::from_slice(json).expect("an event is JSON"))
    }

    /// Reads an event.
    pub fn of(json: Value) -> Self {
        let text = |name: &str| json[name].as_str().expect("an event has this member").to_owned();
        let number = |name: &str| json[name].as_u64().expect("an event has this number");
        let tags = serde_json::from_value(json["tags"].clone()).expect("tags are lists of strings");
        Self(Arc::new(Parts {
            id: text("id"),
            author: text("pubkey"),
            kind: number("kind"),
            created_at: number("created_at"),
            tags,
            json,
        }))
    }

    pub fn id(&self) -> &str {
        &self.0.id
    }

    pub fn author(&self) -> &str {
        &self.0.author
    }

    pub fn kind(&self) -> u64 {
        self.0.kind
    }

    pub fn created_at(&self) -> u64 {
        self.0.created_at
    }

    pub fn json(&self) -> &Value {
        &self.0.json
    }

    /// The second strings of the tags of this name.
    pub fn tags<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e str> {
        let of_name = self.0.tags.iter().filter(move |tag| tag.first().is_some_and(|first| first == name));
        of_name.filter_map(|tag| tag.get(1).map(String::as_str))
    }

    /// The second string of the first tag of this name.
    pub fn tag<'e>(&'e self, name: &'e str) -> Option<&'e str> {
        self.tags(name).next()
    }

    /// The group that the event names.
    pub fn group(&self) -> Option<&str> {
        self.tag("h")
    }

    /// The end that the event names, in Unix seconds.
    pub fn expiration(&self) -> Option<u64> {
        self.tag("expiration").and_then(|end| end.parse().ok())
    }

    pub fn is_ephemeral(&self) -> bool {
        (20_000..30_000).contains(&self.kind())
    }

    /// Whether a filter of the simulation fits, which has lists of `ids`, `kinds`, `authors`, `#h` and `#p` alone.
    pub fn fits(&self, filter: &Value) -> bool {
        let any = |name: &str, holds: &dyn Fn(&Value) -> bool| {
            filter[name].as_array().is_none_or(|list| list.iter().any(holds))
        };
        any("ids", &|id| id == self.id())
            && any("kinds", &|kind| *kind == self.kind())
            && any("authors", &|author| author == self.author())
            && any("#h", &|value| self.tags("h").any(|it| value == it))
            && any("#p", &|value| self.tags("p").any(|it| value == it))
    }
}
