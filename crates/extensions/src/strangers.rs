//! Proofs that strangers bring: with a founding of a group, and with a gift wrap to an inbox that asks for one.
//!
//! Source: docs/rules.md, "Strangers"; NIP-13. Work is proven by the event's id, and an invitation is a signature over
//! the key that founds, or over the recipient: gift wraps come from throw-away keys.

use nostr_protocol::{
    Event, Kind, PublicKey, Rejection, Rule, UnixSecs,
    invitation::{Invitation, InvitedTo},
    pow::proven_bits,
    tag::name,
};

use crate::{policy::Policy, reader::Reader};

/// Kind of the list of relays for direct messages (NIP-17), in which the owner of an inbox asks for proofs.
pub const INBOX_LIST: Kind = Kind(10_050);
/// Highest difficulty that can be asked for, in bits: an id has no more.
pub const POW_BITS_MAX: u16 = 256;

const FOUNDING: Rule = Rule("Strangers", 1);
const INBOX: Rule = Rule("Strangers", 3);

/// The proofs that are asked for. One of them is enough, and none is needed where none is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedProof {
    /// Least difficulty in bits (NIP-13); 0 where no work is asked for.
    pub pow_bits: u16,
    /// Whether an invitation is asked for. One is enough in place of work, too.
    pub invitation: bool,
}

/// `[strangers]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrangerRules {
    /// Asked of a key that founds a group.
    pub founding: AskedProof,
    /// Asked of a sender of gift wraps to any inbox.
    pub inbox: AskedProof,
    /// Whether the owner of an inbox may ask for more, in its list of relays.
    pub owners_ask: bool,
    /// The keys that invite. The owner of an inbox invites into its own, too.
    pub inviters: Vec<PublicKey>,
}

impl AskedProof {
    /// Whether nothing is asked for.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.pow_bits == 0 && !self.invitation
    }

    /// The proofs that the owner of an inbox asks for by its list: tags `["pow","20"]` and `["invitation"]`.
    #[must_use]
    pub fn of_inbox_list(list: &Event) -> Self {
        let bits = list.tags().value(name::POW).and_then(|bits| bits.parse::<u16>().ok());
        let invitation = list.tags().named(name::INVITATION).next().is_some();
        Self { pow_bits: bits.unwrap_or(0).min(POW_BITS_MAX), invitation }
    }

    /// The proofs that are asked for where both parties ask: the greater work, and an invitation if one of them does.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { pow_bits: self.pow_bits.max(other.pow_bits), invitation: self.invitation || other.invitation }
    }

    /// Refuses an event without a proof. `invited` looks for an invitation, which costs a signature's check.
    fn require(self, event: &Event, reader: &Reader, invited: impl FnOnce() -> bool) -> Result<(), Rejection> {
        let found = proven_bits(event);
        let has_worked = self.pow_bits > 0 && found >= u32::from(self.pow_bits);
        if self.is_nothing() || has_worked || invited() {
            return Ok(());
        }
        Err(match self.pow_bits {
            0 if reader.is_anonymous() => Rejection::auth_required(NOT_INVITED),
            0 => Rejection::restricted(NOT_INVITED),
            wanted => Rejection::pow(format!(
                "the id proves {found} bits of work, and {wanted} are wanted; mine it with a nonce tag that commits to \
                 {wanted}, or send an invitation"
            )),
        })
    }
}

/// The words for a stranger without an invitation.
const NOT_INVITED: &str =
    "strangers need an invitation here; add its tag to the event, or authenticate with a key that is known here";

impl Policy {
    /// Whether an event carries an invitation of its founder, which holds.
    pub(crate) fn invites_founder(&self, event: &Event, founder: &PublicKey, now: UnixSecs) -> bool {
        self.is_invited(event, InvitedTo::FoundGroups, founder, now)
    }

    /// Refuses the founding of a group by a stranger that brings no proof. The operator's own keys need none.
    ///
    /// # Errors
    /// `pow:`, or `restricted:` where an invitation alone is asked for.
    pub(crate) fn require_founding_proof(
        &self,
        event: &Event,
        founder: &PublicKey,
        reader: &Reader,
        now: UnixSecs,
    ) -> Result<(), Rejection> {
        if self.is_named(founder) {
            return Ok(());
        }
        let invited = || self.invites_founder(event, founder, now);
        self.strangers.founding.require(event, reader, invited).map_err(|refusal| refusal.under(FOUNDING))
    }

    /// Refuses a gift wrap to an inbox by a stranger that brings none of the proofs that are `asked` for.
    ///
    /// # Errors
    /// `pow:`, or where an invitation alone is asked for `restricted:`, and to an anonymous reader `auth-required:`.
    pub fn require_inbox_proof(
        &self,
        event: &Event,
        recipient: &PublicKey,
        asked: AskedProof,
        reader: &Reader,
        now: UnixSecs,
    ) -> Result<(), Rejection> {
        let invited = || self.is_invited(event, InvitedTo::WriteToInbox, recipient, now);
        asked.require(event, reader, invited).map_err(|refusal| refusal.under(INBOX))
    }

    fn is_invited(&self, event: &Event, to: InvitedTo, subject: &PublicKey, now: UnixSecs) -> bool {
        let Some(invitation) = Invitation::of(event, to) else { return false };
        let is_owner = to == InvitedTo::WriteToInbox && invitation.by == *subject;
        (is_owner || self.strangers.inviters.contains(&invitation.by)) && invitation.holds_for(subject, now)
    }
}
