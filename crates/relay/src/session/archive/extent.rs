//! The extent of the answer to one filter: how many events it gives, and how far it is read beyond them.
//!
//! Source: docs/rules.md, "Completeness of answers"; NIP-67. A client pages by `until`, in seconds. An answer that ends
//! within a second by the relay's own bound would leave events that no page gives, so the rest of the second is given
//! too. Behind the last event the read goes on to the next one, which tells whether the answer is complete. A request
//! has an allowance for both, so that they make no request fail that would not fail without them.

use crate::system::random;

/// Most events that a request is given as the rest of a second, beyond the relay's own bound.
const SECOND_EVENTS_MAX: u64 = 2_000;
/// Part of `max_query_cost` that a request spends beyond the limits of its filters, as one part in so many; the last
/// page may exceed it.
const BEYOND_PARTS: u64 = 50;
/// Most units that a filter spends on the event behind its answer, which the last page may exceed.
const PROBE_UNITS_MAX: u64 = 2_000;
/// Each bound on units is lowered by less than this part of it, by chance: the place where a read ends tells nothing of
/// the events that its reader may not see.
const BLUR_PART: u64 = 16;

/// The work that is left to a request beyond the limits of its filters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    events: u64,
    units: u64,
}

impl Allowance {
    /// The allowance of a request that costs at most `query_cost_max`.
    pub(super) fn new(query_cost_max: u64) -> Self {
        Self { events: SECOND_EVENTS_MAX, units: blurred(query_cost_max / BEYOND_PARTS) }
    }
}

fn blurred(units: u64) -> u64 {
    units - random::below(units / BLUR_PART)
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    stage: Stage,
    /// Most events beyond the relay's own bound that the client's `limit` leaves room for.
    beyond_max: u64,
    /// Whether the read goes on beyond the limit.
    goes_on: bool,
    probe_units: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// So many events are left up to the limit.
    Within(u64),
    /// The relay's own bound was reached: the events of this time follow, at most so many.
    Second { at: u64, left: u64 },
    /// The event behind the answer is looked for.
    Probe,
    /// Nothing more is read.
    Over,
}

/// The place of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// In the answer.
    Give,
    /// Behind the answer: it is not complete.
    Beyond,
    /// Behind an answer that does not look further.
    End,
}

impl Extent {
    /// The extent of a filter that gives `capped` events, where the client asked for `asked` of them, if it said so.
    pub(super) fn new(capped: u64, asked: Option<u64>, goes_on: bool) -> Self {
        let beyond_max = asked.unwrap_or(u64::MAX).saturating_sub(capped);
        let stage = if capped == 0 { Stage::Over } else { Stage::Within(capped) };
        let probe_units = if goes_on { blurred(PROBE_UNITS_MAX) } else { 0 };
        Self { stage, beyond_max, goes_on, probe_units }
    }

    /// Takes the next event in order, of this time.
    pub(super) fn next(&mut self, at: u64, allowance: &mut Allowance) -> Next {
        let (stage, next) = match self.stage {
            Stage::Within(left @ 2..) => (Stage::Within(left - 1), Next::Give),
            Stage::Within(_) if !self.goes_on => (Stage::Over, Next::Give),
            Stage::Within(_) if self.beyond_max > 0 => (Stage::Second { at, left: self.beyond_max }, Next::Give),
            Stage::Within(_) => (Stage::Probe, Next::Give),
            Stage::Second { at: second, left: left @ 1.. } if at == second && allowance.events > 0 => {
                allowance.events -= 1;
                (Stage::Second { at: second, left: left - 1 }, Next::Give)
            }
            Stage::Second { .. } | Stage::Probe => (Stage::Over, Next::Beyond),
            Stage::Over => (Stage::Over, Next::End),
        };
        self.stage = stage;
        next
    }

    /// Takes the units of a page from the allowance, if it was read beyond the limit, and ends the read at its bound.
    pub(super) fn note_spent(&mut self, units: u64, allowance: &mut Allowance) {
        if !self.is_reached() {
            return;
        }
        allowance.units = allowance.units.saturating_sub(units);
        if self.is_probe() {
            self.probe_units = self.probe_units.saturating_sub(units);
        }
        self.stage = match self.stage {
            _ if allowance.units == 0 || self.probe_units == 0 => Stage::Over,
            stage => stage,
        };
    }

    /// Whether nothing more is read.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Whether the limit was reached: the client has got the events that it is due.
    pub(super) const fn is_reached(&self) -> bool {
        !matches!(self.stage, Stage::Within(_))
    }

    /// Whether one event more is enough.
    pub(super) const fn is_probe(&self) -> bool {
        matches!(self.stage, Stage::Probe)
    }

    /// Number of events that are left to read, with the one that tells whether the answer is complete.
    pub(super) const fn left(&self) -> u64 {
        match self.stage {
            Stage::Within(left) | Stage::Second { left, .. } => left.saturating_add(self.goes_on as u64),
            Stage::Probe => 1,
            Stage::Over => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY_COST_MAX: u64 = 1_000_000;

    /// The number of events that are given, and the place of the first that is not.
    fn given(mut extent: Extent, times: impl IntoIterator<Item = u64>) -> (usize, Option<Next>) {
        let (mut given, mut allowance) = (0, Allowance::new(QUERY_COST_MAX));
        for at in times {
            match extent.next(at, &mut allowance) {
                Next::Give => given += 1,
                other => return (given, Some(other)),
            }
        }
        (given, None)
    }

    #[test]
    fn the_rest_of_a_second_follows_where_the_relays_own_bound_ends_the_answer() {
        let many = || std::iter::repeat_n(7, 5_000);
        assert_eq!(given(Extent::new(500, None, true), many().take(620).chain([6])), (620, Some(Next::Beyond)));
        assert_eq!(given(Extent::new(500, Some(560), true), many()), (560, Some(Next::Beyond)), "its own limit");
        assert_eq!(given(Extent::new(500, Some(500), true), many()), (500, Some(Next::Beyond)));
        assert_eq!(given(Extent::new(20, Some(20), true), many()), (20, Some(Next::Beyond)));
        assert_eq!(given(Extent::new(500, None, true), many()), (2_500, Some(Next::Beyond)), "the bound");
        assert_eq!(given(Extent::new(500, None, false), many()), (500, Some(Next::End)), "COUNT and NIP-77");
        assert_eq!(given(Extent::new(0, Some(0), true), many()), (0, Some(Next::End)));
        assert_eq!(given(Extent::new(u64::MAX, None, false), many()), (5_000, None));
    }

    #[test]
    fn the_filters_of_a_request_share_one_allowance() {
        let (mut given, mut allowance) = (0, Allowance::new(QUERY_COST_MAX));
        for _ in 0..100 {
            let mut extent = Extent::new(1, None, true);
            given += (0..500).filter(|_| extent.next(7, &mut allowance) == Next::Give).count() as u64;
        }
        assert_eq!(given, 100 + SECOND_EVENTS_MAX);
    }

    #[test]
    fn a_read_beyond_the_limit_spends_a_bounded_number_of_units() {
        for (asked, bound) in [(None, QUERY_COST_MAX / BEYOND_PARTS), (Some(1), PROBE_UNITS_MAX)] {
            let (mut extent, mut allowance) = (Extent::new(1, asked, true), Allowance::new(QUERY_COST_MAX));
            extent.note_spent(900_000, &mut allowance);
            extent.next(7, &mut allowance);
            extent.note_spent(bound - bound / BLUR_PART - 1, &mut allowance);
            assert!(!extent.is_over() && extent.is_reached(), "what was spent up to the limit does not count");
            extent.note_spent(1 + bound / BLUR_PART, &mut allowance);
            assert!(extent.is_over());
        }
    }
}
