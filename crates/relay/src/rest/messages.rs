//! Catching up in the order of receipt: the messages of one group, and one's own inbox.
//!
//! Source: docs/rules.md, "REST" and "Cost of reads". A cursor is a place in the order of receipt, so an event that is
//! back-dated, or that shares its second with others, cannot be missed.

use nostr_extensions::NostrGroupId;
use nostr_protocol::{Filter, Kind, Rejection};
use nostr_store::{Receipt, Received, Recipient};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Answer, Problem, Visit,
    answer::EventJson,
    cursor::{self, Question},
    events::Event,
    list,
    problem::OfList,
};
use crate::session::archive::{
    RESTORED, ReadError,
    receipts::{self, Place, Receipts},
};

/// The kinds of an inbox.
const INBOX_KINDS: [Kind; 3] = [Kind::NOISE_DM, Kind::KEY_PACKAGE_REQUEST, Kind::GIFT_WRAP];

/// Events in the order of their receipt.
#[derive(Serialize, ToSchema)]
pub(crate) struct Caught {
    /// The events, the first received first.
    #[schema(value_type = Vec<Event>)]
    events: Vec<EventJson>,
    /// The cursor behind them, for the next request; also where there was nothing new.
    next_cursor: String,
    /// Whether to ask again at once.
    has_more: bool,
}

/// The messages that are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesParameters {
    /// The group's `h`.
    #[param(example = "grp_abc123")]
    group: String,
    /// The `next_cursor` of the answer before; without it the list begins with the oldest message that is kept.
    since_cursor: Option<String>,
    /// Most events of the answer; at most `max_limit` of the relay.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// The part of the inbox that is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InboxParameters {
    /// The `next_cursor` of the answer before; without it the list begins with the oldest event that is kept.
    since_cursor: Option<String>,
    /// Most events of the answer; at most `max_limit` of the relay.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// The messages (445) of a group behind a cursor.
///
/// A group that is shut to the reader is answered as one without messages.
#[utoipa::path(get, path = "/messages", tag = "messages", security(("nip98" = [])), params(MessagesParameters),
    responses(
        (status = 200, description = "The events, and the cursor to go on from.", body = Caught),
        OfList,
    ))]
pub(super) async fn of_group(visit: Visit) -> Result<Answer, Problem> {
    let key = visit.key()?;
    let MessagesParameters { group, since_cursor, limit } = visit.parameters()?;
    let id = NostrGroupId::parse(&group).ok_or_else(|| Problem::bad_parameter("group is no id of a group"))?;
    let mut filter = Filter { kinds: Some(vec![Kind::GROUP_MESSAGE]), ..Filter::default() };
    filter.tags.insert(b'h', vec![group.as_str().into()]);
    let query = Received { to: Recipient::Group(id), kinds: vec![Kind::GROUP_MESSAGE] };
    let question = Question(&[b"messages", key.as_bytes(), group.as_bytes()]);
    catch_up(&visit, (query, filter), question, since_cursor, limit).await
}

/// The events to the reader behind a cursor: Noise messages (446), KeyPackage requests (447) and gift wraps (1059).
#[utoipa::path(get, path = "/inbox", tag = "messages", security(("nip98" = [])), params(InboxParameters),
    responses(
        (status = 200, description = "The events, and the cursor to go on from.", body = Caught),
        OfList,
    ))]
pub(super) async fn inbox(visit: Visit) -> Result<Answer, Problem> {
    let key = visit.key()?;
    let InboxParameters { since_cursor, limit } = visit.parameters()?;
    let mut filter = Filter { kinds: Some(INBOX_KINDS.to_vec()), ..Filter::default() };
    filter.tags.insert(b'p', vec![key.to_hex().into()]);
    let query = Received { to: Recipient::Key(key), kinds: INBOX_KINDS.to_vec() };
    catch_up(&visit, (query, filter), Question(&[b"inbox", key.as_bytes()]), since_cursor, limit).await
}

async fn catch_up(
    visit: &Visit,
    (query, filter): (Received, Filter),
    question: Question<'_>,
    since: Option<String>,
    limit: Option<usize>,
) -> Result<Answer, Problem> {
    let app = visit.app();
    let limitation = &app.config.limitation;
    let limit = match limit {
        None => limitation.default_limit.clamp(1, limitation.max_limit.max(1)),
        asked => list::limit(asked, limitation.max_limit.max(1))?,
    };
    let from = match since {
        Some(cursor) => unpack(&app.cursors.open(question, &cursor)?)?,
        None => Place::default(),
    };
    app.delivery.fresh().await?;
    let up_to = app.groups.readable_up_to();
    if from.receipt.cursor > up_to {
        return Err(cursor::gone(RESTORED));
    }
    let Receipts { events, next, has_more } =
        match receipts::read(&visit.caller, (&query, &filter), from, up_to, limit).await {
            Err(ReadError::OtherHistory) => return Err(cursor::gone(RESTORED)),
            read => read.map_err(Rejection::from)?,
        };
    let bytes: usize = events.iter().map(|event| event.event().record().len()).sum();
    visit.holding().grow(bytes);
    let caught = Caught {
        events: events.iter().map(EventJson::new).collect(),
        next_cursor: app.cursors.seal(question, &pack(&next)),
        has_more,
    };
    Answer::json(visit, &caught).await
}

/// A place as a cursor holds it.
fn pack(place: &Place) -> [u8; 24] {
    let Place { receipt: Receipt { cursor, look_from }, history } = *place;
    let mut packed = [0; 24];
    for (part, number) in packed.chunks_exact_mut(8).zip([cursor, look_from, history]) {
        part.copy_from_slice(&number.to_be_bytes());
    }
    packed
}

fn unpack(packed: &[u8]) -> Result<Place, Problem> {
    let packed: [u8; 24] = list::fixed(packed)?;
    let mut numbers = packed.chunks_exact(8).map(|part| part.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    let mut next = || numbers.next().unwrap_or_default();
    Ok(Place { receipt: Receipt { cursor: next(), look_from: next() }, history: next() })
}
