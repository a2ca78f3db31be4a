//! Kind 450, Roster/Policy Control: an admin states the members of a group.
//!
//! Source: MLS Gateway specification, "Roster/Policy Control (Kind 450)"; docs/rules.md, "Rosters". `h` is the group's
//! routing id on Nostr, never the MLS group id. The change of the group is made in [`super::group::apply_roster`].

use nostr_protocol::{Event, PublicKey, Rejection, Rule, tag::name};

use super::group::{
    CommitOrdering, GroupStatus, NostrGroupId, ROSTER_KEYS_MAX, Refusal, Role, RosterChange, RosterOp, SEQ_MAX, Source,
};
use crate::{
    context::{Context, Verdict},
    effect::Effect,
    kinds::{
        Budget, Deletable, GroupChange, Kept, KindCounter, KindRules, NonResidents, Owners, Publication, Readers, any,
    },
    tags::{decimal, exactly_one, one_group},
};

/// Most bytes of a group's name.
const GROUP_NAME_BYTES_MAX: usize = 256;

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: any::changes_nothing,
    needs_group: true,
    non_residents: NonResidents::Checked,
    budget: Budget::Events,
    readers: Readers::Group { unlisted: false, admin_keys: true },
    changes: GroupChange::NamedGroup,
    kept: Kept::Stored,
    quota: None,
    may_expire: false,
    owners: Owners::Author,
    // The rosters are the audit of the group.
    deletable: Deletable::Refused,
    vanishes: false,
    counters: &[KindCounter::GroupsUpdated],
    in_nip11: true,
};

/// The signer publishes it, on a connection that has authenticated that key, and is an admin key or an admin of the
/// group; a member may take itself out.
///
/// The form is checked after the signer, so that a stranger learns nothing from a form that is wrong.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_author_here(event)?;
    let signer = event.pubkey();
    let by_admin_key = cx.policy.is_admin(&signer);
    let group = one_group(event)?;
    let status = cx.status(&group);
    let may_try = by_admin_key
        || match status {
            Some(GroupStatus::Managed(view)) => view.members.contains_key(&signer),
            Some(_) => cx.policy.open_bootstrap,
            None => false,
        };
    let is_member = matches!(status, Some(GroupStatus::Managed(view)) if view.members.contains_key(&signer));
    let founds = cx.policy.open_bootstrap && !by_admin_key && !is_member && asks_to_found(event);
    let is_open = asks_to_leave(event) || (founds && cx.may_found(event, &signer));
    if !is_open {
        cx.require_resident(event)?;
    }
    if founds {
        // As with gift wraps, the answer to a missing proof is the same for a group that exists.
        cx.require_founding_proof(event, &signer)?;
    }
    if !may_try {
        return Err(Refusal::NotAdmin.into());
    }
    if !cx.policy.sources.contains(&Source::Roster) {
        let refusal = Rejection::blocked("this relay takes no rosters (membership_sources)");
        return Err(refusal.under(Rule("Membership sources", 4)));
    }
    let group_admin =
        matches!(status, Some(GroupStatus::Managed(view)) if view.members.get(&signer) == Some(&Role::Admin));
    let change = read(event, group, by_admin_key, cx).map_err(|rejection| {
        // A signer that is no admin there gets one answer for every group and every fault.
        if by_admin_key || group_admin { rejection.under(Rule("Rosters", 5)) } else { Refusal::NotAdmin.into() }
    })?;
    Ok(Verdict { expires_at: cx.now.saturating_add(cx.policy.roster_ttl_secs), effect: Effect::Roster(change) })
}

/// Whether the roster founds its group, if the group has no record.
fn asks_to_found(event: &Event) -> bool {
    event.tags().value(name::OP) == Some("bootstrap")
}

/// Whether the roster takes out its signer and nobody else, for which a member needs no residence.
fn asks_to_leave(event: &Event) -> bool {
    let mut keys = event.tags().values(name::PUBLIC_KEY).map(PublicKey::from_hex);
    event.tags().value(name::OP) == Some("remove") && keys.all(|key| key == Some(event.pubkey()))
}

fn read(event: &Event, group: NostrGroupId, by_admin_key: bool, cx: &Context<'_>) -> Result<RosterChange, Rejection> {
    let seq = exactly_one(event, name::SEQ)?;
    let seq = decimal(seq)
        .filter(|number| (1..=SEQ_MAX).contains(number) && !seq.starts_with('0'))
        .ok_or_else(|| Rejection::invalid("seq is decimal, 1 to 9007199254740991, without leading zero"))
        .map_err(|refusal| refusal.under(Rule("Rosters", 3)))?;
    let op = match exactly_one(event, name::OP)? {
        "bootstrap" => RosterOp::Bootstrap,
        "add" => RosterOp::Add,
        "remove" => RosterOp::Remove,
        "promote" => RosterOp::Promote,
        "demote" => RosterOp::Demote,
        "replace" => RosterOp::Replace,
        "reset-epoch" => RosterOp::ResetEpoch,
        _ => {
            return Err(Rejection::invalid(
                "op is one of bootstrap, add, remove, promote, demote, replace, reset-epoch",
            ));
        }
    };
    let role = match event.tags().named(name::ROLE).next() {
        None => Role::Member,
        Some(tag) => {
            tag.value().and_then(Role::parse).ok_or_else(|| Rejection::invalid("role is \"member\" or \"admin\""))?
        }
    };
    let name = event.tags().value(name::NAME).filter(|name| !name.is_empty());
    if name.is_some_and(|name| name.len() > GROUP_NAME_BYTES_MAX) {
        let refusal = Rejection::invalid(format!("a group's name has at most {GROUP_NAME_BYTES_MAX} bytes"));
        return Err(refusal.under(Rule("Registry", 2)));
    }
    Ok(RosterChange {
        group,
        seq,
        op,
        keys: keys(event, op)?,
        role,
        name: name.map(str::to_owned),
        signer: event.pubkey(),
        by_admin_key,
        open_bootstrap: cx.policy.open_bootstrap,
        force: event.tags().value(name::FORCE) == Some("true"),
        commit_ordering: commit_ordering(event)?,
        epoch: if op == RosterOp::ResetEpoch { Some(epoch(event)?) } else { None },
        bounds: cx.policy.membership_bounds,
    })
}

/// The order of commits that a roster chooses.
fn commit_ordering(event: &Event) -> Result<Option<CommitOrdering>, Rejection> {
    let Some(tag) = event.tags().named(name::COMMIT_ORDERING).next() else { return Ok(None) };
    let chosen = tag.value().and_then(CommitOrdering::parse);
    let wrong = || Rejection::invalid("commit_ordering is \"off\", \"advisory\" or \"strict\"");
    chosen.map(Some).ok_or_else(|| wrong().under(Rule("Commit order", 1)))
}

/// The epoch that the order of commits is set to. No epoch comes after the largest number of 64 bits.
fn epoch(event: &Event) -> Result<u64, Rejection> {
    decimal(exactly_one(event, name::EPOCH)?)
        .filter(|epoch| *epoch < u64::MAX)
        .ok_or_else(|| Rejection::invalid("epoch is a whole number of 64 bits in decimal"))
}

/// The `p` values without repeats, in their order.
fn keys(event: &Event, op: RosterOp) -> Result<Vec<PublicKey>, Rejection> {
    let tags = event.tags();
    if op == RosterOp::ResetEpoch {
        let none = tags.named(name::PUBLIC_KEY).next().is_none();
        return none.then(Vec::new).ok_or_else(|| Rejection::invalid("reset-epoch changes no member; leave out p"));
    }
    if tags.named(name::PUBLIC_KEY).count() > ROSTER_KEYS_MAX {
        return Err(Rejection::invalid(format!("a roster has at most {ROSTER_KEYS_MAX} p tags; send several")));
    }
    let mut seen = std::collections::HashSet::new();
    let mut keys = Vec::new();
    for tag in tags.named(name::PUBLIC_KEY) {
        let key = tag
            .value()
            .and_then(PublicKey::from_hex)
            .ok_or_else(|| Rejection::invalid("a p tag is not a public key of 64 lower-case hex digits"))?;
        if seen.insert(key) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Err(Rejection::invalid("a roster names at least one key in a p tag"));
    }
    Ok(keys)
}
