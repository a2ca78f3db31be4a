//! Kind 445, MLS Group Message: for the members of its group, or, in an unlisted group, for each reader that names it.
//!
//! Source: MLS Gateway specification, "Supported Nostr Event Kinds" (445); docs/rules.md, "Groups" and "Unlisted
//! groups". The author is a throw-away key; the reader is the one that acts. A `p` grants and narrows nothing.

use nostr_protocol::{Event, Rejection, Rule, tag::name};

use super::{
    group::{GroupStatus, OrderedMessage, Refusal, SeenEpoch},
    mls,
};
use crate::{
    context::{Context, Verdict},
    effect::{Effect, LOG_SECS},
    kinds::{
        Budget, Deletable, GroupChange, Kept, KindCounter, KindRules, NonResidents, Owners, Publication, Readers, any,
    },
    policy::Policy,
    tags::{decimal, one_group, tag_secs},
};

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: any::changes_nothing,
    needs_group: true,
    non_residents: NonResidents::Checked,
    budget: Budget::GroupMessages,
    readers: Readers::Group { unlisted: true, admin_keys: false },
    changes: GroupChange::Nothing,
    kept: Kept::Archived,
    quota: None,
    may_expire: true,
    owners: Owners::Author,
    // A commit that some members have applied must reach the others.
    deletable: Deletable::Refused,
    // But for a commit, see `deletion::is_gone_by`.
    vanishes: true,
    counters: &[KindCounter::GroupsUpdated],
    in_nip11: true,
};

/// A managed group is open to its members, an unlisted one to every publisher.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    let group = one_group(event)?;
    let keys = cx.keys();
    // A group that is not managed gets the same words as a group that the reader is no member of.
    let refusal = || Rejection::from(Refusal::no_member(keys));
    let unlisted = match cx.status(&group) {
        Some(GroupStatus::Managed(view)) => {
            if !keys.iter().any(|key| view.members.contains_key(key)) {
                return Err(refusal());
            }
            false
        }
        Some(GroupStatus::Unknown | GroupStatus::Unlisted) => {
            if !(cx.policy.unlisted_groups && group.is_capability()) {
                return Err(refusal());
            }
            true
        }
        None => return Err(Rejection::error("the group's state is not known, try again").under(Rule("Groups", 5))),
    };
    // Only a managed group has a registry and an order of commits, so only there is the header worth reading.
    let header = if unlisted { None } else { mls::header_of_content(&event.content()) };
    let epoch = match &header {
        _ if unlisted => SeenEpoch::Nowhere,
        Some(header) => SeenEpoch::Header(header.epoch),
        None => event.tags().value(name::K).and_then(decimal).map_or(SeenEpoch::Nowhere, SeenEpoch::Tag),
    };
    let Policy { commit_ordering, commit_grace_secs, .. } = *cx.policy;
    let expires_at = cx.archived(LOG_SECS);
    let ends_early = tag_secs(event, name::EXPIRATION)?.is_some_and(|end| end < expires_at);
    let order = header.and_then(|header| {
        let order = OrderedMessage::new(&header, epochs_in_tags(event), commit_ordering, commit_grace_secs)?;
        Some(OrderedMessage { ends_early, ..order })
    });
    let effect = Effect::GroupMessage { group, keys: keys.to_vec(), unlisted, epoch, order };
    Ok(Verdict { expires_at, effect })
}

/// The epochs that `k` tags say, on the sender's word.
fn epochs_in_tags(event: &Event) -> impl Iterator<Item = u64> {
    event.tags().values(name::K).filter_map(decimal)
}
