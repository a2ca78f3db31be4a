//! Groups: the registry's entry, members, rosters, and the list of one's own.
//!
//! Source: MLS Gateway specification, "MLS Group Information"; docs/rules.md, "Registry" and "REST". Members and admin
//! keys see a group; for anybody else it is absent, at the same cost.

use futures_util::future::try_join_all;
use nostr_extensions::{Group, NostrGroupId, Role, registry::ShownGroup};
use nostr_protocol::{EventId, Filter, Kind, PublicKey, Rejection};
use nostr_store::Cost;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Answer, Problem, Visit,
    answer::EventJson,
    cursor::Question,
    events::Event,
    list::{self, List},
    path::PathValues,
    problem::{OfGet, OfList, ProblemDocument},
};
use crate::{
    error::read_failed,
    rate_limit::Cause,
    session::{
        archive::{ArchiveRead, Limits, MEMBERSHIP_UNITS, Meter, NAMED_GROUP_UNITS},
        settling,
    },
    system::time::rfc3339,
};

/// Most groups of one page.
const GROUPS_MAX: usize = 100;
/// Most members of one page.
const MEMBERS_MAX: usize = 1_000;
/// Most rosters of one page.
const ROSTERS_MAX: usize = 500;
/// Most groups whose states one turn at the store reads.
pub(crate) const GROUPS_PER_TURN_MAX: usize = 16;
/// Most members that one unit of a read's cost pays for, as tags of an event.
pub(crate) const MEMBERS_PER_UNIT: u64 = 32;

/// A managed group.
#[derive(Serialize, ToSchema)]
#[schema(title = "Group")]
pub(crate) struct GroupInfo {
    /// The group's id on Nostr: its `h`.
    #[schema(example = "grp_abc123")]
    group_id: String,
    /// The name that the newest roster with a name gave; null while there is none.
    #[schema(example = "Team Chat")]
    display_name: Option<String>,
    /// Number of members.
    #[schema(example = 5)]
    member_count: usize,
    /// The highest epoch that a message showed; null while none did.
    #[schema(example = 42)]
    last_epoch: Option<u64>,
    /// Time at which the group was founded, in UTC (RFC 3339).
    #[schema(example = "2025-01-01T00:00:00Z", format = DateTime)]
    created_at: String,
    /// The source that decides about the members: `acl`, `roster` or `giftwrap`.
    #[schema(example = "roster")]
    source: &'static str,
    /// The `seq` of the last roster; 0 before the first.
    #[schema(example = 17)]
    seq: u64,
}

impl GroupInfo {
    fn of(shown: ShownGroup<'_>) -> Self {
        Self {
            group_id: shown.id().as_str().to_owned(),
            display_name: shown.display_name().map(str::to_owned),
            member_count: shown.member_count(),
            last_epoch: shown.last_epoch(),
            created_at: rfc3339(shown.created_at()),
            source: shown.source().as_str(),
            seq: shown.seq(),
        }
    }
}

/// Groups of the reader.
#[derive(Serialize, ToSchema)]
pub(crate) struct GroupList {
    /// In the order of their ids.
    groups: Vec<GroupInfo>,
    /// The cursor of the next page; null at the end.
    next_cursor: Option<String>,
}

/// A member of a group.
#[derive(Serialize, ToSchema)]
pub(crate) struct Member {
    /// The member's key, in hex.
    #[schema(example = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")]
    pubkey: String,
    /// `member` or `admin`.
    #[schema(example = "member")]
    role: &'static str,
}

/// Members of a group.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberList {
    /// In the order of their keys.
    members: Vec<Member>,
    /// The cursor of the next page; null at the end.
    next_cursor: Option<String>,
}

/// Rosters of a group.
#[derive(Serialize, ToSchema)]
pub(crate) struct RosterList {
    /// Events of kind 450, the newest first.
    #[schema(value_type = Vec<Event>)]
    events: Vec<EventJson>,
    /// The cursor of the next page; null at the end.
    next_cursor: Option<String>,
}

/// The page of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Most entries of the answer.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// The `next_cursor` of the answer before.
    cursor: Option<String>,
}

/// The groups of the reader's key.
#[utoipa::path(get, path = "/groups", tag = "groups", security(("nip98" = [])), params(Paging),
    responses(
        (status = 200, description = "The groups of which the key is a member.", body = GroupList),
        OfList,
    ))]
pub(super) async fn all(visit: Visit) -> Result<Answer, Problem> {
    let key = visit.key()?;
    let Paging { limit, cursor } = visit.parameters()?;
    let limit = list::limit(limit, GROUPS_MAX)?;
    let question = Question(&[b"groups", key.as_bytes()]);
    let behind = match cursor {
        Some(cursor) => Some(list::text(visit.app().cursors.open(question, &cursor)?)?),
        None => None,
    };
    let app = visit.app();
    let mut meter = Meter::new(&visit.caller);
    meter.may_go_on().map_err(Rejection::from)?;
    app.delivery.fresh().await?;
    let turn = meter.turn_at_store().await;
    let mut ids = app.store.groups_of(visit.caller.reader.keys()).await.map_err(read_failed)?;
    drop(turn);
    meter.charge(list::cost(app, MEMBERSHIP_UNITS, ids.len().max(1)));
    ids.sort_unstable();
    ids.retain(|id| behind.as_deref().is_none_or(|behind| id.as_str() > behind));
    let mut page = List::new(limit);
    let invited = settling::invited(&visit.caller, &mut meter, &ids).await.map_err(Rejection::from)?;
    let cause = |id: &NostrGroupId| if invited.contains(id) { Cause::Invited } else { Cause::Acted };
    for some in ids.chunks(GROUPS_PER_TURN_MAX) {
        if page.is_full() {
            break;
        }
        let settled = settling::for_ids(&visit.caller, &meter, some, cause).await.map_err(Rejection::from)?;
        let closed = settled.closed();
        let open: Vec<NostrGroupId> = some.iter().filter(|id| !closed.contains(*id)).cloned().collect();
        for group in states(&visit, &mut meter, &open).await? {
            // A group that the key left meanwhile is not shown.
            if let Some(shown) = app.gate.show(&group, &visit.caller.reader) {
                page.push(GroupInfo::of(shown));
            }
        }
    }
    let (groups, has_more) = page.end();
    let last = groups.last().filter(|_| has_more);
    let next_cursor = last.map(|last| app.cursors.seal(question, last.group_id.as_bytes()));
    Answer::json(&visit, &GroupList { groups, next_cursor }).await
}

/// The states of groups as they are in the store, with their last epochs.
pub(crate) async fn states(visit: &Visit, meter: &mut Meter<'_>, ids: &[NostrGroupId]) -> Result<Vec<Group>, Problem> {
    let app = visit.app();
    meter.may_go_on().map_err(Rejection::from)?;
    meter.charge(list::cost(app, NAMED_GROUP_UNITS, ids.len()));
    let _turn = meter.turn_at_store().await;
    let read = try_join_all(ids.iter().map(|id| app.store.group(id))).await.map_err(read_failed)?;
    Ok(read.into_iter().map(|(group, _)| group).collect())
}

/// The state of a group that the reader may see.
async fn shown(visit: &Visit, path: &PathValues) -> Result<Group, Problem> {
    let app = visit.app();
    let id = path.get("group_id").and_then(NostrGroupId::parse);
    group_for(visit, id, |group| app.gate.show(group, &visit.caller.reader).is_some()).await
}

/// The state of the group of this id, if it is open to the reader by what `opens` says of a state.
///
/// A group that is hidden costs as much as one that does not exist: the store is asked once which of the named groups
/// it knows, and the state of one that opens is read anew.
///
/// # Errors
/// 404 for a group that does not open, and for one that does not exist.
pub(crate) async fn group_for(
    visit: &Visit,
    id: Option<NostrGroupId>,
    opens: impl Fn(&Group) -> bool,
) -> Result<Group, Problem> {
    visit.key()?;
    let app = visit.app();
    let mut meter = Meter::new(&visit.caller);
    meter.may_go_on().map_err(Rejection::from)?;
    meter.charge(list::cost(app, NAMED_GROUP_UNITS, 1));
    app.delivery.fresh().await?;
    let id = id.ok_or_else(Problem::not_found)?;
    let asked = std::slice::from_ref(&id);
    if !settling::for_named(&visit.caller, &meter, asked).await.map_err(Rejection::from)?.is_empty() {
        // As for a group that does not exist: nobody can be asked about that one either.
        return Err(settling::closed().into());
    }
    let turn = meter.turn_at_store().await;
    let open = app.groups.filter(vec![id], &visit.caller.named, &opens).await.map_err(read_failed)?;
    drop(turn);
    let group = states(visit, &mut meter, &open).await?.pop();
    group.filter(|group| opens(group)).ok_or_else(Problem::not_found)
}

/// One group.
#[utoipa::path(get, path = "/groups/{group_id}", tag = "groups", security(("nip98" = [])),
    params(("group_id" = String, Path, description = "The group's `h`, percent-encoded.", example = "grp_abc123")),
    responses(
        (status = 200, description = "The group, for its members and admin keys.", body = GroupInfo),
        (status = 404, description = "There is none that this reader may see.", body = ProblemDocument),
        OfGet,
    ))]
pub(super) async fn one(path: PathValues, visit: Visit) -> Result<Answer, Problem> {
    let group = shown(&visit, &path).await?;
    let shown = visit.app().gate.show(&group, &visit.caller.reader).ok_or_else(Problem::not_found)?;
    Answer::json(&visit, &GroupInfo::of(shown)).await
}

/// The members of a group, with their roles.
#[utoipa::path(get, path = "/groups/{group_id}/members", tag = "groups", security(("nip98" = [])),
    params(("group_id" = String, Path, description = "The group's `h`, percent-encoded.", example = "grp_abc123"),
        Paging),
    responses(
        (status = 200, description = "Keys and roles, for members and admin keys.", body = MemberList),
        (status = 404, description = "There is no such group that this reader may see.", body = ProblemDocument),
        OfList,
    ))]
pub(super) async fn members(path: PathValues, visit: Visit) -> Result<Answer, Problem> {
    let key = visit.key()?;
    let Paging { limit, cursor } = visit.parameters()?;
    let limit = list::limit(limit, MEMBERS_MAX)?;
    let group = shown(&visit, &path).await?;
    let app = visit.app();
    let shown = app.gate.show(&group, &visit.caller.reader).ok_or_else(Problem::not_found)?;
    let question = Question(&[b"members", key.as_bytes(), shown.id().as_str().as_bytes()]);
    let behind: Option<PublicKey> = match cursor {
        Some(cursor) => Some(PublicKey::from_bytes(list::fixed(&app.cursors.open(question, &cursor)?)?)),
        None => None,
    };
    let mut meter = Meter::new(&visit.caller);
    meter.charge(Cost::of_units(shown.member_count() as u64 / MEMBERS_PER_UNIT));
    let mut page = List::new(limit);
    for member in shown.members() {
        if behind.is_none_or(|behind| member.0 > behind) && !page.is_full() {
            page.push(member);
        }
    }
    let (members, has_more) = page.end();
    let last = members.last().filter(|_| has_more);
    let next_cursor = last.map(|(key, _)| app.cursors.seal(question, key.as_bytes()));
    let member = |(key, role): &(PublicKey, Role)| {
        let role = if *role == Role::Admin { "admin" } else { "member" };
        Member { pubkey: key.to_hex(), role }
    };
    Answer::json(&visit, &MemberList { members: members.iter().map(member).collect(), next_cursor }).await
}

/// The rosters of a group: its changes by admins, the newest first.
#[utoipa::path(get, path = "/groups/{group_id}/roster", tag = "groups", security(("nip98" = [])),
    params(("group_id" = String, Path, description = "The group's `h`, percent-encoded.", example = "grp_abc123"),
        Paging),
    responses(
        (status = 200, description = "Events of kind 450, for members and admin keys.", body = RosterList),
        (status = 404, description = "There is no such group that this reader may see.", body = ProblemDocument),
        OfList,
    ))]
pub(super) async fn roster(path: PathValues, visit: Visit) -> Result<Answer, Problem> {
    let key = visit.key()?;
    let Paging { limit, cursor } = visit.parameters()?;
    let limit = list::limit(limit, ROSTERS_MAX)?;
    let group = shown(&visit, &path).await?;
    let app = visit.app();
    let question = Question(&[b"roster", key.as_bytes(), group.id.as_str().as_bytes()]);
    let behind = match cursor {
        Some(cursor) => Some(list::position(&app.cursors.open(question, &cursor)?)?),
        None => None,
    };
    let until = behind.map(|(created_at, _)| created_at);
    let mut filter = Filter { kinds: Some(vec![Kind::ROSTER]), until, ..Filter::default() };
    filter.tags.insert(b'h', vec![group.id.as_str().into()]);
    let filters = [filter];
    let mut read = ArchiveRead::new(&visit.caller, &filters, app.groups.readable_up_to(), Limits::NONE);
    let mut page: List<(u64, EventId, EventJson)> = List::new(limit);
    while !page.is_full() {
        let Some(released) = read.next_page().await.map_err(Rejection::from)? else { break };
        for event in &released {
            let (created_at, id) = (event.created_at(), event.id());
            let is_behind = behind.is_none_or(|(at, last)| created_at < at || (created_at == at && id > last));
            if is_behind && !page.is_full() {
                visit.holding().grow(event.event().record().len());
                page.push((created_at, id, EventJson::new(event)));
            }
        }
    }
    if read.is_withheld() {
        // A cursor behind them would pass over rosters that come back.
        return Err(settling::closed().into());
    }
    drop(read);
    let (found, has_more) = page.end();
    let last = found.last().filter(|_| has_more);
    let next_cursor = last.map(|(at, id, _)| app.cursors.seal(question, &list::place(*at, *id)));
    let events = found.into_iter().map(|(_, _, event)| event).collect();
    Answer::json(&visit, &RosterList { events, next_cursor }).await
}
