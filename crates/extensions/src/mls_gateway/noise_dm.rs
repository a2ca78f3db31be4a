//! Kind 446, Noise Direct Message: for its recipient alone.
//!
//! Source: MLS Gateway specification, "Supported Nostr Event Kinds" (446); docs/rules.md, "Archive".

use nostr_protocol::{Event, Rejection, tag::name};

use crate::{
    admit::PUBLISHED_BY,
    context::{Context, Verdict},
    effect::{Effect, LOG_SECS},
    kinds::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Readers, any},
    tags::one_recipient,
};

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: any::changes_nothing,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::Recipients,
    changes: GroupChange::Nothing,
    kept: Kept::Archived,
    quota: None,
    may_expire: true,
    owners: Owners::AuthorAndRecipients,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: true,
};

/// Open to every publisher; the shape is one `p`, and `["v","noise.1"]`.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    one_recipient(event)?;
    if event.tags().value(name::VERSION) != Some("noise.1") {
        return Err(Rejection::invalid("kind 446 carries [\"v\",\"noise.1\"]").under(PUBLISHED_BY));
    }
    Ok(Verdict { expires_at: cx.archived(LOG_SECS), effect: Effect::None })
}
