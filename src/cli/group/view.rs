//! The state of a group, from the REST API, or from its rosters where the relay has no such API.

use std::collections::BTreeMap;

use nostr_extensions::{NostrGroupId, Role, mls_gateway::group::GROUP_MEMBERS_MAX};
use nostr_protocol::{Event, Kind, PublicKey, sign::SecretKey, tag::name};
use serde_json::{Value, json};

use super::{
    super::{
        address::Address,
        client::{Client, Reply, Rest, next_cursor, text},
    },
    replay::{Replayed, replay},
};

/// Most members of one page, as the API has it.
const PAGE_MEMBERS_MAX: usize = 1_000;
/// Most rosters that are asked for where there is no API.
const ROSTERS_READ_MAX: usize = 500;

/// The members of a group, each with its role.
pub(in crate::cli) type Members = BTreeMap<PublicKey, Role>;

/// A managed group, as one reader sees it.
#[derive(Debug)]
pub(in crate::cli) struct View {
    pub(super) name: Option<String>,
    pub(super) epoch: Option<u64>,
    /// Unix seconds.
    pub(super) created_at: Option<u64>,
    /// The word of the API for the source of the members.
    pub(super) source: Option<String>,
    /// The `seq` of the last roster; 0 before the first.
    pub(in crate::cli) seq: u64,
    /// The members; `None` where the rosters that are left do not tell them.
    pub(in crate::cli) members: Option<Members>,
    /// A limit of this view, in words.
    pub(super) remark: Option<String>,
}

/// Asks for the state of a group; `None` if the relay does not show it to this key.
///
/// # Errors
/// The relay gives no answer, refuses to give one, or gives one that is none.
pub(in crate::cli) async fn look(
    relay: &Address,
    key: &SecretKey,
    group: &NostrGroupId,
) -> Result<Option<View>, String> {
    let rest = Rest::new(relay, Some(key))?;
    let path = format!("/groups/{}", group.as_str());
    match rest.get(&path).await? {
        Reply::NoDoor => by_rosters(relay, key, group).await,
        Reply::Refused(refusal) if refusal.status == hyper::StatusCode::NOT_FOUND => Ok(None),
        Reply::Refused(refusal) => Err(format!("{} refuses: {refusal}", relay.url)),
        Reply::Found(shown) => {
            let seq =
                shown["seq"].as_u64().ok_or_else(|| format!("{} does not tell the group's sequence", relay.url))?;
            Ok(Some(View {
                name: shown["display_name"].as_str().map(text::said),
                epoch: shown["last_epoch"].as_u64(),
                created_at: shown["created_at"].as_str().and_then(text::secs),
                source: shown["source"].as_str().map(text::said),
                seq,
                members: members(&rest, relay, &path).await?,
                remark: None,
            }))
        }
    }
}

/// All members, page by page; `None` if the key left the group meanwhile.
async fn members(rest: &Rest<'_>, relay: &Address, group: &str) -> Result<Option<Members>, String> {
    let first = format!("{group}/members?limit={PAGE_MEMBERS_MAX}");
    let (mut path, mut found) = (first.clone(), Members::new());
    loop {
        let page = match rest.get(&path).await? {
            Reply::Found(page) => page,
            Reply::Refused(refusal) if refusal.status == hyper::StatusCode::NOT_FOUND => return Ok(None),
            Reply::NoDoor => return Ok(None),
            Reply::Refused(refusal) => return Err(format!("{} does not list the members: {refusal}", relay.url)),
        };
        let before = found.len();
        for entry in page["members"].as_array().into_iter().flatten().take(PAGE_MEMBERS_MAX) {
            let (key, role) = member(entry).ok_or_else(|| format!("{} lists a member that is none", relay.url))?;
            found.insert(key, role);
        }
        let Some(cursor) = next_cursor(&page)? else { return Ok(Some(found)) };
        // A page without a further member would go on for ever.
        if found.len() == before || found.len() > GROUP_MEMBERS_MAX {
            return Err(format!("{} lists members without end", relay.url));
        }
        path = format!("{first}&cursor={cursor}");
    }
}

fn member(entry: &Value) -> Option<(PublicKey, Role)> {
    Some((PublicKey::from_hex(entry["pubkey"].as_str()?)?, Role::parse(entry["role"].as_str()?)?))
}

/// The state that the rosters tell. The relay gives them to members and to admin keys alone.
async fn by_rosters(relay: &Address, key: &SecretKey, group: &NostrGroupId) -> Result<Option<View>, String> {
    let filter = json!({"kinds": [450], "#h": [group.as_str()], "limit": ROSTERS_READ_MAX});
    let found = Client::open(relay, Some(key)).await?.stored("rosters", &[filter]).await?;
    let stored = found.map_err(|reason| format!("{} does not show the group's rosters: {reason}", relay.url))?;
    let events = &stored.events;
    if !events.iter().all(|event| is_roster_of(event, group)) {
        return Err(format!("{} sent an event that is no roster of the group", relay.url));
    }
    let Some(Replayed { seq, name, members }) = replay(events) else { return Ok(None) };
    // The order of the answer is not that of the numbers, so any roster may be among those that were left out.
    let is_whole = !stored.holds_more && events.len() < ROSTERS_READ_MAX;
    let remark = "The relay has no REST API, so this is what the rosters that it keeps say: gift wraps, members that \
                  vanished and the epoch are not in it.";
    Ok(Some(View {
        name: name.map(|name| text::said(&name)),
        epoch: None,
        created_at: None,
        source: None,
        seq,
        members: members.filter(|_| is_whole),
        remark: Some(remark.to_owned()),
    }))
}

fn is_roster_of(event: &Event, group: &NostrGroupId) -> bool {
    event.kind() == Kind::ROSTER && event.tags().value(name::GROUP) == Some(group.as_str())
}
