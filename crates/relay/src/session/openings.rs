//! The groups that a request's answer depends on, which COUNT and NIP-77 ask for again before each answer.

use std::collections::HashMap;

use nostr_extensions::{Asker, Group, NostrGroupId, Opening, Reader, Released};
use nostr_protocol::Filter;

use super::{
    Caller,
    archive::{Meter, ReadError},
    settling,
};
use crate::{app::App, rate_limit::Cause};

/// Memory that an opening takes beside the group's id, in bytes, approximately.
const OPENING_BYTES: usize = 192;

/// The openings of the events that a request was given, one for each group and kind.
///
/// Memberships, `#h` values and ids bound their number: no reader holds an opening of a group that none of these opens.
#[derive(Default)]
pub(super) struct Openings {
    by_group: HashMap<NostrGroupId, Vec<Opening>>,
    bytes: usize,
}

impl Openings {
    /// Keeps the openings of a page's events.
    pub(super) fn note(&mut self, app: &App, reader: &Reader, page: &[Released]) {
        for opening in page.iter().filter_map(|released| app.gate.opening(released, reader)) {
            let known = self.by_group.entry(opening.group().clone()).or_default();
            if known.iter().all(|it| it.kind() != opening.kind()) {
                self.bytes += OPENING_BYTES + opening.group().as_str().len();
                known.push(opening);
            }
        }
    }

    /// Memory that the openings take, in bytes, approximately.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether every opening still holds, by states that know every change that any process acknowledged before
    /// this call.
    ///
    /// # Errors
    /// `error:` where a state cannot be read, `rate-limited:` where the payer has asked too much. The caller then
    /// answers with nothing that it read.
    pub(super) async fn hold(&self, caller: &Caller, filters: &[Filter]) -> Result<bool, ReadError> {
        let (app, reader) = (&caller.app, &caller.reader);
        if self.by_group.is_empty() {
            return Ok(true);
        }
        app.delivery.fresh().await.map_err(|_| ReadError::NotCurrent)?;
        let groups: Vec<NostrGroupId> = self.by_group.keys().cloned().collect();
        let is_named = filters.iter().any(|filter| settling::cause_of(filter) == Cause::Named);
        let cause = if is_named { Cause::Named } else { Cause::Acted };
        let settled = settling::for_ids(caller, &Meter::new(caller), &groups, |_| cause).await?;
        if !settled.of_request(cause)?.is_empty() {
            return Ok(false);
        }
        let holds = |state: &Group, opening: &Opening| {
            filters.iter().any(|filter| app.gate.holds(opening, state, Asker::new(reader, filter)))
        };
        let all_hold = |state: &Group| {
            self.by_group.get(&state.id).is_some_and(|openings| openings.iter().all(|opening| holds(state, opening)))
        };
        Ok(app.groups.all(&groups, all_hold).await?)
    }
}
