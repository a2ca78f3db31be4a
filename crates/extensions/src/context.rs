//! Question and answer of admission: the [`Context`] that the check of a kind is given, and its [`Verdict`].

use nostr_protocol::{Event, PublicKey, Rejection, Rule, UnixSecs, auth::RelayNames, mutation};

use crate::{
    effect::Effect,
    mls_gateway::group::{Group, GroupStatus, NostrGroupId},
    policy::Policy,
    reader::Reader,
};

/// The reader that publishes, and the names of this relay on its connection.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// The reader of the connection.
    pub reader: &'a Reader,
    /// How this connection may name the relay, for NIP-62.
    pub names: &'a RelayNames,
}

/// Answer of a kind's own check. How the event is kept is no part of it: [`KindRules::kept`] says that for the kind.
///
/// [`KindRules::kept`]: crate::kinds::KindRules::kept
pub(crate) struct Verdict {
    /// End of the event by the kind's own rules; an `expiration` tag may set an earlier one.
    pub(crate) expires_at: UnixSecs,
    /// The change that storing it makes.
    pub(crate) effect: Effect,
}

/// Question to a kind's own check, beside the event.
pub(crate) struct Context<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) publisher: Publisher<'a>,
    /// State of the group that the event names, for kinds whose admission needs one.
    pub(crate) group: Option<&'a Group>,
    pub(crate) now: UnixSecs,
}

impl Context<'_> {
    /// Refuses an event that must come from its owner. The signature is proof enough, unless `auth.enabled` asks for
    /// the key on this connection.
    pub(crate) fn require_owner(&self, event: &Event) -> Result<(), Rejection> {
        if self.policy.auth_required { self.require_author_here(event) } else { Ok(()) }
    }

    /// Refuses an event whose author is none of the reader's keys.
    pub(crate) fn require_author_here(&self, event: &Event) -> Result<(), Rejection> {
        let reader = self.publisher.reader;
        let refusal = if reader.has(&event.pubkey()) || mutation!("admit-author") {
            return Ok(());
        } else if reader.is_anonymous() {
            Rejection::auth_required("this event is taken from its author alone; AUTH with the key that signed it")
        } else {
            Rejection::restricted("this event is taken from its author alone; AUTH with the key that signed it too")
        };
        Err(refusal.under(Rule("Identity", 2)))
    }

    /// Refuses an event of no resident: neither the author nor a key of the reader is one.
    pub(crate) fn require_resident(&self, event: &Event) -> Result<(), Rejection> {
        let (policy, reader) = (self.policy, self.publisher.reader);
        let refusal = if policy.is_resident(&event.pubkey()) || reader.keys().iter().any(|key| policy.is_resident(key))
        {
            return Ok(());
        } else if reader.is_anonymous() {
            Rejection::auth_required("this relay takes events of its residents; AUTH with a resident's key")
        } else {
            Rejection::restricted("this relay takes events of its residents; ask its operator to be listed")
        };
        Err(refusal.under(Rule("Identity", 11)))
    }

    /// Whether a key may found groups: a resident, and one that the operator invited.
    pub(crate) fn may_found(&self, event: &Event, founder: &PublicKey) -> bool {
        self.policy.is_resident(founder) || self.policy.invites_founder(event, founder, self.now)
    }

    /// See [`Policy::require_founding_proof`].
    pub(crate) fn require_founding_proof(&self, event: &Event, founder: &PublicKey) -> Result<(), Rejection> {
        self.policy.require_founding_proof(event, founder, self.publisher.reader, self.now)
    }

    /// Status of the group `id`; `None` where the caller has given no state, or another group's.
    pub(crate) fn status(&self, id: &NostrGroupId) -> Option<&GroupStatus> {
        self.group.filter(|group| group.id == *id).map(|group| &group.status)
    }

    /// End of an event in the archive; `off_secs` from now where the archive is off.
    pub(crate) fn archived(&self, off_secs: u64) -> UnixSecs {
        self.now.saturating_add(self.policy.archive_secs.unwrap_or(off_secs))
    }

    /// The reader's keys.
    pub(crate) fn keys(&self) -> &[PublicKey] {
        self.publisher.reader.keys()
    }
}
