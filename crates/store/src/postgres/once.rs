//! Names that are used once: one statement each, beside the log's lock.

use deadpool_postgres::Client;
use nostr_protocol::UnixSecs;

use super::{fail::Fail, rows::number};
use crate::{ONCE_FORGOTTEN_MAX, OnceName};

/// Gives a row if the name was free, or past its time.
const USE: &str = "insert into rnostr.used_once as u (name, until) values ($1, $2) \
    on conflict (name) do update set until = excluded.until where u.until <= $3 returning name";
const FORGET: &str = "delete from rnostr.used_once where name in \
    (select name from rnostr.used_once where until <= $1 order by until limit $2 for update skip locked)";

/// See [`crate::Store::use_once`].
pub(super) async fn use_once(client: &Client, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, Fail> {
    let statement = client.prepare_cached(USE).await?;
    Ok(client.query_opt(&statement, &[&&name[..], &number(until), &number(now)]).await?.is_some())
}

/// Forgets some names past their time. Returns whether more may be left.
pub(super) async fn forget(client: &Client, now: UnixSecs) -> Result<bool, Fail> {
    let statement = client.prepare_cached(FORGET).await?;
    let most = i64::try_from(ONCE_FORGOTTEN_MAX).unwrap_or(i64::MAX);
    Ok(client.execute(&statement, &[&number(now), &most]).await? >= ONCE_FORGOTTEN_MAX as u64)
}
