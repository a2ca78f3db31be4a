//! Kind 62, Request to Vanish: a key takes back all that it published, and leaves its groups.
//!
//! Source: NIP-62; docs/rules.md, "Deletion".

use nostr_protocol::{Event, Rejection, Rule, tag::name};

use crate::{
    context::{Context, Verdict},
    effect::{Effect, NEVER},
    kinds::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Quota, Readers},
};

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: |_| Ok(Effect::Vanish),
    needs_group: false,
    // A key that is no resident any more may still take back its own.
    non_residents: NonResidents::Checked,
    budget: Budget::Events,
    readers: Readers::Everyone,
    changes: GroupChange::EveryGroup,
    kept: Kept::Stored,
    quota: Some(Quota::Vanishing),
    may_expire: false,
    owners: Owners::Author,
    // A deletion of a request to vanish has no effect, and the request outlives the key's other events (NIP-62).
    deletable: Deletable::NoEffect,
    vanishes: false,
    counters: &[],
    in_nip11: false,
};

/// Its author publishes it, and names this relay or all relays.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_owner(event)?;
    let mut answer = Err(Rejection::invalid("kind 62 names the relay in a relay tag, or ALL_RELAYS"));
    for relay in event.tags().values(name::RELAY) {
        answer = if relay == "ALL_RELAYS" { Ok(()) } else { cx.publisher.names.check(relay) };
        if answer.is_ok() {
            break;
        }
    }
    answer.map_err(|refusal| refusal.under(Rule("Deletion", 7)))?;
    Ok(Verdict { expires_at: NEVER, effect: Effect::Vanish })
}
