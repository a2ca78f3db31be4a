//! Lists in the order of receipt: the first entries of each prefix behind a cursor, and the page is the first of them.

use deadpool_postgres::Client;
use nostr_protocol::UnixSecs;

use super::{
    fail::Fail,
    rows::{cursor, event, number, seal},
};
use crate::{
    Cost, Cursor, Receipt, Received, ReceivedBounds, ReceivedPage,
    decide::{hiding::Hidden, number_of},
};

/// `looked` counts the entries of all ranges: each range gives as many as the whole page may have. `more` says that the
/// page was cut for its bytes.
const PAGE: &str = "with found as (select e.*, count(*) over () as looked \
        from unnest($1::bigint[]) as wanted(prefix) cross join lateral \
            (select cursor, received_at, expires_at, flags, record, \
                coalesce(expires_at > $4, true) and flags & 10 = 0 as fits \
                from rnostr.events where prefixes[1] = wanted.prefix and kind = any (array[445, 446, 447, 1059]) \
                and cursor + 0 > $2 and cursor + 0 <= $3 order by prefixes[1], cursor + 0 limit $5) e), \
    first as (select * from found order by cursor limit $5), \
    sized as (select *, sum(case when fits then octet_length(record) else 0 end) \
        over (order by cursor rows between unbounded preceding and current row) as bytes, \
        count(*) over () as entries from first) \
    select cursor, received_at, expires_at, flags, fits, case when fits then record end as record, looked, entries \
    from sized where bytes - case when fits then octet_length(record) else 0 end < $6 order by cursor";

/// See [`crate::Store::received`].
pub(super) async fn page(
    client: &Client,
    query: &Received,
    (from, up_to): (Receipt, Cursor),
    bounds: ReceivedBounds,
    (now, hidden): (UnixSecs, Hidden),
) -> Result<ReceivedPage, Fail> {
    let end = Receipt { cursor: up_to.max(from.cursor), look_from: 0 };
    let mut page = ReceivedPage { next: end, ..ReceivedPage::default() };
    let prefixes: Vec<i64> = query.prefixes().iter().map(|prefix| number_of(prefix)).collect();
    if from.cursor >= up_to || prefixes.is_empty() {
        return Ok(page);
    }
    let entries_max = i64::try_from(bounds.events_max.min(bounds.entries_max).max(1)).unwrap_or(i64::MAX);
    let bytes_max = i64::try_from(bounds.bytes_max.max(1)).unwrap_or(i64::MAX);
    let statement = client.prepare_cached(PAGE).await?;
    let (behind, last) = (number(from.cursor), number(up_to.min(i64::MAX.unsigned_abs())));
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&prefixes, &behind, &last, &number(now), &entries_max, &bytes_max];
    let rows = client.query(&statement, &parameters).await?;
    page.cost += Cost::of_units(prefixes.len() as u64);
    for row in &rows {
        if row.try_get("fits")? {
            let event = event(row)?;
            page.cost += Cost::of_units(Cost::of_event(event.view()));
            if !hidden.hides(event.view()) {
                let sealed = seal(row, event)?;
                if query.holds(&sealed) {
                    page.events.push(sealed);
                }
            }
        }
    }
    if let Some(row) = rows.last() {
        page.cost += Cost::of_units(row.try_get::<_, i64>("looked")?.unsigned_abs());
        let entries: i64 = row.try_get("entries")?;
        if entries >= entries_max || entries > i64::try_from(rows.len()).unwrap_or(i64::MAX) {
            page.has_more = true;
            page.next.cursor = cursor(row, "cursor")?;
        }
    }
    Ok(page)
}
