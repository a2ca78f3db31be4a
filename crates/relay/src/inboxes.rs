//! Inboxes that ask strangers for a proof: the operator asks for all, and an owner for its own.
//!
//! Source: docs/rules.md, "Strangers" 3 and 4. An owner asks by tags of its list of relays for direct messages (10050),
//! as it is stored here. The sender of a gift wrap pays for the look at the list.

use nostr_extensions::{
    AskedProof, Asker, Group, NostrGroupId, Query, Reader, Scope, audience,
    kinds::{Budget, rules},
    strangers::INBOX_LIST,
};
use nostr_protocol::{Event, Filter, PublicKey, Rejection};
use nostr_store::{Cost, Cursor, PageBounds, Part};
use quick_cache::sync::Cache;

use crate::{
    app::App,
    error::read_failed,
    session::{Caller, archive::Meter},
};

/// Most inboxes of which it is remembered what their owners ask for.
const INBOXES_MAX: usize = 65_536;
/// Time for which that is remembered, in milliseconds.
const ASKED_STANDS_MS: u64 = 60_000;
/// Units of the look whether an owner knows a sender, for their groups.
const KNOWN_UNITS: u64 = 64;
/// Most groups of a recipient, and most of a sender, that are compared to find a common one.
const COMMON_GROUPS_MAX: usize = 1_000;

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
    /// Refuses a gift wrap of `reader` to an inbox that asks for a proof, if the wrap brings none and the owner knows
    /// no key of the reader. `caller` pays.
    ///
    /// # Errors
    /// The [`Rejection`] for the client.
    pub(crate) async fn require_proof(
        &self,
        caller: &Caller,
        reader: &Reader,
        event: &Event,
        group: Option<&Group>,
    ) -> Result<(), Rejection> {
        if rules(event.kind()).budget != Budget::GiftWraps {
            return Ok(());
        }
        let app = &caller.app;
        let policy = app.policy().clone();
        let strangers = &policy.strangers;
        if strangers.inbox.is_nothing() && !strangers.owners_ask {
            return Ok(());
        }
        for recipient in audience::recipients(event.view()) {
            if reader.keys().iter().any(|key| *key == recipient || policy.is_named(key)) {
                continue;
            }
            let mut asked = strangers.inbox;
            if strangers.owners_ask {
                asked = asked.and(self.asked_by(caller, &recipient).await?);
            }
            let proven = policy.require_inbox_proof(event, &recipient, asked, reader, app.clock.now());
            if let Err(refusal) = proven {
                let mut meter = Meter::new(caller);
                meter.may_go_on()?;
                meter.charge(Cost::of_units(KNOWN_UNITS));
                if !is_known(app, reader, group, &recipient).await {
                    return Err(refusal);
                }
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

/// Returns whether `recipient` knows a key of the reader: it has written to that key, or both are members of one group.
pub(crate) async fn is_known(app: &App, reader: &Reader, group: Option<&Group>, recipient: &PublicKey) -> bool {
    let keys = reader.keys();
    let both = |group: &Group| group.has_member(keys) && group.has_member(&[*recipient]);
    if keys.iter().any(|key| app.limits.has_written(recipient, key)) || group.is_some_and(both) {
        return true;
    }
    if keys.is_empty() {
        return false;
    }
    let groups_of = async |keys: &[PublicKey]| match app.store.groups_of(keys).await {
        Ok(groups) => groups.into_iter().take(COMMON_GROUPS_MAX).collect::<Vec<NostrGroupId>>(),
        // A sender that cannot be recognised now counts as a stranger.
        Err(_) => Vec::new(),
    };
    let theirs: std::collections::HashSet<_> = groups_of(&[*recipient]).await.into_iter().collect();
    !theirs.is_empty() && groups_of(keys).await.iter().any(|group| theirs.contains(group))
}
