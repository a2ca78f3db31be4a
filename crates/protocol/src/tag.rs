//! Packed tags: all strings of an event's tags in one buffer, read in place.
//!
//! The event record (see [`crate::event`]) holds them in this layout: the number of tags, and for each tag the number
//! of its strings and then the strings, each preceded by its length. Every number is a LEB128. A stored event is thus
//! matched without parsing its JSON and without an allocation.
//!
//! The wire names of tags stand in [`name`] and nowhere else.

/// Names of the tags that the relay reads.
pub mod name {
    /// Address of a replaceable or addressable event (NIP-01).
    pub const ADDRESS: &str = "a";
    /// Ciphersuite of a KeyPackage, in the gateway's spelling.
    pub const CIPHERSUITE: &str = "cs";
    /// Ciphersuite of a KeyPackage, in the gateway's long spelling.
    pub const CIPHERSUITE_LONG: &str = "ciphersuite";
    /// Challenge of NIP-42.
    pub const CHALLENGE: &str = "challenge";
    /// Order of a group's commits, as a roster chooses it.
    pub const COMMIT_ORDERING: &str = "commit_ordering";
    /// Identifier of an addressable event (NIP-01).
    pub const IDENTIFIER: &str = "d";
    /// Id of another event (NIP-01).
    pub const EVENT: &str = "e";
    /// Encoding of a KeyPackage's content (`base64` or `hex`).
    pub const ENCODING: &str = "encoding";
    /// MLS epoch that a roster sets.
    pub const EPOCH: &str = "epoch";
    /// Unix seconds at which a KeyPackage ends, in the gateway's spelling.
    pub const EXP: &str = "exp";
    /// Unix seconds at which an event ends (NIP-40).
    pub const EXPIRATION: &str = "expiration";
    /// Overrides the order of rosters; admin keys only.
    pub const FORCE: &str = "force";
    /// The group's routing id on Nostr (`NostrGroupId`), never the MLS group id.
    pub const GROUP: &str = "h";
    /// Invitation of a key ([`crate::invitation`]).
    pub const INVITATION: &str = "invitation";
    /// MLS epoch of a group message; kind of a target in a deletion (NIP-09).
    pub const K: &str = "k";
    /// Reference of a KeyPackage, in the gateway's spelling.
    pub const KEY_PACKAGE_REFERENCE: &str = "kpr";
    /// Reference of a KeyPackage, in Marmot's spelling.
    pub const MARMOT_REFERENCE: &str = "i";
    /// Ciphersuite of a KeyPackage, in Marmot's spelling.
    pub const MARMOT_CIPHERSUITE: &str = "mls_ciphersuite";
    /// HTTP method (NIP-98).
    pub const METHOD: &str = "method";
    /// A group's name for people.
    pub const NAME: &str = "name";
    /// Number that makes an id hard to find, with the difficulty that was aimed at (NIP-13).
    pub const NONCE: &str = "nonce";
    /// Operation of a roster.
    pub const OP: &str = "op";
    /// SHA-256 of a request's body (NIP-98).
    pub const PAYLOAD: &str = "payload";
    /// Difficulty that the owner of an inbox asks for, in its kind 10050.
    pub const POW: &str = "pow";
    /// Mark of an event that its author alone publishes (NIP-70).
    pub const PROTECTED: &str = "-";
    /// A public key: recipient, owner or member.
    pub const PUBLIC_KEY: &str = "p";
    /// URL of the relay that the event is meant for (NIP-42, NIP-62).
    pub const RELAY: &str = "relay";
    /// Role that a roster gives.
    pub const ROLE: &str = "role";
    /// Sequence number of a roster.
    pub const SEQ: &str = "seq";
    /// Lifetime of a KeyPackage request in seconds.
    pub const TTL: &str = "ttl";
    /// URL (NIP-98).
    pub const URL: &str = "u";
    /// Version of a wrapped format (`noise.1`, `gift.1`).
    pub const VERSION: &str = "v";
}

/// A set of tag letters, `A` to `Z` and `a` to `z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters(u64);

impl Letters {
    /// The bit of an ASCII letter: 0 to 25 and 32 to 57. Any other byte has none.
    const fn bit(letter: u8) -> u64 {
        if letter.is_ascii_alphabetic() { 1 << (letter - b'A') } else { 0 }
    }

    /// Whether `letter` is in the set.
    #[must_use]
    pub const fn has(self, letter: u8) -> bool {
        self.0 & Self::bit(letter) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether each letter of the set is in `other` too.
    #[must_use]
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Adds `letter`.
    pub const fn insert(&mut self, letter: u8) {
        self.0 |= Self::bit(letter);
    }

    /// Takes `letter` out.
    pub const fn remove(&mut self, letter: u8) {
        self.0 &= !Self::bit(letter);
    }
}

/// The tags of one event, borrowed from its record.
#[derive(Clone, Copy)]
pub struct Tags<'a> {
    packed: &'a [u8],
}

/// One tag: its strings in order. The first is its name.
#[derive(Clone, Copy)]
pub struct Tag<'a> {
    count: usize,
    packed: &'a [u8],
}

impl<'a> Tags<'a> {
    /// Reads the packed form that [`TagsBuilder`] made.
    pub(crate) const fn new(packed: &'a [u8]) -> Self {
        Self { packed }
    }

    /// Each tag in the order of the event.
    #[must_use]
    pub fn iter(self) -> TagIter<'a> {
        let mut rest = self.packed;
        let left = take_number(&mut rest);
        TagIter { left, rest }
    }

    /// Number of tags.
    #[must_use]
    pub fn len(self) -> usize {
        take_number(&mut { self.packed })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The tags of this name.
    pub fn named(self, name: &str) -> impl Iterator<Item = Tag<'a>> {
        self.iter().filter(move |tag| tag.name() == name)
    }

    /// The second strings of the tags of this name. Tags without one are skipped.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.named(name).filter_map(|tag| tag.value())
    }

    /// The second string of the first tag of this name that has one.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The (letter, value) pairs that a filter can name (NIP-01): first and second string of each tag whose name is one
    /// ASCII letter.
    pub fn indexed(self) -> impl Iterator<Item = (u8, &'a str)> {
        self.indexed_bytes().map(|(letter, value)| (letter, std::str::from_utf8(value).unwrap_or("")))
    }

    /// [`Tags::indexed`] with the values as bytes, which spares a second check that they are UTF-8.
    pub(crate) fn indexed_bytes(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        self.iter().filter_map(|tag| {
            let mut rest = tag.packed;
            match (tag.count >= 2).then(|| take_bytes(&mut rest))? {
                [letter] if letter.is_ascii_alphabetic() => Some((*letter, take_bytes(&mut rest))),
                _ => None,
            }
        })
    }
}

impl<'a> Tag<'a> {
    /// The first string; empty for a tag without strings.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.get(0).unwrap_or("")
    }

    /// The second string.
    #[must_use]
    pub fn value(self) -> Option<&'a str> {
        self.get(1)
    }

    /// The string at `index`, counted from 0.
    #[must_use]
    pub fn get(self, index: usize) -> Option<&'a str> {
        self.strings().nth(index)
    }

    /// All strings in order.
    pub fn strings(self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.packed;
        (0..self.count).map(move |_| take_str(&mut rest))
    }
}

/// The iterator of [`Tags::iter`].
pub struct TagIter<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for TagIter<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        self.left = self.left.checked_sub(1)?;
        let count = take_number(&mut self.rest);
        let packed = self.rest;
        for _ in 0..count {
            let length = take_number(&mut self.rest);
            self.rest = self.rest.get(length..).unwrap_or_default();
        }
        Some(Tag { count, packed })
    }
}

/// Packer of tags, used while an event is parsed.
#[derive(Default)]
pub(crate) struct TagsBuilder {
    tags: usize,
    body: Vec<u8>,
}

impl TagsBuilder {
    /// Appends a tag with these strings.
    #[cfg(test)]
    pub(crate) fn push(&mut self, strings: &[&str]) {
        self.push_packed(strings.len(), |body| {
            for s in strings {
                put_str(body, s);
            }
        });
    }

    /// Appends a tag of `count` strings that `fill` writes by [`put_str`].
    pub(crate) fn push_packed(&mut self, count: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        self.tags += 1;
        put_number(&mut self.body, count);
        fill(&mut self.body);
    }

    /// Appends the packed form to `out`.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) {
        put_number(out, self.tags);
        out.extend_from_slice(&self.body);
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.body.len() + 10
    }
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a LEB128 from the front; 0 when nothing is left. Records come from [`TagsBuilder`] and are never cut short.
fn take_number(rest: &mut &[u8]) -> usize {
    let mut number = 0usize;
    let mut shift = 0;
    while let Some((&byte, tail)) = rest.split_first() {
        *rest = tail;
        number |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 || shift > 56 {
            break;
        }
    }
    number
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = take_number(rest);
    let (head, tail) = rest.split_at_checked(length).unwrap_or((&[], &[]));
    *rest = tail;
    head
}

fn take_str<'a>(rest: &mut &'a [u8]) -> &'a str {
    std::str::from_utf8(take_bytes(rest)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_tags_read_back() {
        let long = "x".repeat(300);
        let mut builder = TagsBuilder::default();
        builder.push(&["p", "abc", ""]);
        builder.push(&[]);
        builder.push(&["h", &long]);
        builder.push(&["name"]);
        let mut packed = Vec::new();
        builder.finish(&mut packed);
        let tags = Tags::new(&packed);
        assert_eq!(tags.len(), 4);
        let all: Vec<Vec<&str>> = tags.iter().map(|t| t.strings().collect()).collect();
        assert_eq!(all, [vec!["p", "abc", ""], vec![], vec!["h", &long], vec!["name"]]);
        assert_eq!(tags.indexed().collect::<Vec<_>>(), [(b'p', "abc"), (b'h', long.as_str())]);
        assert_eq!(tags.value("name"), None);
    }
}
