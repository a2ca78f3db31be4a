//! The parts of one query, read one page at a time and merged in NIP-01's order.
//!
//! A query of many ranges is read in parts, so that no call of the store opens more than a bounded number of them. An
//! event goes on only when every part has shown its next one. Events that wait for that are sealed, and few: a part
//! whose events are far off is read anew when the answer comes to them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use nostr_extensions::{Sealed, query::Position};
use nostr_store::{Page, Part};

/// Bytes of events that wait in one read, which the last page may exceed.
const WAITING_BYTES_MAX: usize = 2 << 20;
/// Longest time for which events wait while the client takes those before them. An event may be deleted meanwhile.
const WAITING_MAX: Duration = Duration::from_secs(1);
/// Most events that are given at one time.
const GIVEN_EVENTS_MAX: usize = 256;
/// Bytes of events that are given at one time, which the last event may exceed.
const GIVEN_BYTES_MAX: usize = 256 << 10;

/// See the module.
pub(super) struct Merge {
    parts: Vec<PartRead>,
    waiting_bytes: usize,
    given: Option<Instant>,
    /// Time that passed behind pages that were given, since the waiting events were read anew.
    waited: Duration,
}

/// One part under way.
struct PartRead {
    part: Part,
    /// The position that the waiting events lie behind.
    before: Option<Position>,
    waiting: VecDeque<Sealed>,
    /// A position that no event of the part lies before, where the waiting events were dropped.
    head: Option<Position>,
    next: Next,
}

/// The place where the store goes on with a part.
#[derive(Clone, Copy)]
enum Next {
    /// Behind this position, or at the beginning.
    From(Option<Position>),
    /// Nothing is left.
    End,
}

/// The call of the store that a merge needs next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    index: usize,
    pub(super) part: Part,
    pub(super) from: Option<Position>,
}

impl PartRead {
    /// The position of the part's next event, or one before it; `None` where the store has to say it, or nothing is
    /// left.
    fn head(&self) -> Option<Position> {
        self.waiting.front().map(Sealed::position).or(self.head)
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() && matches!(self.next, Next::End)
    }

    /// Forgets the waiting events, to read them anew when the answer comes to them. Returns their bytes.
    fn drop_waiting(&mut self) -> usize {
        let Some(first) = self.waiting.front() else { return 0 };
        self.head = Some(first.position());
        self.next = Next::From(self.before);
        self.waiting.drain(..).map(|sealed| sealed.byte_len()).sum()
    }
}

impl Merge {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        let begin =
            |part| PartRead { part, before: None, waiting: VecDeque::new(), head: None, next: Next::From(None) };
        Self { parts: parts.into_iter().map(begin).collect(), waiting_bytes: 0, given: None, waited: Duration::ZERO }
    }

    /// Number of parts.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes of the events that wait.
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Returns whether every event was given.
    pub(super) fn is_done(&self) -> bool {
        self.parts.iter().all(PartRead::is_done)
    }

    /// The part that has to be read before more events can be given.
    pub(super) fn fill(&mut self) -> Option<Fill> {
        self.waited += self.given.take().map_or(Duration::ZERO, |given| given.elapsed());
        if self.waited > WAITING_MAX {
            self.waited = Duration::ZERO;
            let dropped: usize = self.parts.iter_mut().map(PartRead::drop_waiting).sum();
            self.waiting_bytes -= dropped;
        }
        let silent = self.parts.iter().position(|part| part.head().is_none() && !part.is_done());
        let first = || {
            (0..self.parts.len())
                .filter(|index| !self.parts[*index].is_done())
                .min_by_key(|index| self.parts[*index].head())
        };
        let index = silent.or_else(first)?;
        let part = self.parts.get(index).filter(|part| part.waiting.is_empty())?;
        match part.next {
            Next::From(from) => Some(Fill { index, part: part.part, from }),
            Next::End => None,
        }
    }

    /// Takes the page that a call gave.
    pub(super) fn take(&mut self, fill: Fill, page: Page) {
        let Some(part) = self.parts.get_mut(fill.index) else { return };
        part.before = fill.from;
        part.head = None;
        part.next = page.next.map_or(Next::End, |next| Next::From(Some(next)));
        self.waiting_bytes += page.events.iter().map(Sealed::byte_len).sum::<usize>();
        part.waiting = page.events.into();
        while self.waiting_bytes > WAITING_BYTES_MAX && self.drop_farthest() {}
    }

    /// Forgets the events of the part whose next event comes last; `false` where one part alone has events.
    fn drop_farthest(&mut self) -> bool {
        let full = self.parts.iter_mut().filter(|part| !part.waiting.is_empty());
        let mut full: Vec<&mut PartRead> = full.collect();
        if full.len() < 2 {
            return false;
        }
        full.sort_unstable_by_key(|part| part.head());
        if let Some(farthest) = full.pop() {
            self.waiting_bytes -= farthest.drop_waiting();
        }
        true
    }

    /// The next events in order, each once, as far as the parts that were read tell.
    pub(super) fn give(&mut self) -> Vec<Sealed> {
        if let [part] = &mut self.parts[..] {
            self.waiting_bytes = 0;
            return std::mem::take(&mut part.waiting).into();
        }
        let (mut given, mut bytes) = (Vec::new(), 0);
        while given.len() < GIVEN_EVENTS_MAX && bytes < GIVEN_BYTES_MAX {
            let is_silent = self.parts.iter().any(|part| part.head().is_none() && !part.is_done());
            let next = self.parts.iter().filter_map(PartRead::head).min().filter(|_| !is_silent);
            let Some(next) = next else { break };
            let mut taken = None;
            for part in &mut self.parts {
                if part.waiting.front().map(Sealed::position) == Some(next) {
                    taken = part.waiting.pop_front();
                    part.before = Some(next);
                    self.waiting_bytes -= taken.as_ref().map_or(0, Sealed::byte_len);
                }
            }
            // The first event is in a part whose events were dropped.
            let Some(taken) = taken else { break };
            // The same event may stand first in such a part, too. That part goes on behind it.
            for part in self.parts.iter_mut().filter(|part| part.waiting.is_empty() && part.head == Some(next)) {
                part.before = Some(next);
                part.next = Next::From(part.before);
                part.head = None;
            }
            bytes += taken.byte_len();
            given.push(taken);
        }
        self.given = (!given.is_empty()).then(Instant::now);
        given
    }
}

#[cfg(test)]
mod tests {
    use nostr_extensions::{Stamp, admit::NEVER};
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    fn event(at: u64) -> Sealed {
        let event = EventBuilder::new(1).at(at).event(&keypair("alice"));
        Sealed::new(event, Stamp { cursor: at, received_at: at, expires_at: NEVER, author_only: false })
    }

    fn page(events: &[&Sealed]) -> Page {
        Page { events: events.iter().map(|sealed| (*sealed).clone()).collect(), ..Page::default() }
    }

    /// A part whose waiting events were dropped goes on behind an event that another part gave.
    #[test]
    fn an_event_of_two_parts_is_given_once_after_one_was_dropped() {
        let (shared, left, right) = (event(3), event(2), event(1));
        let mut merge = Merge::new(vec![Part::WHOLE; 2]);
        for own in [&left, &right] {
            let fill = merge.fill().expect("a part has not been read");
            merge.take(fill, page(&[&shared, own]));
        }
        merge.waiting_bytes -= merge.parts[1].drop_waiting();
        let given = merge.give();
        assert_eq!(given.iter().map(Sealed::cursor).collect::<Vec<_>>(), [3]);
        let fill = merge.fill().expect("the part that was dropped is read anew");
        assert_eq!((fill.index, fill.from), (1, Some(shared.position())));
        merge.take(fill, page(&[&right]));
        assert_eq!(merge.give().iter().map(Sealed::cursor).collect::<Vec<_>>(), [2, 1]);
        assert!(merge.is_done());
    }
}
