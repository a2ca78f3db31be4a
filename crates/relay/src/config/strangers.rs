//! `[strangers]`.

use nostr_extensions::{AskedProof, StrangerRules, strangers::POW_BITS_MAX};
use nostr_protocol::PublicKey;

use super::{section::section, value::public_key};

section! {
    /// Proofs that strangers bring to found groups and to write to inboxes: work (NIP-13), or an invitation by `rnostr
    /// invite`. One of those that are asked for is enough.
    pub struct Strangers for "strangers" in config.strangers {
        /// Work of a gift wrap or a roster by which a key founds a group; 0: none. Keys that the operator named need
        /// none.
        founding_min_pow: u16 = "0" in "bits", by integer(0..=u64::from(POW_BITS_MAX));
        /// Asks a key that founds a group for an invitation, or for the work.
        founding_by_invitation: bool = "false", by boolean();
        /// Work of a gift wrap to anyone; 0: none. A sender that the recipient knows needs none.
        inbox_min_pow: u16 = "0" in "bits", by integer(0..=u64::from(POW_BITS_MAX));
        /// Lets the owner of an inbox ask strangers for work or an invitation, by the tags `["pow","20"]` and
        /// `["invitation"]` of its list of relays (10050).
        inbox_owners_ask: bool = "false", by boolean();
        /// Keys whose invitations count, hex or `npub`. The owner of an inbox may always invite into its own.
        invitation_pubkeys: Vec<PublicKey> = "", by list(public_key);
    }
}

impl Strangers {
    /// The rules' view of the section.
    pub(super) fn rules(&self) -> StrangerRules {
        StrangerRules {
            founding: AskedProof { pow_bits: self.founding_min_pow, invitation: self.founding_by_invitation },
            inbox: AskedProof { pow_bits: self.inbox_min_pow, invitation: false },
            owners_ask: self.inbox_owners_ask,
            inviters: self.invitation_pubkeys.clone(),
        }
    }
}
