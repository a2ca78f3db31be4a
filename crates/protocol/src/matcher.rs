//! An event that is matched against many filters: live delivery matches each event against every subscription that may
//! ask for it.
//!
//! The event's tags are sorted once. A filter that names a letter of which the event has no tag fails at one comparison
//! of two sets. For each other letter the shorter list is looked up in the longer one, the filter's values or the
//! event's. Matching thus costs no more than the shorter list, times the logarithm of the longer one, however a client
//! chose its letters and its tags.

use crate::{
    event::EventRef,
    filter::{Filter, Fixed, search_cost},
    tag::Letters,
};

/// An event, made ready to be matched.
pub struct Matcher<'a> {
    fixed: Fixed,
    letters: Letters,
    /// The letters and values that a filter can name, sorted, each pair once.
    tags: Vec<(u8, &'a [u8])>,
}

impl<'a> Matcher<'a> {
    /// Reads the event's tags once and sorts them.
    #[must_use]
    pub fn new(event: EventRef<'a>) -> Self {
        let mut tags: Vec<(u8, &[u8])> = event.tags().indexed_bytes().collect();
        tags.sort_unstable();
        tags.dedup();
        let mut letters = Letters::default();
        tags.iter().for_each(|(letter, _)| letters.insert(*letter));
        Self { fixed: Fixed::of(event), letters, tags }
    }

    /// Whether the event meets every condition of `filter` but `limit`, as [`Filter::matches`] says. Adds the
    /// conditions that it looks at to `looked_at`.
    #[must_use]
    pub fn matches(&self, filter: &Filter, looked_at: &mut usize) -> bool {
        filter.meets_fixed(&self.fixed, looked_at)
            && filter.tags.letters().is_subset(self.letters)
            && filter.tags.iter().all(|(letter, values)| self.carries(*letter, values, looked_at))
    }

    /// Whether the event has a tag of this letter with one of the sorted `values`.
    fn carries(&self, letter: u8, values: &[Box<str>], looked_at: &mut usize) -> bool {
        let carried = self.tags_of(letter, looked_at);
        if values.len() <= carried.len() {
            return values.iter().any(|value| {
                *looked_at += search_cost(carried.len(), value.len());
                carried.binary_search_by(|(_, candidate)| (*candidate).cmp(value.as_bytes())).is_ok()
            });
        }
        carried.iter().any(|(_, value)| {
            *looked_at += search_cost(values.len(), value.len());
            values.binary_search_by(|candidate| candidate.as_bytes().cmp(value)).is_ok()
        })
    }

    fn tags_of(&self, letter: u8, looked_at: &mut usize) -> &[(u8, &'a [u8])] {
        *looked_at += search_cost(self.tags.len(), 0);
        let begin = self.tags.partition_point(|(carried, _)| *carried < letter);
        let behind = &self.tags[begin..];
        &behind[..behind.partition_point(|(carried, _)| *carried == letter)]
    }
}
