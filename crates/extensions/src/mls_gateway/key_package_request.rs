//! Kind 447, KeyPackage Request: a relay or an admin asks a key for fresh KeyPackages.
//!
//! Source: MLS Gateway specification, "KeyPackage Request (Kind 447)"; decisions, "Who may publish, who may read".

use nostr_protocol::{Event, Rejection, tag::name};

use crate::admit::{Context, Effect, Verdict, decimal, one_recipient, optional_group};

/// Longest life of a request, whatever is configured.
const TTL_SECS_MAX: u64 = 7 * 86_400;

/// The system key or an admin key publishes, on a connection that has authenticated it.
pub(crate) fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_author_here(event)?;
    let author = event.pubkey();
    if !cx.policy.is_admin(&author) && cx.policy.system_key != Some(author) {
        return Err(Rejection::restricted("kind 447 is published by this relay's system key and its admin keys alone"));
    }
    one_recipient(event)?;
    optional_group(event)?;
    let longest = cx.policy.keypackage_request_ttl_secs.min(TTL_SECS_MAX);
    let ttl = match event.tags().named(name::TTL).next() {
        None => longest,
        Some(tag) => tag
            .value()
            .and_then(decimal)
            .filter(|ttl| *ttl > 0)
            .ok_or_else(|| Rejection::invalid("the ttl tag is a whole number of seconds above 0"))?
            .min(longest),
    };
    Ok(Verdict::stored(cx.now.saturating_add(ttl), Effect::None))
}
