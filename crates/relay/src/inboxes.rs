//! Inboxes that ask strangers for a proof: the operator asks for all, and an owner for its own.
//!
//! Source: docs/rules.md, "Strangers" 3 and 4. An owner asks by tags of its list of relays for direct messages (10050),
//! as it is stored here. The sender of a gift wrap pays for the look at the list.

use nostr_extensions::{
    AskedProof, Asker, Publisher, Query, Reader, Scope, admit, audience,
    kinds::{Budget, rules},
    strangers::INBOX_LIST,
};
use nostr_protocol::{Event, Filter, PublicKey, Rejection};
use nostr_store::{Cursor, PageBounds, Part};
use quick_cache::sync::Cache;

use crate::{
    error::read_failed,
    session::{Caller, archive::Meter},
};

/// Most inboxes of which it is remembered what their owners ask for.
const INBOXES_MAX: usize = 65_536;
/// Time for which that is remembered, in milliseconds.
const ASKED_STANDS_MS: u64 = 60_000;

/// See the module.
pub(crate) struct Inboxes {
    /// The proofs that an owner asks for, and the time at which it was looked up, in milliseconds.
    asked: Cache<PublicKey, (AskedProof, u64)>,
}

impl Default for Inboxes {
    fn default() -> Self {
        Self { asked: Cache::new(INBOXES_MAX) }
    }
}

impl Inboxes {
    /// Refuses a gift wrap to an inbox that asks for a proof, if the wrap brings none and the owner knows no key of the
    /// publishing reader. `caller` pays.
    ///
    /// The state of the group that the wrap names plays no part, and the rules about that group come after: an owner
    /// that asks for a proof that nobody has would otherwise learn for nothing whether a group exists.
    ///
    /// # Errors
    /// The [`Rejection`] for the client.
    pub(crate) async fn require_proof(
        &self,
        caller: &Caller,
        publisher: Publisher<'_>,
        event: &Event,
    ) -> Result<(), Rejection> {
        if rules(event.kind()).budget != Budget::GiftWraps {
            return Ok(());
        }
        let reader = publisher.reader;
        let app = &caller.app;
        let policy = app.policy().clone();
        let strangers = &policy.strangers;
        if strangers.inbox.is_nothing() && !strangers.owners_ask {
            return Ok(());
        }
        // Admission refuses a wrap of any other number of recipients by its form, whatever its group is.
        if let [recipient] = audience::recipients(event.view())[..] {
            // Work is of no use to a sender from which the relay takes nothing.
            admit::check_sender(event, publisher, &policy, app.clock.now())?;
            if reader.keys().iter().any(|key| *key == recipient || policy.is_named(key)) {
                return Ok(());
            }
            let mut asked = strangers.inbox;
            if strangers.owners_ask {
                asked = asked.and(self.asked_by(caller, &recipient).await?);
            }
            let proven = policy.require_inbox_proof(event, &recipient, asked, reader, app.clock.now());
            if let Err(refusal) = proven
                && !is_known(caller, reader, &recipient).await?
            {
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// The proofs that the owner of an inbox asks for.
    async fn asked_by(&self, caller: &Caller, owner: &PublicKey) -> Result<AskedProof, Rejection> {
        let app = &caller.app;
        let now_ms = app.clock.now_ms();
        if let Some((asked, at_ms)) = self.asked.get(owner)
            && now_ms.saturating_sub(at_ms) < ASKED_STANDS_MS
        {
            return Ok(asked);
        }
        let mut meter = Meter::new(caller);
        meter.may_go_on()?;
        let filter = Filter { kinds: Some(vec![INBOX_LIST]), authors: Some(vec![*owner]), ..Filter::default() };
        let query = Query { filter: filter.clone(), scope: Scope { everyone: true, ..Scope::default() } };
        let bounds = PageBounds { part: Part::WHOLE, events_max: 1, bytes_max: 1, entries_max: 1 };
        let turn = meter.turn_at_store().await;
        let page = app.store.scan(&query, None, Cursor::MAX, bounds, app.clock.now()).await;
        drop(turn);
        let page = page.map_err(read_failed)?;
        meter.charge(page.cost);
        let owner_reads = Reader::new(&[*owner]);
        let asker = Asker::new(&owner_reads, &filter);
        let list = page.events.first().and_then(|list| app.gate.release(list, asker, None, app.clock.now()));
        let asked = list.map_or_else(AskedProof::default, |list| AskedProof::of_inbox_list(list.event()));
        self.asked.insert(*owner, (asked, now_ms));
        Ok(asked)
    }
}

/// Returns whether `recipient` knows a key of the reader: it has written to that key, or has acted in a group of which
/// that key is a member. `caller` pays for each look at the groups of a key.
///
/// # Errors
/// `rate-limited:` where the caller has read too much, and `error:` where the store does not answer.
pub(crate) async fn is_known(caller: &Caller, reader: &Reader, recipient: &PublicKey) -> Result<bool, Rejection> {
    let keys = reader.keys();
    if keys.iter().any(|key| caller.app.limits.has_written(recipient, key)) {
        return Ok(true);
    }
    let mut meter = Meter::new(caller);
    for key in keys {
        if meter.finds_common_group(recipient, key).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
