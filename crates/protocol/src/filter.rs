//! Filters of subscriptions (NIP-01, "Communication between clients and relays").
//!
//! Values are kept sorted, so that a filter of a thousand values is matched by binary search. The reader refuses a key
//! that it does not know: a relay that ignores a condition answers more than the client asked for.
//!
//! Two functions match, and both count the conditions that they look at, so that a caller can charge the client that
//! the filter belongs to. [`Filter::matches_counting`] reads an event in place, once, for an event that is matched
//! against one filter. [`crate::Matcher`] sorts an event's tags first, for an event that is matched against many.

use std::{collections::BTreeMap, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};

use crate::{
    event::EventRef,
    hex,
    key::{EventId, PublicKey},
    kind::Kind,
    parse::Number,
    tag::Letters,
};

/// Bytes of a value that are compared at the price of one condition.
const BYTES_PER_CONDITION: usize = 64;

/// One filter. A condition that is `None` or absent matches everything; an empty list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Event ids, sorted.
    pub ids: Option<Vec<EventId>>,
    /// Authors, sorted.
    pub authors: Option<Vec<PublicKey>>,
    /// Kinds, sorted.
    pub kinds: Option<Vec<Kind>>,
    /// Conditions on tags.
    pub tags: TagConditions,
    /// Smallest `created_at`, inclusive.
    pub since: Option<u64>,
    /// Largest `created_at`, inclusive.
    pub until: Option<u64>,
    /// Most stored events to return; live events are not counted.
    pub limit: Option<u64>,
}

impl Filter {
    /// Whether the event meets every condition but `limit`.
    #[must_use]
    pub fn matches(&self, event: EventRef<'_>) -> bool {
        self.matches_counting(event, &mut 0)
    }

    /// [`Filter::matches`], which adds the conditions that it looks at to `looked_at`. Each tag of the event is read
    /// once, whatever number of letters the filter names, and looked up in the values of its own letter alone.
    #[must_use]
    pub fn matches_counting(&self, event: EventRef<'_>, looked_at: &mut usize) -> bool {
        let fixed = Fixed::of(event);
        if !self.meets_fixed(&fixed, looked_at) {
            return false;
        }
        let mut missing = self.tags.letters();
        if missing.is_empty() {
            return true;
        }
        for (letter, value) in event.tags().indexed_bytes() {
            *looked_at += 1;
            if !missing.has(letter) {
                continue;
            }
            let values = self.tag_values(letter);
            *looked_at += search_cost(values.len(), value.len());
            if values.binary_search_by(|candidate| candidate.as_bytes().cmp(value)).is_ok() {
                missing.remove(letter);
                if missing.is_empty() {
                    return true;
                }
            }
        }
        false
    }

    /// Whether an event with these fields meets the conditions that are not on tags.
    pub(crate) fn meets_fixed(&self, fixed: &Fixed, looked_at: &mut usize) -> bool {
        *looked_at += 1;
        self.since.is_none_or(|since| fixed.created_at >= since)
            && self.until.is_none_or(|until| fixed.created_at <= until)
            && is_in(self.kinds.as_deref(), &fixed.kind, looked_at)
            && is_in(self.ids.as_deref(), &fixed.id, looked_at)
            && is_in(self.authors.as_deref(), &fixed.pubkey, looked_at)
    }

    /// Whether some condition can match no event: an empty list, or `since` past `until`.
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        self.ids.as_ref().is_some_and(Vec::is_empty)
            || self.authors.as_ref().is_some_and(Vec::is_empty)
            || self.kinds.as_ref().is_some_and(Vec::is_empty)
            || self.tags.values().any(Vec::is_empty)
            || matches!((self.since, self.until), (Some(since), Some(until)) if since > until)
    }

    /// Whether the filter names `kind`, or names no kinds.
    #[must_use]
    pub fn asks_kind(&self, kind: Kind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.binary_search(&kind).is_ok())
    }

    /// The values that the filter wants of tag `letter`; empty when it does not name the tag.
    #[must_use]
    pub fn tag_values(&self, letter: u8) -> &[Box<str>] {
        self.tags.get(&letter).map_or(&[], Vec::as_slice)
    }

    /// Memory that the filter takes, in bytes, approximately.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let keys = self.ids.as_ref().map_or(0, Vec::len) + self.authors.as_ref().map_or(0, Vec::len);
        let kinds = self.kinds.as_ref().map_or(0, Vec::len);
        let values = self.tags.values().flatten();
        // The allocator rounds a short string up; its pointer and length come on top.
        let values: usize = values.map(|value| size_of::<Box<str>>() + value.len().next_multiple_of(16) + 16).sum();
        size_of::<Self>() + 32 * keys + size_of::<Kind>() * kinds + values
    }

    /// Lengths of the filter's lists of values, which the caller compares with its limits.
    #[must_use]
    pub fn list_lengths(&self) -> ListLengths {
        let kinds = self.kinds.as_ref().map_or(0, Vec::len);
        ListLengths {
            ids: self.ids.as_ref().map_or(0, Vec::len),
            authors: self.authors.as_ref().map_or(0, Vec::len),
            other: self.tags.values().map(Vec::len).chain([kinds]).max().unwrap_or(0),
        }
    }
}

/// Lengths of a filter's lists, without repeated values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLengths {
    /// Values of `ids`.
    pub ids: usize,
    /// Values of `authors`.
    pub authors: usize,
    /// Values of the longest list beside these: `kinds`, or those of one tag.
    pub other: usize,
}

/// Whether a sorted list is absent or holds `value`.
fn is_in<T: Ord>(list: Option<&[T]>, value: &T, looked_at: &mut usize) -> bool {
    list.is_none_or(|list| {
        *looked_at += search_cost(list.len(), 0);
        list.binary_search(value).is_ok()
    })
}

/// Conditions that a binary search for a value of `bytes` bytes looks at in a list of `length` values.
pub(crate) const fn search_cost(length: usize, bytes: usize) -> usize {
    let steps = match length.checked_ilog2() {
        Some(halvings) => halvings as usize + 1,
        None => 0,
    };
    steps * (1 + bytes / BYTES_PER_CONDITION)
}

/// The fields of an event that are no tags, read out of its record once.
pub(crate) struct Fixed {
    id: EventId,
    pubkey: PublicKey,
    created_at: u64,
    kind: Kind,
}

impl Fixed {
    pub(crate) fn of(event: EventRef<'_>) -> Self {
        Self { id: event.id(), pubkey: event.pubkey(), created_at: event.created_at(), kind: event.kind() }
    }
}

/// The conditions of a filter on tags: for each letter the values of which the event must carry one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagConditions {
    letters: Letters,
    /// Sorted values for each letter.
    values: BTreeMap<u8, Vec<Box<str>>>,
}

impl TagConditions {
    /// Sets the values for a letter, in any order. Returns those that it had before.
    pub fn insert(&mut self, letter: u8, values: Vec<Box<str>>) -> Option<Vec<Box<str>>> {
        self.letters.insert(letter);
        self.values.insert(letter, sorted(values))
    }

    /// The letters that have a condition. An event that carries no tag of one of them does not match.
    #[must_use]
    pub const fn letters(&self) -> Letters {
        self.letters
    }
}

impl Deref for TagConditions {
    type Target = BTreeMap<u8, Vec<Box<str>>>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FilterSeed { is_unsupported: &mut false }.deserialize(deserializer)
    }
}

/// Reads a filter, and notes whether it was refused for a key that this relay does not know.
pub(crate) struct FilterSeed<'s> {
    pub(crate) is_unsupported: &'s mut bool,
}

impl<'de> DeserializeSeed<'de> for FilterSeed<'_> {
    type Value = Filter;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Filter, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FilterSeed<'_> {
    type Value = Filter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a filter object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Filter, A::Error> {
        let mut filter = Filter::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*name {
                "ids" => once(&mut filter.ids, &name, hex_list(&mut map, "ids", EventId::from_hex)?)?,
                "authors" => once(&mut filter.authors, &name, hex_list(&mut map, "authors", PublicKey::from_hex)?)?,
                "kinds" => once(&mut filter.kinds, &name, kind_list(&mut map)?)?,
                "since" => once(&mut filter.since, &name, map.next_value_seed(Number("since"))?)?,
                "until" => once(&mut filter.until, &name, map.next_value_seed(Number("until"))?)?,
                "limit" => once(&mut filter.limit, &name, map.next_value_seed(Number("limit"))?)?,
                _ => {
                    let Some(letter) = tag_letter(&name) else {
                        *self.is_unsupported = true;
                        return Err(de::Error::custom(format_args!(
                            "filter key \"{}\" is not supported; \
                             use ids, authors, kinds, #<letter>, since, until, limit",
                            name.chars().take(32).collect::<String>()
                        )));
                    };
                    let values = tag_values(&mut map, letter)?;
                    if filter.tags.insert(letter, values).is_some() {
                        return Err(de::Error::custom(format_args!("{name} is given twice")));
                    }
                }
            }
        }
        Ok(filter)
    }
}

fn once<T, E: de::Error>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format_args!("{name} is given twice"))),
    }
}

fn tag_letter(name: &str) -> Option<u8> {
    match name.as_bytes() {
        [b'#', letter] if letter.is_ascii_alphabetic() => Some(*letter),
        _ => None,
    }
}

fn hex_list<'de, A: MapAccess<'de>, T: Ord>(
    map: &mut A,
    name: &'static str,
    read: fn(&str) -> Option<T>,
) -> Result<Vec<T>, A::Error> {
    let wrong = || de::Error::custom(format_args!("{name} holds a value that is not 64 lower-case hex digits"));
    let texts: Vec<String> = map.next_value()?;
    let list: Result<Vec<T>, A::Error> = texts.iter().map(|text| read(text).ok_or_else(wrong)).collect();
    Ok(sorted(list?))
}

/// Reads the values of a tag condition. NIP-01: values of `#e` and `#p` are 64 lower-case hex digits.
fn tag_values<'de, A: MapAccess<'de>>(map: &mut A, letter: u8) -> Result<Vec<Box<str>>, A::Error> {
    let values: Vec<Box<str>> = map.next_value()?;
    let is_hex = |value: &str| hex::parse_lower::<32>(value.as_bytes()).is_some();
    if matches!(letter, b'e' | b'p') && !values.iter().all(|value| is_hex(value)) {
        return Err(de::Error::custom(format_args!(
            "#{} holds a value that is not 64 lower-case hex digits",
            char::from(letter)
        )));
    }
    Ok(values)
}

fn kind_list<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Vec<Kind>, A::Error> {
    struct One(Kind);
    impl<'de> Deserialize<'de> for One {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            let number = Number("a kind").deserialize(d)?;
            u16::try_from(number).map(|n| Self(Kind(n))).map_err(|_| de::Error::custom("a kind is over 65535"))
        }
    }
    let kinds: Vec<One> = map.next_value()?;
    Ok(sorted(kinds.into_iter().map(|one| one.0).collect()))
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}
