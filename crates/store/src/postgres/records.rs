//! Records of the relay itself: one statement each, beside the log's lock.

use deadpool_postgres::Client;

use super::{fail::Fail, rows::number};
use crate::{RecordName, StoredRecord};

const READ: &str = "select version, value from rnostr.records where name = $1 and version <> $2";
const MAKE: &str = "insert into rnostr.records (name, version, value) values ($1, 1, $2) on conflict (name) do nothing";
const CHANGE: &str = "update rnostr.records set version = version + 1, value = $3 where name = $1 and version = $2";

/// See [`crate::Store::record`].
pub(super) async fn read(client: &Client, name: RecordName, known: u64) -> Result<Option<StoredRecord>, Fail> {
    let statement = client.prepare_cached(READ).await?;
    let Some(row) = client.query_opt(&statement, &[&name.as_str(), &number(known)]).await? else { return Ok(None) };
    let version: i64 = row.try_get("version")?;
    let version = u64::try_from(version).map_err(|_| Fail::Corrupt("the version of a record is negative"))?;
    Ok(Some(StoredRecord { version, value: row.try_get("value")? }))
}

/// See [`crate::Store::put_record`].
pub(super) async fn put(client: &Client, name: RecordName, known: u64, value: &[u8]) -> Result<bool, Fail> {
    let written = if known == 0 {
        let statement = client.prepare_cached(MAKE).await?;
        client.execute(&statement, &[&name.as_str(), &value]).await?
    } else {
        let statement = client.prepare_cached(CHANGE).await?;
        client.execute(&statement, &[&name.as_str(), &number(known), &value]).await?
    };
    Ok(written == 1)
}
