//! The words for a [`Refusal`]: a client reads the same text whether admission or the committing transaction refuses.

use nostr_protocol::{Rejection, Rule};

use crate::{
    kinds,
    mls_gateway::group::{
        CLOSED, GROUP_MEMBERS_MAX, NOT_A_MEMBER, NOT_AN_ADMIN, Refusal, SEQ_STEP_MAX, WRAP_BY_STRANGER,
    },
};

impl Refusal {
    /// The rule that refuses.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        match self {
            Self::NotAdmin => Rule("Rosters", 2),
            Self::NotMember | Self::Anonymous => Rule("Groups", 3),
            Self::StaleSeq { .. } => Rule("Rosters", 4),
            Self::SeqTooFar { .. } => Rule("Rosters", 3),
            Self::GroupExists | Self::NoGroup | Self::NoSuchMember(_) => Rule("Rosters", 5),
            Self::Unlisted => Rule("Unlisted groups", 3),
            Self::LastAdmin => Rule("Rosters", 6),
            Self::ChangesNothing => Rule("Rosters", 10),
            Self::ServiceDecides => Rule("Access service", 8),
            Self::Closed => Rule("Access service", 7),
            Self::GroupFull => Rule("Groups", 2),
            Self::WrapByStranger { .. } => Rule("Gift wraps", 4),
            Self::MembershipsFull(_) => Rule("Memberships", 4),
            Self::InvitedFull => Rule("Memberships", 6),
            Self::ReferenceTaken => Rule("KeyPackages", 2),
            Self::StockIsNewer => Rule("KeyPackages", 7),
            Self::Undeletable => Rule("Deletion", 2),
            Self::DeletesTooMuch => Rule("Deletion", 4),
            Self::NothingToDelete => Rule("Deletion", 3),
            Self::EpochHasCommit { .. } => Rule("Commit order", 2),
            Self::NotTheEpoch { .. } => Rule("Commit order", 3),
            Self::EpochContradicted { .. } | Self::HandshakeExpires => Rule("Commit order", 4),
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let rule = refusal.rule();
        in_words(refusal).under(rule)
    }
}

fn in_words(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::NotAdmin => Rejection::restricted(NOT_AN_ADMIN),
        Refusal::NotMember => Rejection::restricted(NOT_A_MEMBER),
        Refusal::Anonymous => Rejection::auth_required(NOT_A_MEMBER),
        Refusal::StaleSeq { given, current } => {
            Rejection::invalid(format!("roster seq {given} is not above {current}"))
        }
        Refusal::SeqTooFar { current } => {
            Rejection::invalid(format!("roster seq is more than {SEQ_STEP_MAX} above {current}; use a smaller step"))
        }
        Refusal::GroupExists => Rejection::invalid("the group has a roster already; use add, remove or replace"),
        Refusal::NoGroup => Rejection::invalid("the group has no roster yet; found it with op bootstrap"),
        Refusal::Unlisted => Rejection::invalid(
            "the group carries unlisted messages; an admin key makes it managed with [\"force\",\"true\"]",
        ),
        Refusal::NoSuchMember(key) => Rejection::invalid(format!("{key} is not a member of the group; add it first")),
        Refusal::LastAdmin => {
            Rejection::invalid("the group would lose its signer as admin; let another admin of the group do this")
        }
        Refusal::ChangesNothing => Rejection::invalid(
            "the roster changes nothing: its keys have that state and the group that name already; send a change",
        ),
        Refusal::ServiceDecides => Rejection::blocked(
            "an access service decides about the members of this group; ask the relay's operator to change them",
        ),
        Refusal::Closed => Rejection::error(CLOSED),
        Refusal::GroupFull => Rejection::invalid(format!("a group has at most {GROUP_MEMBERS_MAX} members")),
        Refusal::WrapByStranger { anonymous: false } => Rejection::restricted(WRAP_BY_STRANGER),
        Refusal::WrapByStranger { anonymous: true } => Rejection::auth_required(WRAP_BY_STRANGER),
        Refusal::MembershipsFull(Some(key)) => {
            Rejection::invalid(format!("{key} is a member of as many groups as a key may be; it must leave one first"))
        }
        Refusal::MembershipsFull(None) => Rejection::invalid(
            "a key that this event adds is a member of as many groups as a key may be; add others without it",
        ),
        Refusal::InvitedFull => Rejection::invalid(
            "too many keys that your key added to groups have not acted there yet; wait until some have",
        ),
        Refusal::ReferenceTaken => {
            Rejection::invalid("the KeyPackage reference names other bytes of this owner; use a new reference")
        }
        Refusal::StockIsNewer => {
            Rejection::duplicate("as many newer KeyPackages of this owner are stored as are kept; publish a new one")
        }
        Refusal::DeletesTooMuch => Rejection::invalid(
            "the targets have too many tags together for one deletion; send several with fewer targets",
        ),
        Refusal::Undeletable => Rejection::blocked(format!(
            "kinds {} cannot be deleted; remove them from the request",
            kinds::in_words(kinds::KindRules::refuses_deletion)
        )),
        Refusal::EpochHasCommit { epoch, commit } => {
            Rejection::blocked(format!("epoch {epoch} already has a commit {commit}; process it and send yours again"))
        }
        Refusal::NotTheEpoch { epoch, current } if epoch < current => Rejection::blocked(format!(
            "the group left epoch {epoch} and is at epoch {current}; process its commits and send yours again"
        )),
        Refusal::NotTheEpoch { epoch, current } => Rejection::blocked(format!(
            "the group is at epoch {current}, and epoch {epoch} has not begun; send the commit of epoch {current} \
                 first, or have an admin of the group send a roster with op reset-epoch"
        )),
        Refusal::HandshakeExpires => Rejection::invalid(
            "members that are away need every commit and proposal; leave out the expiration tag, or give one that ends \
             no sooner than the archive",
        ),
        Refusal::EpochContradicted { header, tag } => Rejection::invalid(format!(
            "the k tag says epoch {tag} and the MLS header epoch {header}; correct or leave out the tag"
        )),
        Refusal::NothingToDelete => {
            Rejection::restricted("a key deletes its own events alone, and no deletion; name an event of yours")
        }
    }
}
