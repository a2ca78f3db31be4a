//! A group's membership, as a state machine without I/O: its states here, its changes in `change`, the one place that
//! decides how a roster, a gift wrap or a vanishing key changes a group.
//!
//! Source: MLS Gateway specification, "Group Membership Management"; docs/rules.md, "Groups".

mod change;
mod order;
mod service;

use std::{collections::HashMap, fmt, sync::Arc};

use nostr_protocol::{EventId, PublicKey, UnixSecs};
use serde::{Deserialize, Serialize};

pub use self::{
    change::{
        Changed, SeenEpoch, VANISH_AGE_SECS_MAX, apply_roster, apply_vanish, apply_wrap, leaves_groups, next_epoch,
    },
    order::{COMMITS_KEPT_MAX, CommitLog, CommitOrdering, OrderedMessage, Ruling},
    service::{ServiceAnswer, Told, apply_service},
};

/// Most members of a group.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Most `p` tags of one roster event.
pub const ROSTER_KEYS_MAX: usize = 2_000;
/// Most that a group admin's roster may lie above the last `seq`.
pub const SEQ_STEP_MAX: u64 = 1_000;
/// Largest `seq`: the largest whole number that a JavaScript client can hold.
pub const SEQ_MAX: u64 = (1 << 53) - 1;
/// Most groups that gift wraps of one key found in 24 hours.
pub const GROUPS_FOUNDED_PER_DAY_MAX: u32 = 20;
/// Most memberships of one key: each makes reading dearer for the key.
pub const MEMBERSHIPS_MAX: usize = 1_000;
/// Most memberships of one key's making in which the member has not acted yet. Strangers make these, so they give way
/// to others.
pub const INVITED_MAX: u32 = 2_000;
/// Most that a message may raise a group's last epoch, by its header as by its `k` tag.
pub const EPOCH_STEP_MAX: u64 = 1_000;

/// The `h` of a group: its routing id on Nostr, never the MLS group id. 1 to 128 characters of `A-Z a-z 0-9 _ . : -`,
/// the first a letter or digit; compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NostrGroupId(Arc<str>);

impl NostrGroupId {
    /// Reads an `h`; `None` for text that is no group id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b':' | b'-');
        let first = text.bytes().next()?;
        (text.len() <= 128 && first.is_ascii_alphanumeric() && text.bytes().all(allowed)).then(|| Self(text.into()))
    }

    /// The text of the tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has the form of an unlisted group's id, its own capability: 64 lower-case hex digits.
    #[must_use]
    pub fn is_capability(&self) -> bool {
        self.0.len() == 64 && self.0.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl fmt::Debug for NostrGroupId {
    /// Shows the length alone: an unlisted group's id is a capability.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NostrGroupId({} bytes)", self.0.len())
    }
}

/// Source of a group's membership, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Gift wraps (1059) that name the group.
    GiftWrap,
    /// Rosters (450).
    Roster,
    /// The operator's HTTP service.
    Acl,
}

impl Source {
    /// All sources, the strongest first.
    pub const ALL: [Self; 3] = [Self::Acl, Self::Roster, Self::GiftWrap];

    /// The word of the configuration and of NIP-11.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GiftWrap => "giftwrap",
            Self::Roster => "roster",
            Self::Acl => "acl",
        }
    }
}

/// Rights of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and writes.
    Member,
    /// Changes the roster too.
    Admin,
}

impl Role {
    /// Reads a `role` tag.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "member" => Some(Self::Member),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// Record of a managed group, beside its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The source that decides about the members.
    pub source: Source,
    /// The last roster's `seq`; 0 before the first.
    pub seq: u64,
    /// Time at which the record was made.
    pub created_at: UnixSecs,
    /// The name from the roster with the highest `seq` that had one, and that `seq`.
    pub display_name: Option<(u64, String)>,
    /// The highest MLS epoch seen.
    pub last_epoch: Option<u64>,
    /// The key that founded the group, unless an admin key did.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "founder_hex")]
    pub founder: Option<PublicKey>,
    /// The order of its commits, where a roster chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_ordering: Option<CommitOrdering>,
    /// Its commits, while the order is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<CommitLog>,
    /// Time of the question to the access service whose answer changed the group last, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at_ms: Option<u64>,
    /// Time of a refresh at which the service gave no answer, in milliseconds since 1970: the group is closed until the
    /// service answers a question of that time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits_since_ms: Option<u64>,
}

/// A founder as hex in a group's record.
mod founder_hex {
    use std::borrow::Cow;

    use nostr_protocol::PublicKey;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(founder: &Option<PublicKey>, serializer: S) -> Result<S::Ok, S::Error> {
        match founder {
            Some(founder) => serializer.serialize_some(&founder.to_hex()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PublicKey>, D::Error> {
        let Some(text) = Option::<Cow<'de, str>>::deserialize(deserializer)? else { return Ok(None) };
        PublicKey::from_hex(&text).map(Some).ok_or_else(|| D::Error::custom("a founder is no public key"))
    }
}

/// Bounds on memberships, which the committing transaction checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipBounds {
    /// Most memberships of one key.
    pub memberships_max: usize,
    /// Most memberships of one key's making in which the member has not acted yet.
    pub invited_max: u32,
}

impl Default for MembershipBounds {
    fn default() -> Self {
        Self { memberships_max: MEMBERSHIPS_MAX, invited_max: INVITED_MAX }
    }
}

/// A membership in which the key has not acted yet: it published no 445, 450 or 1059 as a member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invited {
    /// Time at which another key made the membership.
    pub since: UnixSecs,
    /// How many memberships of that key's making the member had then in which it had not acted, with this one. A change
    /// says 1, and the store that commits it counts.
    pub nth: u16,
    /// The key that made the membership, which counts against it. Older stores and exports name the group's founder, or
    /// nobody where an admin key founded the group.
    pub by: Option<PublicKey>,
}

impl Invited {
    const SINCE_BITS: u32 = 48;
    /// Latest time in a rank, in Unix seconds.
    const SINCE_MAX: u64 = (1 << Self::SINCE_BITS) - 1;
    /// Highest number in a rank. No key has as many memberships.
    const NTH_MAX: u16 = (1 << 15) - 1;

    /// The rank by which the memberships of one key give way, the least first: of the highest `nth` the oldest. It has
    /// 63 bits. A rank that is a time alone, as older stores and exports have it, comes before all others.
    #[must_use]
    pub fn rank(&self) -> u64 {
        let before = Self::NTH_MAX - self.nth.min(Self::NTH_MAX);
        u64::from(before) << Self::SINCE_BITS | self.since.min(Self::SINCE_MAX)
    }

    /// The membership of this rank.
    #[must_use]
    pub fn of_rank(rank: u64, by: Option<PublicKey>) -> Self {
        let before = u16::try_from(rank >> Self::SINCE_BITS).unwrap_or(Self::NTH_MAX);
        Self { since: rank & Self::SINCE_MAX, nth: Self::NTH_MAX.saturating_sub(before), by }
    }
}

/// A key that becomes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The key.
    pub key: PublicKey,
    /// Set unless the key acts in the group by the same event, or an admin key makes the membership.
    pub invited: Option<Invited>,
}

impl GroupRecord {
    /// A record without a name and without messages.
    #[must_use]
    pub const fn new(source: Source, seq: u64, created_at: UnixSecs, founder: Option<PublicKey>) -> Self {
        Self {
            source,
            seq,
            created_at,
            display_name: None,
            last_epoch: None,
            founder,
            commit_ordering: None,
            commits: None,
            asked_at_ms: None,
            awaits_since_ms: None,
        }
    }

    /// Whether no answer of the access service counts before the next one.
    #[must_use]
    pub const fn awaits_answer(&self) -> bool {
        self.awaits_since_ms.is_some()
    }

    /// Whether the members may be keys that one client made for itself: anyone founded the group, and the access
    /// service does not decide about it. Rosters change nothing here, since a founder is a group admin and sends its
    /// own.
    #[must_use]
    pub fn is_anyones(&self) -> bool {
        // A record from an older export may lack its founder.
        self.source != Source::Acl && (self.founder.is_some() || self.source == Source::GiftWrap)
    }
}

/// A managed group as of some commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedGroup {
    /// Everything but the members.
    pub record: GroupRecord,
    /// The members, each with its role.
    pub members: HashMap<PublicKey, Role>,
}

/// Status of an `h`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupStatus {
    /// Never had a record, never carried a message.
    Unknown,
    /// Never had a record, and has carried unlisted messages.
    Unlisted,
    /// Has, or ever had, a record.
    Managed(Arc<ManagedGroup>),
}

/// An `h` with its status, as the gate asks for it.
#[derive(Clone, Debug)]
pub struct Group {
    /// The id.
    pub id: NostrGroupId,
    /// The status as of some commit.
    pub status: GroupStatus,
}

impl Group {
    /// Whether one of `keys` is a member now.
    #[must_use]
    pub fn has_member(&self, keys: &[PublicKey]) -> bool {
        match &self.status {
            GroupStatus::Managed(view) => keys.iter().any(|key| view.members.contains_key(key)),
            _ => false,
        }
    }

    /// Whether no answer of the access service counts before the next one.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        matches!(&self.status, GroupStatus::Managed(view) if view.record.awaits_answer())
    }

    /// Whether it is managed.
    #[must_use]
    pub const fn is_managed(&self) -> bool {
        matches!(self.status, GroupStatus::Managed(_))
    }
}

/// Operation of a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RosterOp {
    /// Founds a group.
    Bootstrap,
    /// Takes keys in.
    Add,
    /// Takes keys out.
    Remove,
    /// Makes members admins.
    Promote,
    /// Makes admins members.
    Demote,
    /// Sets the list.
    Replace,
    /// Sets the epoch of the order of commits.
    ResetEpoch,
}

/// A roster as admitted: its form is right, and its signer has published it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterChange {
    /// The group.
    pub group: NostrGroupId,
    /// The sequence number, 1 to [`SEQ_MAX`].
    pub seq: u64,
    /// The operation.
    pub op: RosterOp,
    /// The keys that the operation names, without repeats; empty for [`RosterOp::ResetEpoch`] alone.
    pub keys: Vec<PublicKey>,
    /// The role that new members take.
    pub role: Role,
    /// The name for people, where given.
    pub name: Option<String>,
    /// The key that signed.
    pub signer: PublicKey,
    /// Whether the signer is one of `admin_pubkeys`.
    pub by_admin_key: bool,
    /// Whether every publisher may found a group.
    pub open_bootstrap: bool,
    /// `["force","true"]`.
    pub force: bool,
    /// The order of commits, where given.
    pub commit_ordering: Option<CommitOrdering>,
    /// The epoch that [`RosterOp::ResetEpoch`] sets.
    pub epoch: Option<u64>,
    /// The bounds on memberships that it makes.
    pub bounds: MembershipBounds,
}

impl RosterChange {
    /// Whether the operation may make memberships.
    #[must_use]
    pub const fn may_add(&self) -> bool {
        matches!(self.op, RosterOp::Bootstrap | RosterOp::Add | RosterOp::Replace)
    }
}

/// A gift wrap that names a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrapChange {
    /// The group.
    pub group: NostrGroupId,
    /// The keys of the reader that published it.
    pub publishers: Vec<PublicKey>,
    /// Whether one of them is one of `admin_pubkeys`.
    pub by_admin_key: bool,
    /// Whether it asks for nothing while the group has no record, as the id is an unlisted group's.
    pub unlisted: bool,
    /// The key that becomes group admin if the wrap founds the group; `None` where it may not.
    pub founder: Option<PublicKey>,
    /// The key that the wrap is for.
    pub recipient: PublicKey,
    /// The bounds on the membership that it makes.
    pub bounds: MembershipBounds,
}

impl WrapChange {
    /// Whether the reader may send this wrap to a group that has this record, whose members `is_member` knows. An admin
    /// key may where rosters decide: it knows every such group.
    ///
    /// # Errors
    /// That of `is_member`.
    pub fn is_from_inside<E>(
        &self,
        source: Source,
        mut is_member: impl FnMut(&PublicKey) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if self.by_admin_key && source != Source::GiftWrap {
            return Ok(true);
        }
        for key in &self.publishers {
            if is_member(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reason for which the committing transaction refuses an event that admission let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The signer is no admin of this group.
    NotAdmin,
    /// The reader is no member now.
    NotMember,
    /// The reader is no member, and has no key.
    Anonymous,
    /// `seq` is not above the group's last.
    StaleSeq {
        /// The roster's `seq`.
        given: u64,
        /// The group's last.
        current: u64,
    },
    /// `seq` is more than [`SEQ_STEP_MAX`] above the group's last.
    SeqTooFar {
        /// The group's last.
        current: u64,
    },
    /// `bootstrap` on a group that has a record.
    GroupExists,
    /// An operation on a group that has no record.
    NoGroup,
    /// The group carries unlisted messages and `force` was not given.
    Unlisted,
    /// `promote` or `demote` of a key that is no member.
    NoSuchMember(PublicKey),
    /// The group would be left without an admin, or the signer without the role.
    LastAdmin,
    /// A roster leaves members, roles and name as they are.
    ChangesNothing,
    /// A roster changes members of a group about which the access service decides.
    ServiceDecides,
    /// The group awaits an answer of the access service, and nobody goes by its members before.
    Closed,
    /// More than [`GROUP_MEMBERS_MAX`] members.
    GroupFull,
    /// A gift wrap by no member: the group exists, or the wrap may not found it. One answer for every cause, as each
    /// would tell whether the group exists.
    WrapByStranger {
        /// Whether the reader has no key.
        anonymous: bool,
    },
    /// A key is a member of as many groups as a key may be, and none gives way. Only an admin key is told which.
    MembershipsFull(Option<PublicKey>),
    /// The key has made as many memberships as it may in which nobody has acted.
    InvitedFull,
    /// The reference of a KeyPackage names other bytes of the same owner.
    ReferenceTaken,
    /// As many KeyPackages of the owner as are kept are newer, or as many events with the same bytes.
    StockIsNewer,
    /// A deletion names an event of a kind that nobody deletes.
    Undeletable,
    /// The targets of a deletion have more tags than one deletion removes.
    DeletesTooMuch,
    /// A deletion names nothing that its author may delete.
    NothingToDelete,
    /// Another commit ended the epoch of a commit.
    EpochHasCommit {
        /// The epoch of both.
        epoch: u64,
        /// The commit that counts. The sender is a member, and members read every message of their group.
        commit: EventId,
    },
    /// A commit is for an epoch that the group is not at, or a message for one that the group left.
    NotTheEpoch {
        /// The message's epoch.
        epoch: u64,
        /// The group's epoch.
        current: u64,
    },
    /// An `expiration` ends a commit or a proposal before the archive would.
    HandshakeExpires,
    /// The `k` tag of a message says another epoch than its MLS header.
    EpochContradicted {
        /// The epoch of the header.
        header: u64,
        /// The epoch of the tag.
        tag: u64,
    },
}

/// The words for a reader that may not publish in a group, the same for every group (docs/rules.md, "Unlisted groups").
pub const NOT_A_MEMBER: &str =
    "this group is not founded here, or you are no member of it; found it first, or authenticate with a member's key";
/// The words for a refused roster, the same for every group, `seq` and `p`.
pub const NOT_AN_ADMIN: &str = "only the group's admins change its roster, and admin_pubkeys found one";
/// The words for a client in a group about which the access service cannot be asked.
pub const CLOSED: &str = "the members of this group cannot be asked of the access service now; try again";
/// The words for a gift wrap that neither founds its group nor comes from a member, the same for every group and cause.
pub const WRAP_BY_STRANGER: &str =
    "this gift wrap may neither found its group nor add to it; leave out the h tag, or send it with a member's key";

impl Refusal {
    /// Refuses a message from a reader with these keys, none of which is a member's.
    #[must_use]
    pub const fn no_member(keys: &[PublicKey]) -> Self {
        if keys.is_empty() { Self::Anonymous } else { Self::NotMember }
    }

    /// Refuses a gift wrap from a reader with these keys.
    #[must_use]
    pub const fn stranger(keys: &[PublicKey]) -> Self {
        Self::WrapByStranger { anonymous: keys.is_empty() }
    }
}
