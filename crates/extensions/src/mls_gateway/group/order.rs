//! The order of a group's commits: of several commits of one epoch the first stored one counts.
//!
//! Source: RFC 9750, section 5.2 (delivery of messages in order); docs/rules.md, "Commit order". The relay reads the
//! epoch and the type of a message from its MLS header and cannot check more: a commit that no client can process takes
//! its epoch all the same, until an admin of the group frees the epoch.

use nostr_protocol::{EventId, UnixSecs, mutation};
use serde::{Deserialize, Serialize};

use super::{
    super::mls::{ContentType, Header},
    Refusal,
};

/// Commits of a group that the relay remembers, the newest ones.
pub const COMMITS_KEPT_MAX: usize = 16;

/// Treatment of a group's messages that do not fit its order of commits (`commit_ordering`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitOrdering {
    /// The relay keeps no order.
    #[default]
    Off,
    /// The relay accepts the message, and tells its sender.
    Advisory,
    /// The relay refuses the message.
    Strict,
}

impl CommitOrdering {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Off, Self::Advisory, Self::Strict];

    /// The word of the configuration, of NIP-11 and of a roster's tag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advisory => "advisory",
            Self::Strict => "strict",
        }
    }

    /// Reads a `commit_ordering` tag.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// The epoch of a group, and the commits that ended the epochs before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireLog", into = "WireLog")]
pub struct CommitLog {
    /// The epoch that the next commit ends.
    epoch: u64,
    /// The commits of the epochs right before, the newest last; at most [`COMMITS_KEPT_MAX`].
    commits: Vec<SeenCommit>,
}

/// A commit that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenCommit {
    id: EventId,
    at: UnixSecs,
}

/// A log as JSON: ids are hex.
#[derive(Serialize, Deserialize)]
struct WireLog {
    epoch: u64,
    commits: Vec<(String, UnixSecs)>,
}

impl TryFrom<WireLog> for CommitLog {
    type Error = &'static str;

    fn try_from(WireLog { epoch, commits }: WireLog) -> Result<Self, Self::Error> {
        let commit = |(id, at): (String, UnixSecs)| Some(SeenCommit { id: EventId::from_hex(&id)?, at });
        let commits: Option<Vec<SeenCommit>> = commits.into_iter().map(commit).collect();
        let commits = commits.ok_or("a commit's id is no id of an event")?;
        if commits.len() > COMMITS_KEPT_MAX || commits.len() as u64 > epoch {
            return Err("a group has more commits than epochs, or than are kept");
        }
        Ok(Self { epoch, commits })
    }
}

impl From<CommitLog> for WireLog {
    fn from(CommitLog { epoch, commits }: CommitLog) -> Self {
        Self { epoch, commits: commits.into_iter().map(|commit| (commit.id.to_hex(), commit.at)).collect() }
    }
}

impl CommitLog {
    /// The log of a group at this epoch, of whose commits nothing is known.
    #[must_use]
    pub const fn at(epoch: u64) -> Self {
        Self { epoch, commits: Vec::new() }
    }

    /// The epoch that the next commit ends.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The log after an admin set the epoch: commits from that epoch on count no longer.
    #[must_use]
    pub fn reset(&self, epoch: u64) -> Self {
        let Some(freed) = self.epoch.checked_sub(epoch) else { return Self::at(epoch) };
        let kept = self.commits.len().saturating_sub(usize::try_from(freed).unwrap_or(usize::MAX));
        Self { epoch, commits: self.commits[..kept].to_vec() }
    }

    /// The commit that ended an epoch, if it is remembered.
    fn commit_of(&self, epoch: u64) -> Option<&SeenCommit> {
        let back = usize::try_from(self.epoch.checked_sub(epoch)?).ok()?;
        self.commits.get(self.commits.len().checked_sub(back)?)
    }

    /// The log after a commit of this epoch; `None` where the commit is in it already.
    fn with(&self, epoch: u64, id: EventId, at: UnixSecs) -> Result<Option<Self>, Refusal> {
        match self.commit_of(epoch) {
            Some(commit) if commit.id == id || mutation!("commit-order") => return Ok(None),
            Some(commit) => return Err(Refusal::EpochHasCommit { epoch, commit: commit.id }),
            None => {}
        }
        if epoch != self.epoch {
            return Err(Refusal::NotTheEpoch { epoch, current: self.epoch });
        }
        let forgotten = (self.commits.len() + 1).saturating_sub(COMMITS_KEPT_MAX);
        let commits = self.commits.iter().skip(forgotten).copied().chain([SeenCommit { id, at }]).collect();
        Ok(Some(Self { epoch: epoch.saturating_add(1), commits }))
    }

    /// Whether the group left the epoch at `at` or before. An epoch whose commit is forgotten was left before the
    /// oldest commit that is remembered.
    fn was_left(&self, epoch: u64, at: UnixSecs) -> bool {
        let commit = self.commit_of(epoch).or_else(|| self.commits.first().filter(|_| epoch < self.epoch));
        commit.is_some_and(|commit| commit.at <= at)
    }
}

/// A message as far as the order of commits looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderedMessage {
    /// The epoch in the MLS header.
    pub epoch: u64,
    /// The type of the content.
    pub content: ContentType,
    /// The epoch in a `k` tag that says another one.
    pub contradicted_by: Option<u64>,
    /// Whether an `expiration` ends it before the archive would: members that are away then would miss it.
    pub ends_early: bool,
    /// The order of groups that have no choice of their own.
    pub default: CommitOrdering,
    /// Seconds after the end of an epoch in which its proposals and application messages are taken; 0 for any time.
    pub grace_secs: u64,
}

/// The order's answer about a message that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// The group's log after the message, where the message changes it.
    pub log: Option<Option<CommitLog>>,
    /// The fault of a message that is stored although it does not fit.
    pub advice: Option<Refusal>,
}

impl OrderedMessage {
    /// The message of this header; `None` where the header does not say what it is. `tags` are the epochs that its `k`
    /// tags say.
    #[must_use]
    pub fn new(
        header: &Header,
        mut tags: impl Iterator<Item = u64>,
        default: CommitOrdering,
        grace_secs: u64,
    ) -> Option<Self> {
        let (epoch, content) = (header.epoch, header.content?);
        // No epoch comes after the last one, so no group gets there.
        let is_last = epoch == u64::MAX;
        let contradicted_by = tags.find(|tag| *tag != epoch);
        (!is_last).then_some(Self { epoch, content, contradicted_by, ends_early: false, default, grace_secs })
    }

    /// Whether the group's log decides anything about the message.
    #[must_use]
    pub fn asks_for_log(&self) -> bool {
        self.content == ContentType::Commit || self.grace_secs > 0
    }

    /// Whether the group's choice of an order, or its log, decides anything about the message.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks_for_log() || self.contradicted_by.is_some() || self.is_lost_early()
    }

    /// Whether members may miss it that need it: a commit, or a proposal that a commit names by its hash.
    fn is_lost_early(&self) -> bool {
        self.ends_early && self.content != ContentType::Application
    }

    /// Decides about the message, stored under `id` at `now`, in a group with this choice and this log.
    ///
    /// # Errors
    /// The [`Refusal`], if the group's order is strict.
    pub fn rule(
        &self,
        choice: Option<CommitOrdering>,
        log: Option<&CommitLog>,
        id: EventId,
        now: UnixSecs,
    ) -> Result<Ruling, Refusal> {
        let mode = choice.unwrap_or(self.default);
        if mode == CommitOrdering::Off {
            // The log would be behind the group from now on, and must not count if the order comes back.
            let forgets = self.content == ContentType::Commit && log.is_some();
            return Ok(Ruling { log: forgets.then_some(None), advice: None });
        }
        match self.check(log, id, now) {
            Ok(next) => Ok(Ruling { log: next.map(Some), advice: None }),
            Err(fault) if mode == CommitOrdering::Strict => Err(fault),
            Err(fault) => Ok(Ruling { log: None, advice: Some(fault) }),
        }
    }

    /// The log after the message, where the message changes it.
    fn check(&self, log: Option<&CommitLog>, id: EventId, now: UnixSecs) -> Result<Option<CommitLog>, Refusal> {
        let epoch = self.epoch;
        if let Some(tag) = self.contradicted_by {
            return Err(Refusal::EpochContradicted { header: epoch, tag });
        }
        if self.is_lost_early() {
            return Err(Refusal::HandshakeExpires);
        }
        match (self.content, log) {
            // The first commit that the relay sees says which epoch the group has.
            (ContentType::Commit, None) => CommitLog::at(epoch).with(epoch, id, now),
            (ContentType::Commit, Some(log)) => log.with(epoch, id, now),
            (ContentType::Application | ContentType::Proposal, Some(log)) => {
                let left = self.grace_secs > 0 && log.was_left(epoch, now.saturating_sub(self.grace_secs));
                if left { Err(Refusal::NotTheEpoch { epoch, current: log.epoch }) } else { Ok(None) }
            }
            (ContentType::Application | ContentType::Proposal, None) => Ok(None),
        }
    }
}
