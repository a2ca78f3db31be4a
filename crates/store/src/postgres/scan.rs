//! Queries: each prefix of a plan gives its first entries in NIP-01's order, and a page is the first of all of them.

use deadpool_postgres::Client;
use nostr_extensions::{Query, query::Position};
use nostr_protocol::{EventId, Kind, UnixSecs};
use tokio_postgres::Row;

use super::{
    fail::Fail,
    rows::{event, event_id, number, seal},
};
use crate::{
    Cost, Cursor, Page, PageBounds,
    decide::{self, hiding::Hidden},
};

/// The common part of both queries. It takes the entries of `found` in order and adds the events that may fit, up to
/// the page's bytes. An entry leads to no event if its event was removed and no sweep has taken the entry yet. Such an
/// entry counts as looked at, like others, so that a page ends behind a bounded number of entries.
macro_rules! page {
    ($found:literal) => {
        concat!(
            "with found as (",
            $found,
            "), sized as (select f.age, f.id, f.looked, e.cursor, e.received_at, e.expires_at, e.flags, e.record, \
                fits.fits, \
                sum(case when fits.fits then octet_length(e.record) else 0 end) \
                    over (order by f.age, f.id rows between unbounded preceding and current row) as bytes, \
                count(*) over () as entries \
                from found f left join rnostr.events e on e.cursor = f.cursor \
                cross join lateral (select coalesce(e.cursor <= $1 and (e.expires_at is null or e.expires_at > $2) \
                    and e.flags & 10 = 0 and ($3::int[] is null or e.kind = any($3)) \
                    and ($4::bytea[] is null or e.author = any($4)), false) as fits) fits) \
            select age, id, looked, cursor, received_at, expires_at, flags, case when fits then record end as record, \
                fits, entries from sized \
            where bytes - case when fits then octet_length(record) else 0 end < $5 order by age, id"
        )
    };
}

/// `looked` counts the entries of all ranges: each range gives as many as the whole page may have.
const BY_PREFIXES: &str = page!(
    "select distinct l.age, l.id, l.cursor, l.looked from \
        (select i.age, i.id, i.cursor, count(*) over () as looked \
            from unnest($6::bigint[]) as wanted(prefix) cross join lateral \
                (select age, id, cursor from rnostr.event_index where prefix = wanted.prefix and (age, id) > ($7, $8) \
                    and age <= $9 order by age, id limit $10) i) l \
        order by l.age, l.id limit $10"
);
const BY_IDS: &str = page!(
    "select -created_at as age, id, cursor, count(*) over () as looked from rnostr.events \
        where id = any($6::bytea[]) and flags & 8 = 0 and (-created_at, id) > ($7, $8) and -created_at <= $9 \
        order by age, id limit $10"
);

/// Arguments of [`crate::Store::scan`].
pub(super) struct Scan<'a> {
    pub(super) query: &'a Query,
    pub(super) from: Option<Position>,
    pub(super) up_to: Cursor,
    pub(super) bounds: PageBounds,
    pub(super) now: UnixSecs,
    pub(super) hidden: Hidden,
}

impl Scan<'_> {
    /// One page of an answer.
    pub(super) async fn page(self, client: &Client) -> Result<Page, Fail> {
        let Self { query, from, up_to, bounds, now, ref hidden } = self;
        let filter = &query.filter;
        if filter.is_impossible() || !query.finds_something() {
            return Ok(Page::default());
        }
        let prefixes = if filter.ids.is_none() { decide::plan(query, bounds.part) } else { Vec::new() };
        if filter.ids.is_none() && prefixes.is_empty() {
            return Ok(Page::default());
        }
        let kinds: Option<Vec<i32>> =
            filter.kinds.as_ref().map(|kinds| kinds.iter().map(|Kind(kind)| i32::from(*kind)).collect());
        let authors: Option<Vec<&[u8]>> =
            filter.authors.as_ref().map(|authors| authors.iter().map(|key| &key.as_bytes()[..]).collect());
        let ids = bounds.part.of(filter.ids.as_deref().unwrap_or_default());
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
        let descents = prefixes.len() + ids.len();
        // The empty id sorts before all others, so this position lies before all events of the same age.
        let first = (filter.until.map_or(i64::MIN, |until| -number(until)), Vec::new());
        let behind = from.map_or_else(|| first.clone(), |from| (-number(from.created_at), from.id.as_bytes().to_vec()));
        let (age, id) = behind.max(first);
        let oldest = -number(filter.since.unwrap_or(0));
        let entries_max = i64::try_from(bounds.events_max.min(bounds.entries_max).max(1)).unwrap_or(i64::MAX);
        let bytes_max = i64::try_from(bounds.bytes_max.max(1)).unwrap_or(i64::MAX);
        let (up_to, now) = (number(up_to), number(now));
        let statement = client.prepare_cached(if filter.ids.is_some() { BY_IDS } else { BY_PREFIXES }).await?;
        let rows = if filter.ids.is_some() {
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
                [&up_to, &now, &kinds, &authors, &bytes_max, &ids, &age, &id, &oldest, &entries_max];
            client.query(&statement, &parameters).await?
        } else {
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
                [&up_to, &now, &kinds, &authors, &bytes_max, &prefixes, &age, &id, &oldest, &entries_max];
            client.query(&statement, &parameters).await?
        };
        page_of(query, &rows, entries_max, descents, hidden)
    }
}

fn page_of(query: &Query, rows: &[Row], entries_max: i64, descents: usize, hidden: &Hidden) -> Result<Page, Fail> {
    let mut page = Page { cost: Cost::of_units(descents as u64), ..Page::default() };
    for row in rows {
        if row.try_get("fits")? {
            let event = event(row)?;
            page.cost += Cost::of_units(Cost::of_event(event.view()));
            if query.filter.matches(event.view()) && !hidden.hides(event.view()) {
                page.events.push(seal(row, event)?);
            }
        }
    }
    let Some(last) = rows.last() else { return Ok(page) };
    page.cost += Cost::of_units(last.try_get::<_, i64>("looked")?.unsigned_abs());
    let entries: i64 = last.try_get("entries")?;
    // More events may follow a full page, and more do follow a page that was cut for its bytes.
    if entries >= entries_max || entries > i64::try_from(rows.len()).unwrap_or(i64::MAX) {
        let age: i64 = last.try_get("age")?;
        let id: EventId = event_id(last, "id")?;
        page.next = Some(Position { created_at: age.unsigned_abs(), id });
    }
    Ok(page)
}
