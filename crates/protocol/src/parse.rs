//! Parser for the JSON of an event: types, ranges and the seven members of NIP-01. Each error says how to mend the
//! event.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    hex,
    key::{EventId, PublicKey},
    tag::{Tags, TagsBuilder, put_str},
};

/// An event's fields as the JSON gives them. Neither id nor signature is checked.
pub(crate) struct Parsed<'a> {
    pub(crate) id: EventId,
    pub(crate) pubkey: PublicKey,
    pub(crate) created_at: u64,
    pub(crate) kind: u16,
    pub(crate) tags: TagsBuilder,
    pub(crate) content: Cow<'a, str>,
    pub(crate) sig: [u8; 64],
    /// Whether the JSON holds the seven members alone and no raw control character, so that it can be sent on
    /// unchanged unless it is longer than it need be.
    pub(crate) exact: bool,
}

impl<'a> Parsed<'a> {
    /// Bytes by which [`Self::to_json`] is longer than [`Self::canonical`] with JSON's escapes: the names of members,
    /// the id and the signature.
    pub(crate) const JSON_BYTES_MORE: usize = 253;

    pub(crate) fn from_json(json: &'a [u8]) -> Result<Self, String> {
        let mut de = serde_json::Deserializer::from_slice(json);
        let mut parsed = de.deserialize_map(EventVisitor).map_err(|e| without_position(&e))?;
        de.end().map_err(|e| without_position(&e))?;
        parsed.exact &= !json.iter().any(|&c| c < 0x20);
        Ok(parsed)
    }

    /// Writes `[0,pubkey,created_at,kind,tags,content]` without white space (NIP-01). With `json_escapes`, control
    /// characters without a short escape become `\u00XX`; without it they stay as they are.
    pub(crate) fn canonical(&self, json_escapes: bool) -> Vec<u8> {
        let mut out = String::with_capacity(self.content.len() + self.tags.byte_len() * 2 + 120);
        out.push_str("[0,\"");
        hex::push_hex(&mut out, self.pubkey.as_bytes());
        out.push_str("\",");
        self.push_signed(&mut out, ",", ",", json_escapes);
        out.push(']');
        out.into_bytes()
    }

    /// Writes the event as JSON with the seven members alone.
    pub(crate) fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.content.len() + self.tags.byte_len() * 2 + 360);
        out.push_str("{\"id\":\"");
        hex::push_hex(&mut out, self.id.as_bytes());
        out.push_str("\",\"pubkey\":\"");
        hex::push_hex(&mut out, self.pubkey.as_bytes());
        out.push_str("\",\"created_at\":");
        self.push_signed(&mut out, ",\"kind\":", ",\"tags\":", true);
        out.push_str(",\"sig\":\"");
        hex::push_hex(&mut out, &self.sig);
        out.push_str("\"}");
        out
    }

    /// Writes `created_at`, `kind`, `tags` and `content`, with the given separators before `kind` and `tags`.
    fn push_signed(&self, out: &mut String, kind: &str, tags: &str, json_escapes: bool) {
        use fmt::Write as _;
        let in_object = kind.len() > 1;
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{kind}{}{tags}[", self.created_at, self.kind);
        let mut packed = Vec::with_capacity(self.tags.byte_len());
        self.tags.finish(&mut packed);
        for (n, tag) in Tags::new(&packed).iter().enumerate() {
            out.push_str(if n == 0 { "[" } else { ",[" });
            for (m, text) in tag.strings().enumerate() {
                if m > 0 {
                    out.push(',');
                }
                push_json_str(out, text, json_escapes);
            }
            out.push(']');
        }
        out.push_str(if in_object { "],\"content\":" } else { "]," });
        push_json_str(out, &self.content, json_escapes);
    }
}

/// Most characters of an error's text. serde_json repeats the unexpected value, however long it is.
const ERROR_CHARS_MAX: usize = 200;

/// Cuts serde_json's message to [`ERROR_CHARS_MAX`], without " at line 1 column 2", which means nothing inside a frame.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Writes `text` as a JSON string with the escapes of NIP-01.
fn push_json_str(out: &mut String, text: &str, json_escapes: bool) {
    use fmt::Write as _;
    out.push('"');
    let mut plain_from = 0;
    for (at, c) in text.bytes().enumerate() {
        if c >= 0x20 && c != b'"' && c != b'\\' {
            continue;
        }
        let escape = match c {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            _ if json_escapes => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        plain_from = at + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{c:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

struct EventVisitor;

const FIELDS: [&str; 7] = ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"];

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Parsed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with id, pubkey, created_at, kind, tags, content and sig")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed<'de>, A::Error> {
        let (mut id, mut pubkey, mut sig) = (None, None, None);
        let (mut created_at, mut kind, mut tags, mut content) = (None, None, None, None);
        let mut exact = true;
        while let Some(field) = map.next_key_seed(FieldSeed)? {
            match field {
                0 => set(&mut id, 0, map.next_value_seed(Hex::<32>("id"))?)?,
                1 => set(&mut pubkey, 1, map.next_value_seed(Hex::<32>("pubkey"))?)?,
                2 => set(&mut created_at, 2, map.next_value_seed(Number("created_at"))?)?,
                3 => set(&mut kind, 3, map.next_value_seed(Number("kind"))?)?,
                4 => set(&mut tags, 4, map.next_value_seed(TagsSeed)?)?,
                5 => set(&mut content, 5, map.next_value_seed(TextSeed)?)?,
                6 => set(&mut sig, 6, map.next_value_seed(Hex::<64>("sig"))?)?,
                _ => {
                    exact = false;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let missing = |n: usize| de::Error::custom(format_args!("{} is missing", FIELDS[n]));
        let kind = kind.ok_or_else(|| missing(3))?;
        Ok(Parsed {
            id: EventId::from_bytes(id.ok_or_else(|| missing(0))?),
            pubkey: PublicKey::from_bytes(pubkey.ok_or_else(|| missing(1))?),
            created_at: created_at.ok_or_else(|| missing(2))?,
            kind: u16::try_from(kind).map_err(|_| de::Error::custom("kind is over 65535"))?,
            tags: tags.ok_or_else(|| missing(4))?,
            content: content.ok_or_else(|| missing(5))?,
            sig: sig.ok_or_else(|| missing(6))?,
            exact,
        })
    }
}

fn set<T, E: de::Error>(slot: &mut Option<T>, field: usize, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format_args!("{} is given twice", FIELDS[field]))),
    }
}

/// Index of a member's name in [`FIELDS`]; 7 for any other name.
struct FieldSeed;

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<usize, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = usize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }
    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        Ok(FIELDS.iter().position(|field| *field == name).unwrap_or(FIELDS.len()))
    }
}

struct Hex<const N: usize>(&'static str);

impl<'de, const N: usize> DeserializeSeed<'de> for Hex<N> {
    type Value = [u8; N];
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<[u8; N], D::Error> {
        d.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Hex<N> {
    type Value = [u8; N];
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {} lower-case hex digits", self.0, N * 2)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
        hex::parse_lower(text.as_bytes())
            .ok_or_else(|| E::custom(format_args!("{} is not {} lower-case hex digits", self.0, N * 2)))
    }
}

/// A whole number that is not negative.
pub(crate) struct Number(pub(crate) &'static str);

impl<'de> DeserializeSeed<'de> for Number {
    type Value = u64;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<u64, D::Error> {
        d.deserialize_any(self)
    }
}

impl Visitor<'_> for Number {
    type Value = u64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as a whole number", self.0)
    }
    fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::custom(format_args!("{} is negative", self.0)))
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<u64, E> {
        Err(E::custom(format_args!("{} is not a whole number in range", self.0)))
    }
}

/// A string, borrowed from the frame when it has no escapes.
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Cow<'de, str>, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct TagsSeed;

impl<'de> DeserializeSeed<'de> for TagsSeed {
    type Value = TagsBuilder;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<TagsBuilder, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TagsSeed {
    type Value = TagsBuilder;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tags as an array of arrays of strings")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TagsBuilder, A::Error> {
        let mut tags = TagsBuilder::default();
        let mut strings = Vec::new();
        while let Some(count) = seq.next_element_seed(TagSeed(&mut strings))? {
            tags.push_packed(count, |body| body.append(&mut strings));
        }
        Ok(tags)
    }
}

struct TagSeed<'v>(&'v mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for TagSeed<'_> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<usize, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TagSeed<'_> {
    type Value = usize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag as an array of strings")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while seq.next_element_seed(PackedStr(self.0))?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

struct PackedStr<'v>(&'v mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for PackedStr<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for PackedStr<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string in a tag")
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        put_str(self.0, text);
        Ok(())
    }
}
