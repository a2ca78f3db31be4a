//! The words for a [`Refusal`]: a client reads the same text whether admission or the committing transaction refuses.

use nostr_protocol::Rejection;

use crate::{
    kinds,
    mls_gateway::group::{
        GROUP_MEMBERS_MAX, GROUPS_FOUNDED_PER_DAY_MAX, NOT_A_MEMBER, NOT_AN_ADMIN, Refusal, SEQ_STEP_MAX,
    },
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
            Refusal::GroupFull => Self::invalid(format!("a group has at most {GROUP_MEMBERS_MAX} members")),
            Refusal::TooManyGroups => Self::rate_limited(format!(
                "a key founds at most {GROUPS_FOUNDED_PER_DAY_MAX} groups a day by gift wraps, retry in 86400 s"
            )),
            Refusal::ReferenceTaken => {
                Self::invalid("the KeyPackage reference names other bytes of this owner; use a new reference")
            }
            Refusal::DeletesTooMuch => Self::invalid(
                "the targets have too many tags together for one deletion; send several with fewer targets",
            ),
            Refusal::Undeletable => Self::blocked(format!(
                "kinds {} cannot be deleted; remove them from the request",
                kinds::in_words(kinds::KindRules::refuses_deletion)
            )),
        }
    }
}
