//! Kind 446, Noise Direct Message: for its recipient alone.
//!
//! Source: MLS Gateway specification, "Supported Nostr Event Kinds" (446); decisions, "Who may publish, who may read".

use nostr_protocol::{Event, Rejection, tag::name};

use crate::admit::{Context, Effect, Persistence, Verdict, one_recipient};

/// How long a message stays in the short-lived log when the archive is off, in seconds.
pub const LOG_SECS: u64 = 120;

/// Anyone who may write publishes; the shape is one `p`, and `["v","noise.1"]`.
pub(crate) fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    one_recipient(event)?;
    if event.tags().value(name::VERSION) != Some("noise.1") {
        return Err(Rejection::invalid("kind 446 carries [\"v\",\"noise.1\"]"));
    }
    let persistence = if cx.policy.archive_secs.is_some() { Persistence::Stored } else { Persistence::LogOnly };
    Ok(Verdict { expires_at: cx.archived(LOG_SECS), persistence, effect: Effect::None })
}
