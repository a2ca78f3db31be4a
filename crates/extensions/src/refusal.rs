//! The words for a [`Refusal`]: a client reads the same text whether admission or the committing transaction refuses.

use nostr_protocol::Rejection;

use crate::{
    kinds,
    mls_gateway::group::{GROUP_MEMBERS_MAX, NOT_A_MEMBER, NOT_AN_ADMIN, Refusal, SEQ_STEP_MAX, WRAP_BY_STRANGER},
};

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAdmin => Self::restricted(NOT_AN_ADMIN),
            Refusal::NotMember => Self::restricted(NOT_A_MEMBER),
            Refusal::Anonymous => Self::auth_required(NOT_A_MEMBER),
            Refusal::StaleSeq { given, current } => Self::invalid(format!("roster seq {given} is not above {current}")),
            Refusal::SeqTooFar { current } => {
                Self::invalid(format!("roster seq is more than {SEQ_STEP_MAX} above {current}; use a smaller step"))
            }
            Refusal::GroupExists => Self::invalid("the group has a roster already; use add, remove or replace"),
            Refusal::NoGroup => Self::invalid("the group has no roster yet; found it with op bootstrap"),
            Refusal::Unlisted => Self::invalid(
                "the group carries unlisted messages; an admin key makes it managed with [\"force\",\"true\"]",
            ),
            Refusal::NoSuchMember(key) => Self::invalid(format!("{key} is not a member of the group; add it first")),
            Refusal::LastAdmin => {
                Self::invalid("the group would lose its signer as admin; let another admin of the group do this")
            }
            Refusal::ChangesNothing => Self::invalid(
                "the roster changes nothing: its keys have that state and the group that name already; send a change",
            ),
            Refusal::ServiceDecides => Self::blocked(
                "an access service decides about the members of this group; ask the relay's operator to change them",
            ),
            Refusal::GroupFull => Self::invalid(format!("a group has at most {GROUP_MEMBERS_MAX} members")),
            Refusal::WrapByStranger { anonymous: false } => Self::restricted(WRAP_BY_STRANGER),
            Refusal::WrapByStranger { anonymous: true } => Self::auth_required(WRAP_BY_STRANGER),
            Refusal::MembershipsFull(Some(key)) => {
                Self::invalid(format!("{key} is a member of as many groups as a key may be; it must leave one first"))
            }
            Refusal::MembershipsFull(None) => Self::invalid(
                "a key that this event adds is a member of as many groups as a key may be; add others without it",
            ),
            Refusal::InvitedFull => Self::invalid(
                "too many keys that your key added to groups have not acted there yet; wait until some have",
            ),
            Refusal::ReferenceTaken => {
                Self::invalid("the KeyPackage reference names other bytes of this owner; use a new reference")
            }
            Refusal::StockIsNewer => {
                Self::duplicate("as many newer KeyPackages of this owner are stored as are kept; publish a new one")
            }
            Refusal::DeletesTooMuch => Self::invalid(
                "the targets have too many tags together for one deletion; send several with fewer targets",
            ),
            Refusal::Undeletable => Self::blocked(format!(
                "kinds {} cannot be deleted; remove them from the request",
                kinds::in_words(kinds::KindRules::refuses_deletion)
            )),
            Refusal::EpochHasCommit { epoch, commit } => {
                Self::blocked(format!("epoch {epoch} already has a commit {commit}; process it and send yours again"))
            }
            Refusal::NotTheEpoch { epoch, current } if epoch < current => Self::blocked(format!(
                "the group left epoch {epoch} and is at epoch {current}; process its commits and send yours again"
            )),
            Refusal::NotTheEpoch { epoch, current } => Self::blocked(format!(
                "the group is at epoch {current}, and epoch {epoch} has not begun; send the commit of epoch {current} \
                 first, or have an admin of the group send a roster with op reset-epoch"
            )),
            Refusal::HandshakeExpires => Self::invalid(
                "members that are away need every commit and proposal; leave out the expiration tag, or give one that \
                 ends no sooner than the archive",
            ),
            Refusal::EpochContradicted { header, tag } => Self::invalid(format!(
                "the k tag says epoch {tag} and the MLS header epoch {header}; correct or leave out the tag"
            )),
            Refusal::NothingToDelete => {
                Self::restricted("a key deletes its own events alone, and no deletion; name an event of yours")
            }
        }
    }
}
