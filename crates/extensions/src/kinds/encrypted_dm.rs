//! Kind 4, Encrypted Direct Message: for its author and its recipients.
//!
//! Source: NIP-04; docs/rules.md, "Quotas" 4.

use nostr_protocol::{Event, Rejection, Rule};

use super::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Quota, Readers, any};
use crate::context::{Context, Verdict};

pub(super) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: any::changes_nothing,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::AuthorAndRecipients,
    changes: GroupChange::Nothing,
    kept: Kept::Stored,
    quota: Some(Quota::DirectMessages),
    may_expire: true,
    owners: Owners::Author,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: false,
};

/// Open to every publisher, but messages that a quota bounds are taken from their author alone. A refusal for want of
/// room would tell another publisher how many messages are stored that it may not see.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    let (author, reader) = (event.pubkey(), cx.publisher.reader);
    if cx.policy.quota_for(&author, event.kind()).is_none() || reader.has(&author) {
        return any::admit(event, cx);
    }
    let text = "direct messages (kind 4) are taken from their author alone here; AUTH with the author's key";
    let refusal = if reader.is_anonymous() { Rejection::auth_required(text) } else { Rejection::restricted(text) };
    Err(refusal.under(Rule("Quotas", 4)))
}
