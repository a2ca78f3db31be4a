//! Throw-away keys and events signed by them.

use std::time::{SystemTime, UNIX_EPOCH};

use nostr_protocol::{
    PublicKey,
    testing::{EventBuilder, public_key, random_keypair},
};
use secp256k1::Keypair;
use serde_json::Value;

/// The machine's time in Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// A key pair made for one test.
#[derive(Clone)]
pub struct Keys(Keypair);

impl Keys {
    /// A new random pair.
    pub fn random() -> Self {
        Self(random_keypair())
    }

    /// `N` random pairs.
    pub fn some<const N: usize>() -> [Self; N] {
        std::array::from_fn(|_| Self::random())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        public_key(&self.0)
    }

    /// The public half as it stands in events.
    pub fn hex(&self) -> String {
        self.public().to_hex()
    }

    /// The pair itself.
    pub const fn pair(&self) -> &Keypair {
        &self.0
    }

    /// Starts an event by this key; `created_at` is the machine's time.
    pub fn event(&self, kind: u16) -> Draft {
        Draft { by: self.0, builder: EventBuilder::new(kind).at(now()) }
    }
}

/// An event that is not signed yet.
#[derive(Clone)]
pub struct Draft {
    by: Keypair,
    builder: EventBuilder,
}

impl Draft {
    /// Adds a tag.
    pub fn tag(mut self, strings: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.builder.tags.push(strings.into_iter().map(|text| text.as_ref().to_owned()).collect());
        self
    }

    /// Adds a tag of this name for each value.
    pub fn tags(self, name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        values.into_iter().fold(self, |draft, value| draft.tag([name, value.as_ref()]))
    }

    /// Sets the content.
    pub fn content(mut self, content: impl Into<String>) -> Self {
        self.builder.content = content.into();
        self
    }

    /// Sets `created_at`.
    pub const fn created_at(mut self, secs: u64) -> Self {
        self.builder.created_at = secs;
        self
    }

    /// Signs the event.
    pub fn sign(self) -> Event {
        Event(self.builder.value(&self.by))
    }
}

/// A signed event, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(pub Value);

impl Event {
    /// Its id.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().expect("an event has an id")
    }

    /// Its content.
    pub fn content(&self) -> &str {
        self.0["content"].as_str().expect("an event has a content")
    }

    /// Its kind.
    pub fn kind(&self) -> u64 {
        self.0["kind"].as_u64().expect("an event has a kind")
    }
}

impl From<Value> for Event {
    fn from(value: Value) -> Self {
        Self(value)
    }
}
