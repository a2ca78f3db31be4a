//! Kinds 1059 and 21059, Gift Wrap: an envelope for one recipient, which may carry a Welcome (444).
//!
//! Source: NIP-59; MLS Gateway specification, "Supported Nostr Event Kinds" (1059); decisions, "Groups" 3. What a wrap
//! with an `h` does to the group is in [`super::group::apply_wrap`].

use nostr_protocol::{Event, Kind, PublicKey, Rejection};

use super::group::{NostrGroupId, Source, WrapChange};
use crate::admit::{Context, Effect, NEVER, Persistence, Verdict, one_recipient, optional_group};

/// Anyone who may write publishes; the shape is one `p` and at most one `h`.
pub(crate) fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    let recipient = one_recipient(event)?;
    let group = optional_group(event)?;
    if event.kind() == Kind::EPHEMERAL_GIFT_WRAP {
        return Ok(Verdict { expires_at: NEVER, persistence: Persistence::Ephemeral, effect: Effect::None });
    }
    let effect = match group {
        Some(group) if cx.policy.sources.contains(&Source::GiftWrap) && !cx.publisher.reader.is_anonymous() => {
            Effect::Wrap(WrapChange {
                founder: founder(event, &group, cx),
                publishers: cx.publisher.reader.keys().to_vec(),
                group,
                recipient,
            })
        }
        _ => Effect::None,
    };
    Ok(Verdict::stored(cx.archived(cx.policy.welcome_ttl_secs), effect))
}

/// Who would be the admin of a group that this wrap founds: the author where it is authenticated, else the primary key.
fn founder(event: &Event, group: &NostrGroupId, cx: &Context<'_>) -> Option<PublicKey> {
    if cx.policy.unlisted_groups && group.is_capability() {
        return None;
    }
    let author = event.pubkey();
    let reader = cx.publisher.reader;
    let founder = if reader.has(&author) { author } else { reader.primary()? };
    cx.policy.is_resident(&founder).then_some(founder)
}
