//! The registry: a managed group as its members and the admin keys see it.
//!
//! Source: MLS Gateway specification, "MLS Group Information"; docs/rules.md, "Registry". An answer about a group is
//! made of a [`ShownGroup`], which [`Gate::show`] alone makes.

use nostr_protocol::{PublicKey, UnixSecs};

use crate::{
    gate::Gate,
    mls_gateway::group::{CommitOrdering, Group, GroupStatus, ManagedGroup, NostrGroupId, Role, Source},
    reader::Reader,
};

/// A managed group that its reader may see.
#[derive(Clone, Copy)]
pub struct ShownGroup<'a> {
    id: &'a NostrGroupId,
    view: &'a ManagedGroup,
}

impl Gate {
    /// Shows a group to a reader: to its members, and to admin keys. `None` for anybody else, and for a group that has
    /// no record.
    #[must_use]
    pub fn show<'a>(&self, group: &'a Group, reader: &Reader) -> Option<ShownGroup<'a>> {
        let GroupStatus::Managed(view) = &group.status else { return None };
        let is_open = group.has_member(reader.keys()) || self.policy().now().has_admin_key(reader.keys());
        (is_open && !self.is_closed(group)).then_some(ShownGroup { id: &group.id, view })
    }

    /// Shows a group to a reader that administers it: to its admins, and to admin keys. `None` for anybody else.
    #[must_use]
    pub fn show_to_admin<'a>(&self, group: &'a Group, reader: &Reader) -> Option<ShownGroup<'a>> {
        let shown = self.show(group, reader)?;
        let is_admin = |key| shown.view.members.get(key) == Some(&Role::Admin);
        (reader.keys().iter().any(is_admin) || self.policy().now().has_admin_key(reader.keys())).then_some(shown)
    }
}

impl<'a> ShownGroup<'a> {
    /// The group's id.
    #[must_use]
    pub const fn id(&self) -> &'a NostrGroupId {
        self.id
    }

    /// The name for people, once a roster gave one.
    #[must_use]
    pub fn display_name(&self) -> Option<&'a str> {
        self.view.record.display_name.as_ref().map(|(_, name)| name.as_str())
    }

    /// The highest epoch seen, once a message told one.
    #[must_use]
    pub const fn last_epoch(&self) -> Option<u64> {
        self.view.record.last_epoch
    }

    /// Time at which the record was made.
    #[must_use]
    pub const fn created_at(&self) -> UnixSecs {
        self.view.record.created_at
    }

    /// The source that decides about the members.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.view.record.source
    }

    /// The last roster's `seq`; 0 before the first.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.view.record.seq
    }

    /// Number of members.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.view.members.len()
    }

    /// Number of admins.
    #[must_use]
    pub fn admin_count(&self) -> usize {
        self.view.members.values().filter(|role| **role == Role::Admin).count()
    }

    /// The order of commits that a roster chose for the group; `None` where the relay's own holds.
    #[must_use]
    pub const fn commit_ordering(&self) -> Option<CommitOrdering> {
        self.view.record.commit_ordering
    }

    /// The members with their roles, in the order of their keys.
    #[must_use]
    pub fn members(&self) -> Vec<(PublicKey, Role)> {
        let mut members: Vec<_> = self.view.members.iter().map(|(key, role)| (*key, *role)).collect();
        members.sort_unstable_by_key(|(key, _)| *key);
        members
    }
}
