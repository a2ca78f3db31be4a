//! Events: parsed once from bytes, and kept as one record that serves memory, store and wire.
//!
//! Source: NIP-01, "Events and signatures".
//!
//! A record is `id (32) | pubkey (32) | created_at (8, little endian) | kind (2) | length of tags (4) | tags | JSON`.
//! The JSON is the event as its author's client wrote it, so the relay sends it on unchanged. The relay rewrites only
//! events that carry members beyond NIP-01's seven, or line breaks between members: nobody can have the relay carry
//! bytes that the author did not sign.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    key::{EventId, PublicKey},
    kind::Kind,
    parse::Parsed,
    tag::{Tags, TagsBuilder, put_str},
};

const PUBKEY: usize = 32;
const CREATED_AT: usize = 64;
const KIND: usize = 72;
const TAGS_LEN: usize = 74;
const TAGS: usize = 78;

/// An event whose id is the hash of its other fields. Its signature may be wrong: see [`Verified`].
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    record: Bytes,
}

/// An event as a client sent it, with its unchecked signature.
#[derive(Clone)]
pub struct Unverified {
    event: Event,
    sig: [u8; 64],
}

/// An event whose id and signature are right.
#[derive(Clone)]
pub struct Verified(Event);

/// The reason why bytes are no event. The text is for the client that sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or not the JSON of an event.
    #[error("not an event: {0}")]
    Malformed(String),
    /// The event's id is not its hash.
    #[error("id does not match the event; it is the SHA-256 of [0,pubkey,created_at,kind,tags,content]")]
    WrongId {
        /// The id that the event claims.
        claimed: EventId,
    },
    /// The signature is not one by `pubkey` over `id`.
    #[error("signature does not verify; sign the id with the key of pubkey (BIP-340)")]
    BadSignature,
}

impl Unverified {
    /// Reads the JSON of an event and recomputes its id.
    ///
    /// # Errors
    /// [`EventError::Malformed`] with what is wrong, or [`EventError::WrongId`].
    pub fn parse(json: &[u8]) -> Result<Self, EventError> {
        let parsed = Parsed::from_json(json).map_err(EventError::Malformed)?;
        let Some(canonical_bytes) = matching_bytes(&parsed) else {
            return Err(EventError::WrongId { claimed: parsed.id });
        };
        let sig = parsed.sig;
        // Spaces between members, and escapes that no string needs, would make others store and receive them.
        let event = if parsed.exact && json.len() <= canonical_bytes + Parsed::JSON_BYTES_MORE {
            Event::pack(&parsed, json)
        } else {
            let rewritten = parsed.to_json();
            Event::pack(&parsed, rewritten.as_bytes())
        };
        Ok(Self { event, sig })
    }

    /// The event, not yet verified.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// Checks the signature, which takes about 50 µs of CPU.
    ///
    /// # Errors
    /// [`EventError::BadSignature`].
    pub fn verify(self) -> Result<Verified, EventError> {
        let key = secp256k1::XOnlyPublicKey::from_byte_array(*self.event.pubkey().as_bytes());
        let sig = secp256k1::schnorr::Signature::from_byte_array(self.sig);
        match key {
            Ok(key) if secp256k1::schnorr::verify(&sig, self.event.id().as_bytes(), &key).is_ok() => {
                Ok(Verified(self.event))
            }
            _ => Err(EventError::BadSignature),
        }
    }

    /// Takes the event as verified because its id is `stored`, the id of an event that was verified when it was stored.
    /// Benchmarks fill stores with it.
    ///
    /// The id covers every field but the signature, so the stored event's signature covers these fields too. `None`
    /// when the ids differ.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn same_as(self, stored: &EventId) -> Option<Verified> {
        (self.event.id() == *stored).then_some(Verified(self.event))
    }
}

impl Verified {
    /// The event.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.0
    }

    /// The event, by value.
    #[must_use]
    pub fn into_event(self) -> Event {
        self.0
    }
}

impl Event {
    fn pack(parsed: &Parsed<'_>, json: &[u8]) -> Self {
        let mut record = Vec::with_capacity(TAGS + parsed.tags.byte_len() + json.len());
        record.extend_from_slice(parsed.id.as_bytes());
        record.extend_from_slice(parsed.pubkey.as_bytes());
        record.extend_from_slice(&parsed.created_at.to_le_bytes());
        record.extend_from_slice(&parsed.kind.to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        parsed.tags.finish(&mut record);
        // A frame is bounded far below 4 GiB, and so are the tags in it.
        let tags_len = (record.len() - TAGS) as u32;
        record[TAGS_LEN..TAGS].copy_from_slice(&tags_len.to_le_bytes());
        record.extend_from_slice(json);
        Self { record: Bytes::from(record) }
    }

    /// The event over a record that [`Event::record`] gave; `None` if the bytes are no such record.
    #[must_use]
    pub fn from_record(record: Bytes) -> Option<Self> {
        EventRef::new(&record)?;
        Some(Self { record })
    }

    /// An event of which only these fields and tags are known, without content: enough to decide about one that is
    /// stored.
    #[must_use]
    pub fn outline(id: EventId, pubkey: PublicKey, created_at: u64, kind: Kind, tags: &[[String; 2]]) -> Self {
        let mut builder = TagsBuilder::default();
        for strings in tags {
            builder.push_packed(strings.len(), |body| strings.iter().for_each(|string| put_str(body, string)));
        }
        let mut packed = Vec::with_capacity(builder.byte_len());
        builder.finish(&mut packed);
        let mut record = Vec::with_capacity(TAGS + packed.len() + 2);
        record.extend_from_slice(id.as_bytes());
        record.extend_from_slice(pubkey.as_bytes());
        record.extend_from_slice(&created_at.to_le_bytes());
        record.extend_from_slice(&kind.0.to_le_bytes());
        // The tags are a few strings.
        record.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        record.extend_from_slice(&packed);
        record.extend_from_slice(b"{}");
        Self { record: Bytes::from(record) }
    }

    /// The record, as a store keeps it.
    #[must_use]
    pub const fn record(&self) -> &Bytes {
        &self.record
    }

    /// The same event, borrowed.
    #[must_use]
    pub fn view(&self) -> EventRef<'_> {
        EventRef { record: &self.record }
    }

    /// See [`EventRef::id`].
    #[must_use]
    pub fn id(&self) -> EventId {
        self.view().id()
    }

    /// See [`EventRef::pubkey`].
    #[must_use]
    pub fn pubkey(&self) -> PublicKey {
        self.view().pubkey()
    }

    /// See [`EventRef::created_at`].
    #[must_use]
    pub fn created_at(&self) -> u64 {
        self.view().created_at()
    }

    /// See [`EventRef::kind`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.view().kind()
    }

    /// See [`EventRef::tags`].
    #[must_use]
    pub fn tags(&self) -> Tags<'_> {
        self.view().tags()
    }

    /// See [`EventRef::content`].
    #[must_use]
    pub fn content(&self) -> String {
        self.view().content()
    }

    /// The JSON, as a shared slice of the record.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let start = self.record.len() - self.view().json().len();
        self.record.slice(start..)
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("id", &self.id()).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// An event read in place, for example in a store's page.
#[derive(Clone, Copy)]
pub struct EventRef<'a> {
    record: &'a [u8],
}

impl<'a> EventRef<'a> {
    /// Reads `record` in place; `None` when the bytes are too short to be one.
    #[must_use]
    pub fn new(record: &'a [u8]) -> Option<Self> {
        let view = Self { record };
        let tags_len = u32::from_le_bytes(view.fixed(TAGS_LEN)?) as usize;
        (record.len() > TAGS + tags_len && tags_len > 0).then_some(view)
    }

    fn fixed<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.record.get(at..at + N)?.try_into().ok()
    }

    /// SHA-256 of the canonical form.
    #[must_use]
    pub fn id(self) -> EventId {
        EventId::from_bytes(self.fixed(0).unwrap_or_default())
    }

    /// The author.
    #[must_use]
    pub fn pubkey(self) -> PublicKey {
        PublicKey::from_bytes(self.fixed(PUBKEY).unwrap_or_default())
    }

    /// The author's time, in Unix seconds.
    #[must_use]
    pub fn created_at(self) -> u64 {
        u64::from_le_bytes(self.fixed(CREATED_AT).unwrap_or_default())
    }

    /// The kind.
    #[must_use]
    pub fn kind(self) -> Kind {
        Kind(u16::from_le_bytes(self.fixed(KIND).unwrap_or_default()))
    }

    fn tags_len(self) -> usize {
        u32::from_le_bytes(self.fixed(TAGS_LEN).unwrap_or_default()) as usize
    }

    /// The tags.
    #[must_use]
    pub fn tags(self) -> Tags<'a> {
        Tags::new(&self.record[TAGS..TAGS + self.tags_len()])
    }

    /// The JSON, as clients get it.
    #[must_use]
    pub fn json(self) -> &'a [u8] {
        &self.record[TAGS + self.tags_len()..]
    }

    /// The content, parsed out of the JSON at each call, because few kinds need it.
    #[must_use]
    pub fn content(self) -> String {
        Parsed::from_json(self.json()).map(|parsed| parsed.content.into_owned()).unwrap_or_default()
    }

    /// The whole record.
    #[must_use]
    pub const fn record(self) -> &'a [u8] {
        self.record
    }
}

/// The number of bytes of the event's canonical form if the id is its hash, in either of two spellings.
///
/// NIP-01 writes control characters verbatim, but for the seven with short escapes. `JSON.stringify` and most libraries
/// write `\u00XX` instead. Both spellings are in use, so an id by either is right.
fn matching_bytes(parsed: &Parsed<'_>) -> Option<usize> {
    let canonical = parsed.canonical(true);
    let is_hash = |text: &[u8]| Sha256::digest(text).as_slice() == parsed.id.as_bytes();
    if is_hash(&canonical) {
        return Some(canonical.len());
    }
    let verbatim = parsed.canonical(false);
    (verbatim != canonical && is_hash(&verbatim)).then_some(canonical.len())
}
