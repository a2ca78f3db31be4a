//! The changes of a group by a roster, a gift wrap, a vanishing key and a message. Every store applies them inside the
//! transaction that stores the event.
//!
//! Source: docs/rules.md, "Groups".

use std::collections::HashMap;

use nostr_protocol::{DAY_SECS, PublicKey, UnixSecs, mutation};

use super::{
    CommitLog, CommitOrdering, EPOCH_STEP_MAX, GROUP_MEMBERS_MAX, GROUPS_FOUNDED_PER_DAY_MAX, GroupRecord, GroupStatus,
    Invited, Join, ManagedGroup, Refusal, Role, RosterChange, RosterOp, SEQ_STEP_MAX, Source, WrapChange,
};

/// A group after a change, with the difference from before.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The group now.
    pub view: ManagedGroup,
    /// Each key whose membership or role changed; `None` for a key that is no longer a member.
    pub delta: Vec<(PublicKey, Option<Role>)>,
    /// The keys in `delta` that were no members before.
    pub joined: Vec<Join>,
    /// The key that founded the group by a gift wrap, to be counted.
    pub founder: Option<PublicKey>,
}

/// Applies a roster.
///
/// # Errors
/// A [`Refusal`]. A signer that is no admin of the group always gets [`Refusal::NotAdmin`], and learns of no other
/// fault.
pub fn apply_roster(status: &GroupStatus, change: &RosterChange, now: UnixSecs) -> Result<Changed, Refusal> {
    let view = match status {
        GroupStatus::Managed(view) => view,
        _ => return found_by_roster(matches!(status, GroupStatus::Unlisted), change, now),
    };
    let signer_role = view.members.get(&change.signer).copied();
    let by_group_admin = signer_role == Some(Role::Admin);
    let leaves = change.op == RosterOp::Remove && change.keys == [change.signer] && signer_role.is_some();
    if !change.by_admin_key && !by_group_admin && !leaves && !mutation!("roster-signer") {
        return Err(Refusal::NotAdmin);
    }
    check_seq(view.record.seq, change)?;
    let mut next = ManagedGroup { record: view.record.clone(), members: view.members.clone() };
    match change.op {
        RosterOp::Bootstrap => {
            if !(change.by_admin_key && view.record.source == Source::GiftWrap) {
                return Err(Refusal::GroupExists);
            }
            next.members = change.keys.iter().map(|key| (*key, change.role)).collect();
        }
        RosterOp::Add => {
            for key in &change.keys {
                next.members.entry(*key).or_insert(change.role);
            }
        }
        RosterOp::Remove => {
            for key in &change.keys {
                next.members.remove(key);
            }
        }
        RosterOp::Promote | RosterOp::Demote => {
            let role = if change.op == RosterOp::Promote { Role::Admin } else { Role::Member };
            for key in &change.keys {
                *next.members.get_mut(key).ok_or(Refusal::NoSuchMember(*key))? = role;
            }
        }
        RosterOp::Replace => {
            let keep = |key: &PublicKey| (*key, view.members.get(key).copied().unwrap_or(change.role));
            next.members = change.keys.iter().map(keep).collect();
            if mutation!("roster-replace") {
                next.members.extend(view.members.iter().map(|(key, role)| (*key, *role)));
            }
        }
        RosterOp::ResetEpoch => {
            let epoch = change.epoch.unwrap_or_default();
            let commits = view.record.commits.as_ref();
            next.record.commits = Some(commits.map_or_else(|| CommitLog::at(epoch), |commits| commits.reset(epoch)));
        }
    }
    if next.members.len() > GROUP_MEMBERS_MAX {
        return Err(Refusal::GroupFull);
    }
    if !change.by_admin_key && by_group_admin && next.members.get(&change.signer) != Some(&Role::Admin) {
        return Err(Refusal::LastAdmin);
    }
    next.record.seq = change.seq;
    if change.by_admin_key || by_group_admin {
        // A member that leaves decides nothing else about its group.
        next.record.source = Source::Roster.max(view.record.source);
        rename(&mut next.record, change);
        choose_order(&mut next.record, change);
    }
    let delta = delta(&view.members, &next.members);
    if view.record.source == Source::Acl && !delta.is_empty() {
        return Err(Refusal::ServiceDecides);
    }
    if delta.is_empty() && !changes_record(&view.record, &next.record, change) {
        return Err(Refusal::ChangesNothing);
    }
    let new = delta.iter().filter(|(key, role)| role.is_some() && !view.members.contains_key(key));
    let joined = in_order(new.map(|(key, _)| join(*key, &change.signer, change.by_admin_key, now)));
    Ok(Changed { view: next, delta, joined, founder: None })
}

/// Joins in the order of their keys, so that every store looks at the same key first.
fn in_order(joins: impl Iterator<Item = Join>) -> Vec<Join> {
    let mut joins: Vec<Join> = joins.collect();
    joins.sort_unstable_by_key(|join| join.key);
    joins
}

/// The membership that `actor` makes for `key`.
fn join(key: PublicKey, actor: &PublicKey, by_admin_key: bool, now: UnixSecs) -> Join {
    let invited = Invited { since: now, nth: 1, by: Some(*actor) };
    Join { key, invited: (key != *actor && !by_admin_key).then_some(invited) }
}

/// Whether a roster that changes no member changes the record in a way that it names: a new name, another order of
/// commits, another epoch, a record made anew, or a `seq` that an admin key forces.
fn changes_record(before: &GroupRecord, after: &GroupRecord, change: &RosterChange) -> bool {
    let name = |record: &GroupRecord| record.display_name.as_ref().map(|(_, name)| name.clone());
    let forced = change.by_admin_key && change.force && change.op == RosterOp::Replace && before.seq != after.seq;
    let order = |record: &GroupRecord| (record.commit_ordering, record.commits.clone());
    name(before) != name(after) || order(before) != order(after) || change.op == RosterOp::Bootstrap || forced
}

fn check_seq(current: u64, change: &RosterChange) -> Result<(), Refusal> {
    if change.by_admin_key && change.force && change.op == RosterOp::Replace {
        return Ok(());
    }
    if change.seq < current || (change.seq == current && !mutation!("roster-seq")) {
        return Err(Refusal::StaleSeq { given: change.seq, current });
    }
    if !change.by_admin_key && change.seq - current > SEQ_STEP_MAX {
        return Err(Refusal::SeqTooFar { current });
    }
    Ok(())
}

fn found_by_roster(carried_unlisted: bool, change: &RosterChange, now: UnixSecs) -> Result<Changed, Refusal> {
    let open = change.open_bootstrap && change.op == RosterOp::Bootstrap;
    if !change.by_admin_key && !open {
        return Err(Refusal::NotAdmin);
    }
    let founds = change.op == RosterOp::Bootstrap || (change.op == RosterOp::Replace && change.force);
    if !founds {
        return Err(Refusal::NoGroup);
    }
    if carried_unlisted && !(change.by_admin_key && change.force) {
        return Err(if change.by_admin_key { Refusal::Unlisted } else { Refusal::NotAdmin });
    }
    check_seq(0, change)?;
    let mut members: HashMap<_, _> = change.keys.iter().map(|key| (*key, change.role)).collect();
    if !change.by_admin_key {
        members.insert(change.signer, Role::Admin);
    }
    let founder = (!change.by_admin_key).then_some(change.signer);
    let mut record = GroupRecord::new(Source::Roster, change.seq, now, founder);
    rename(&mut record, change);
    choose_order(&mut record, change);
    let delta = members.iter().map(|(key, role)| (*key, Some(*role))).collect();
    let joined = in_order(members.keys().map(|key| join(*key, &change.signer, change.by_admin_key, now)));
    Ok(Changed { view: ManagedGroup { record, members }, delta, joined, founder: None })
}

fn rename(record: &mut GroupRecord, change: &RosterChange) {
    let newest = record.display_name.as_ref().is_none_or(|(seq, _)| change.seq >= *seq);
    if let (Some(name), true) = (&change.name, newest) {
        record.display_name = Some((change.seq, name.clone()));
    }
}

/// Sets the order of commits that a roster names. A group without an order remembers no commits.
fn choose_order(record: &mut GroupRecord, change: &RosterChange) {
    if let Some(chosen) = change.commit_ordering {
        record.commit_ordering = Some(chosen);
        if chosen == CommitOrdering::Off {
            record.commits = None;
        }
    }
}

/// Applies a gift wrap. `founded_today` counts the groups that the founder founded in the last 24 hours.
///
/// `Ok(None)` is a wrap that changes nothing and asks for nothing more: its recipient is a member, rosters decide about
/// the group, or the id is an unlisted group's.
///
/// # Errors
/// [`Refusal::GroupFull`], and [`Refusal::WrapByStranger`] for every other cause.
pub fn apply_wrap(
    status: &GroupStatus,
    change: &WrapChange,
    founded_today: u32,
    now: UnixSecs,
) -> Result<Option<Changed>, Refusal> {
    let stranger = || Refusal::stranger(&change.publishers);
    match status {
        GroupStatus::Unlisted | GroupStatus::Unknown if change.unlisted => Ok(None),
        GroupStatus::Unlisted => Err(stranger()),
        GroupStatus::Unknown => {
            let founder = change.founder.filter(|founder| *founder != change.recipient).ok_or_else(stranger)?;
            if founded_today >= GROUPS_FOUNDED_PER_DAY_MAX {
                return Err(stranger());
            }
            let members = HashMap::from([(founder, Role::Admin), (change.recipient, Role::Member)]);
            let delta = members.iter().map(|(key, role)| (*key, Some(*role))).collect();
            let record = GroupRecord::new(Source::GiftWrap, 0, now, Some(founder));
            let joined = [founder, change.recipient].map(|key| join(key, &founder, change.by_admin_key, now)).into();
            Ok(Some(Changed { view: ManagedGroup { record, members }, delta, joined, founder: Some(founder) }))
        }
        GroupStatus::Managed(view) => {
            let Ok(is_from_inside) = change.is_from_inside(view.record.source, |key| {
                Ok::<_, std::convert::Infallible>(view.members.contains_key(key))
            });
            if !is_from_inside {
                return Err(stranger());
            }
            if view.record.source != Source::GiftWrap || view.members.contains_key(&change.recipient) {
                return Ok(None);
            }
            if view.members.len() >= GROUP_MEMBERS_MAX {
                return Err(Refusal::GroupFull);
            }
            let inviter = change.publishers.iter().find(|key| view.members.contains_key(key)).ok_or_else(stranger)?;
            let mut next = ManagedGroup::clone(view);
            next.members.insert(change.recipient, Role::Member);
            let joined = vec![join(change.recipient, inviter, change.by_admin_key, now)];
            Ok(Some(Changed { view: next, delta: vec![(change.recipient, Some(Role::Member))], joined, founder: None }))
        }
    }
}

/// Most seconds of age at which a request to vanish takes its key out of groups. Such requests are public, and anyone
/// may publish an old one again; the groups that its key has joined since then stay.
pub const VANISH_AGE_SECS_MAX: u64 = 7 * DAY_SECS;

/// Whether a request to vanish that was made at `at` takes its key out of its groups.
#[must_use]
pub const fn leaves_groups(at: UnixSecs, now: UnixSecs) -> bool {
    at.saturating_add(VANISH_AGE_SECS_MAX) >= now
}

/// Takes a vanishing key (NIP-62) out of a group; `None` where it stays, as the last admin, as no member, or because
/// the access service decides about the group.
#[must_use]
pub fn apply_vanish(view: &ManagedGroup, key: &PublicKey) -> Option<Changed> {
    if view.record.source == Source::Acl {
        return None;
    }
    let role = view.members.get(key)?;
    let admins = view.members.values().filter(|role| **role == Role::Admin).count();
    if (*role == Role::Admin && admins == 1) || mutation!("vanish-membership") {
        return None;
    }
    let mut next = view.clone();
    next.members.remove(key);
    Some(Changed { view: next, delta: vec![(*key, None)], joined: Vec::new(), founder: None })
}

/// The epoch that a group's registry shows after a message that shows this one: at most [`EPOCH_STEP_MAX`] above the
/// one before, as the sender alone vouches for both the header and the `k` tag (docs/rules.md, "Registry").
#[must_use]
pub fn next_epoch(last: Option<u64>, seen: SeenEpoch) -> Option<u64> {
    let floor = last.unwrap_or(0);
    match seen {
        SeenEpoch::Header(epoch) | SeenEpoch::Tag(epoch) if epoch <= floor.saturating_add(EPOCH_STEP_MAX) => {
            Some(floor.max(epoch))
        }
        _ => last,
    }
}

/// Epoch of a message, by its place in the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenEpoch {
    /// In the MLS header.
    Header(u64),
    /// In the `k` tag, on the sender's word.
    Tag(u64),
    /// Nowhere.
    Nowhere,
}

/// Each key whose membership or role differs.
pub(super) fn delta(
    before: &HashMap<PublicKey, Role>,
    after: &HashMap<PublicKey, Role>,
) -> Vec<(PublicKey, Option<Role>)> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (*key, None));
    let changed =
        after.iter().filter(|(key, role)| before.get(key) != Some(role)).map(|(key, role)| (*key, Some(*role)));
    gone.chain(changed).collect()
}
