//! `GET groups` and `GET groups/{id}`: the groups that the caller administers, and one of them with its history.
//!
//! An operator sees every managed group, a group admin those of which its key is an admin. Any other group is answered
//! as one that does not exist, at the same cost.

use axum::http::StatusCode;
use nostr_extensions::{Group, NostrGroupId, Role, mls_gateway::group::CommitOrdering, registry::ShownGroup};
use nostr_protocol::{Event, Filter, Kind, PublicKey, Rejection, tag::name};
use nostr_store::Cost;
use serde::{Deserialize, Serialize};

use super::{door::LoggedIn, login::memberships};
use crate::{
    error::read_failed,
    rest::{
        Answer, EventJson, GROUPS_PER_TURN_MAX, List, MEMBERS_PER_UNIT, PathValues, Problem, Question, Visit, cost,
        group_for, list_text, states,
    },
    session::archive::{ArchiveRead, Limits, MEMBERSHIP_UNITS, Meter},
};

/// Most groups of one page.
const GROUPS_MAX: usize = 50;
/// Most members that the answer about a group lists, in the order of their keys.
const MEMBERS_MAX: usize = 1_000;
/// Most rosters that the answer about a group lists, the newest ones.
const ROSTERS_MAX: usize = 200;
/// Bytes of rosters after which the list ends; the last one may exceed them.
const ROSTER_BYTES_MAX: usize = 4 << 20;
/// Most pages of the store that one page of groups is put together from.
const STORE_PAGES_MAX: usize = 4;
/// Most characters of a question: those of the longest id of a group.
const QUESTION_CHARS_MAX: usize = 128;

/// A group in a list.
#[derive(Serialize)]
struct GroupEntry {
    group_id: String,
    display_name: Option<String>,
    member_count: usize,
    admin_count: usize,
    last_epoch: Option<u64>,
    /// The source that decides about the members.
    source: &'static str,
    /// Unix seconds.
    created_at: u64,
    /// The `seq` of the last roster.
    seq: u64,
}

impl GroupEntry {
    fn of(shown: ShownGroup<'_>) -> Self {
        Self {
            group_id: shown.id().as_str().to_owned(),
            display_name: shown.display_name().map(str::to_owned),
            member_count: shown.member_count(),
            admin_count: shown.admin_count(),
            last_epoch: shown.last_epoch(),
            source: shown.source().as_str(),
            created_at: shown.created_at(),
            seq: shown.seq(),
        }
    }
}

#[derive(Serialize)]
struct GroupList {
    /// In the order of their ids.
    groups: Vec<GroupEntry>,
    /// The cursor of the next page; null at the end.
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    /// The beginning of a group's id, or the key of a member.
    #[serde(default)]
    q: String,
    cursor: Option<String>,
}

/// A search, as it was read.
enum Wanted {
    /// Groups whose ids begin so.
    Prefix(String),
    /// Groups of this member.
    Member(PublicKey),
}

impl Wanted {
    fn read(q: &str) -> Result<Self, Problem> {
        if q.len() > QUESTION_CHARS_MAX {
            return Err(Problem::bad_parameter("q is the beginning of a group's id, or a key in hex or as npub"));
        }
        // An id of 64 hex digits reads as a key too; an exact id is asked for by its own path.
        Ok(PublicKey::from_hex_or_npub(q).map_or_else(|_| Self::Prefix(q.to_owned()), Self::Member))
    }

    fn takes(&self, group: &Group) -> bool {
        match self {
            Self::Prefix(prefix) => group.id.as_str().starts_with(prefix),
            Self::Member(key) => group.has_member(&[*key]),
        }
    }
}

/// The groups that the caller administers and looks for.
pub(super) async fn all(caller: LoggedIn) -> Result<Answer, Problem> {
    let visit = &caller.visit;
    let Search { q, cursor } = visit.parameters()?;
    let wanted = Wanted::read(&q)?;
    let question = Question(&[b"console groups", caller.key.as_bytes(), q.as_bytes()]);
    let behind = match cursor {
        Some(cursor) => Some(list_text(visit.app().cursors.open(question, &cursor)?)?),
        None => None,
    };
    let behind = behind.as_deref().and_then(NostrGroupId::parse);
    let mut meter = Meter::new(&visit.caller);
    let page = if caller.is_operator() {
        of_operator(visit, &mut meter, &wanted, behind.clone()).await?
    } else {
        of_admin(visit, &mut meter, &wanted, behind.as_ref()).await?
    };
    if page.groups.is_empty() && behind.is_none() && q.is_empty() && !caller.is_operator() {
        let text = "restricted: this key is an admin of no group any more";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let next_cursor = page.next.map(|next| visit.app().cursors.seal(question, next.as_str().as_bytes()));
    Answer::json(visit, &GroupList { groups: page.groups, next_cursor }).await
}

/// A page of groups, and the place to go on from.
struct Page {
    groups: Vec<GroupEntry>,
    next: Option<NostrGroupId>,
}

/// A page of all managed groups, or of those of a member.
async fn of_operator(
    visit: &Visit,
    meter: &mut Meter<'_>,
    wanted: &Wanted,
    mut behind: Option<NostrGroupId>,
) -> Result<Page, Problem> {
    let app = visit.app();
    let prefix = match wanted {
        Wanted::Member(key) => {
            let ids = groups_of_member(visit, meter, key).await?;
            return among(visit, meter, wanted, &ids, behind.as_ref()).await;
        }
        Wanted::Prefix(prefix) => prefix,
    };
    let mut page = Page { groups: Vec::new(), next: None };
    for _ in 0..STORE_PAGES_MAX {
        meter.may_go_on().map_err(Rejection::from)?;
        let most = GROUPS_MAX - page.groups.len();
        let turn = meter.turn_at_store().await;
        let listed = app.store.groups_after(prefix, behind.as_ref(), most).await.map_err(read_failed)?;
        drop(turn);
        meter.charge(listed.cost);
        for some in listed.entries.chunks(GROUPS_PER_TURN_MAX) {
            let found = states(visit, meter, some).await?;
            let shown = found.iter().filter_map(|group| app.gate.show_to_admin(group, &visit.caller.reader));
            page.groups.extend(shown.map(GroupEntry::of));
        }
        (page.next, behind) = (listed.next.clone(), listed.next);
        if behind.is_none() || page.groups.len() == GROUPS_MAX {
            break;
        }
    }
    Ok(page)
}

/// A page of the groups that the caller's key administers.
async fn of_admin(
    visit: &Visit,
    meter: &mut Meter<'_>,
    wanted: &Wanted,
    behind: Option<&NostrGroupId>,
) -> Result<Page, Problem> {
    let ids = memberships(visit, meter).await?;
    among(visit, meter, wanted, &ids, behind).await
}

/// A page of those of these groups that the caller administers and looks for.
async fn among(
    visit: &Visit,
    meter: &mut Meter<'_>,
    wanted: &Wanted,
    ids: &[NostrGroupId],
    behind: Option<&NostrGroupId>,
) -> Result<Page, Problem> {
    let app = visit.app();
    let ids: Vec<NostrGroupId> = ids.iter().filter(|id| behind.is_none_or(|behind| *id > behind)).cloned().collect();
    let mut list = List::new(GROUPS_MAX);
    for some in ids.chunks(GROUPS_PER_TURN_MAX) {
        if list.is_full() {
            break;
        }
        for group in states(visit, meter, some).await?.iter().filter(|group| wanted.takes(group)) {
            if let Some(shown) = app.gate.show_to_admin(group, &visit.caller.reader) {
                list.push((group.id.clone(), GroupEntry::of(shown)));
            }
        }
    }
    let (found, has_more) = list.end();
    let next = found.last().filter(|_| has_more).map(|(id, _)| id.clone());
    Ok(Page { groups: found.into_iter().map(|(_, entry)| entry).collect(), next })
}

/// The groups of another key, in the order of their ids.
async fn groups_of_member(visit: &Visit, meter: &mut Meter<'_>, key: &PublicKey) -> Result<Vec<NostrGroupId>, Problem> {
    let app = visit.app();
    meter.may_go_on().map_err(Rejection::from)?;
    app.delivery.fresh().await?;
    let turn = meter.turn_at_store().await;
    let mut ids = app.store.groups_of(&[*key]).await.map_err(read_failed)?;
    drop(turn);
    meter.charge(cost(app, MEMBERSHIP_UNITS, ids.len().max(1)));
    ids.sort_unstable();
    Ok(ids)
}

/// A group with its members and its history.
#[derive(Serialize)]
struct GroupDetail {
    #[serde(flatten)]
    entry: GroupEntry,
    /// Time of the newest message or roster that the caller may read, in Unix seconds.
    last_activity: Option<u64>,
    /// At most [`MEMBERS_MAX`]; `member_count` tells all.
    members: Vec<MemberEntry>,
    /// The newest ones, the highest `seq` first.
    roster: Vec<RosterEntry>,
    /// Whether the relay accepts one commit for each epoch.
    strict: bool,
}

#[derive(Serialize)]
struct MemberEntry {
    pubkey: String,
    npub: String,
    role: &'static str,
}

/// A roster: the fields of its tags, and the event.
#[derive(Serialize)]
struct RosterEntry {
    id: String,
    created_at: u64,
    seq: Option<u64>,
    op: String,
    by: String,
    subjects: Vec<String>,
    role: Option<String>,
    event: EventJson,
}

impl RosterEntry {
    fn of(event: &Event, json: EventJson) -> Self {
        let tags = event.tags();
        Self {
            id: event.id().to_hex(),
            created_at: event.created_at(),
            seq: tags.value(name::SEQ).and_then(|seq| seq.parse().ok()),
            op: tags.value(name::OP).unwrap_or_default().to_owned(),
            by: event.pubkey().to_hex(),
            subjects: tags.values(name::PUBLIC_KEY).map(str::to_owned).collect(),
            role: tags.value(name::ROLE).map(str::to_owned),
            event: json,
        }
    }
}

/// The group of this id, if the caller administers it.
pub(super) async fn administered(visit: &Visit, id: Option<NostrGroupId>) -> Result<Group, Problem> {
    let app = visit.app();
    group_for(visit, id, |group| app.gate.show_to_admin(group, &visit.caller.reader).is_some()).await
}

/// One group.
pub(super) async fn one(path: PathValues, LoggedIn { visit, .. }: LoggedIn) -> Result<Answer, Problem> {
    let group = administered(&visit, path.get("group_id").and_then(NostrGroupId::parse)).await?;
    let app = visit.app();
    let shown = app.gate.show_to_admin(&group, &visit.caller.reader).ok_or_else(Problem::not_found)?;
    let mut meter = Meter::new(&visit.caller);
    meter.charge(Cost::of_units(shown.member_count() as u64 / MEMBERS_PER_UNIT));
    drop(meter);
    let roster = rosters(&visit, &group.id).await?;
    let member = |(key, role): (PublicKey, Role)| MemberEntry {
        pubkey: key.to_hex(),
        npub: key.to_npub(),
        role: if role == Role::Admin { "admin" } else { "member" },
    };
    let ordering = shown.commit_ordering().unwrap_or(app.policy().commit_ordering);
    let newest_message = newest_message(&visit, &group.id).await?;
    let detail = GroupDetail {
        entry: GroupEntry::of(shown),
        last_activity: newest_message.max(roster.iter().map(|entry| entry.created_at).max()),
        members: shown.members().into_iter().take(MEMBERS_MAX).map(member).collect(),
        roster,
        strict: ordering == CommitOrdering::Strict,
    };
    Answer::json(&visit, &detail).await
}

/// The newest rosters of a group.
async fn rosters(visit: &Visit, group: &NostrGroupId) -> Result<Vec<RosterEntry>, Problem> {
    let filters = [of_group(group, Kind::ROSTER)];
    let up_to = visit.app().groups.readable_up_to();
    let mut read = ArchiveRead::new(&visit.caller, &filters, up_to, Limits::NONE);
    let (mut found, mut bytes) = (Vec::new(), 0);
    let is_full = |count: usize, bytes: usize| count >= ROSTERS_MAX || bytes >= ROSTER_BYTES_MAX;
    while !is_full(found.len(), bytes) {
        let Some(released) = read.next_page().await.map_err(Rejection::from)? else { break };
        for event in &released {
            if is_full(found.len(), bytes) {
                break;
            }
            bytes += event.event().record().len();
            // The keys that it names stand in the answer once more.
            visit.holding().grow(2 * event.event().record().len());
            found.push(RosterEntry::of(event.event(), EventJson::new(event)));
        }
    }
    // Rosters of one second, or of clocks that differ, have an order by `seq` alone.
    found.sort_by_key(|entry| std::cmp::Reverse(entry.seq));
    Ok(found)
}

/// Time of the newest message that the caller may read: an operator that is no member reads none.
async fn newest_message(visit: &Visit, group: &NostrGroupId) -> Result<Option<u64>, Problem> {
    let filters = [Filter { limit: Some(1), ..of_group(group, Kind::GROUP_MESSAGE) }];
    let up_to = visit.app().groups.readable_up_to();
    let mut read = ArchiveRead::new(&visit.caller, &filters, up_to, Limits::NONE);
    let page = read.next_page().await.map_err(Rejection::from)?;
    Ok(page.and_then(|page| page.first().map(|event| event.created_at())))
}

fn of_group(group: &NostrGroupId, kind: Kind) -> Filter {
    let mut filter = Filter { kinds: Some(vec![kind]), ..Filter::default() };
    filter.tags.insert(b'h', vec![group.as_str().into()]);
    filter
}
