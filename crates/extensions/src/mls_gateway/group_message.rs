//! Kind 445, MLS Group Message: for the members of its group, or, of an unlisted group, for whoever names it.
//!
//! Source: MLS Gateway specification, "Supported Nostr Event Kinds" (445); decisions, "Groups" 6. The author is a
//! throw-away key; who acts is the reader. A `p` grants and narrows nothing.

use nostr_protocol::{Event, Rejection, tag::name};

use super::{
    group::{GroupStatus, Refusal, SeenEpoch},
    mls,
    noise_dm::LOG_SECS,
};
use crate::admit::{Context, Effect, Persistence, Verdict, decimal, one_group};

/// A member publishes to a managed group; anyone who may write to an unlisted one.
pub(crate) fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    let group = one_group(event)?;
    let state = cx.group.filter(|state| state.id == group).map(|state| &state.status);
    let keys = cx.publisher.reader.keys();
    let unlisted = match state {
        Some(GroupStatus::Managed(view)) => {
            if !keys.iter().any(|key| view.members.contains_key(key)) {
                return Err(refusal(cx));
            }
            false
        }
        Some(GroupStatus::Unknown | GroupStatus::Unlisted) => {
            if !(cx.policy.unlisted_groups && group.is_capability()) {
                return Err(refusal(cx));
            }
            true
        }
        None => return Err(Rejection::error("the group's state is not known, try again")),
    };
    // Only a managed group has a registry, so only there is the header worth reading.
    let epoch = if unlisted { SeenEpoch::Nowhere } else { epoch(event) };
    let persistence = if cx.policy.archive_secs.is_some() { Persistence::Stored } else { Persistence::LogOnly };
    let effect = Effect::GroupMessage { group, keys: keys.to_vec(), unlisted, epoch };
    Ok(Verdict { expires_at: cx.archived(LOG_SECS), persistence, effect })
}

/// The same words for a group that is not managed as for one whose member the reader is not.
fn refusal(cx: &Context<'_>) -> Rejection {
    Refusal::no_member(cx.publisher.reader.keys()).into()
}

fn epoch(event: &Event) -> SeenEpoch {
    if let Some(header) = mls::header_of_content(&event.content()) {
        return SeenEpoch::Header(header.epoch);
    }
    event.tags().value(name::K).and_then(decimal).map_or(SeenEpoch::Nowhere, SeenEpoch::Tag)
}
