//! The tables, by versioned migrations: each runs once, in a transaction of its own, under a lock that lets any number of
//! processes start at once.

use tokio_postgres::Client;

use super::fail::Fail;

/// Each brings the tables one version further.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];
/// The lock under which tables are made, taken for the length of one transaction.
const MIGRATION_LOCK: i64 = 0x726e_6f73_7472;
/// The oldest server that has everything that is used here, as `server_version_num`.
const SERVER_VERSION_MIN: i32 = 130_000;

/// Brings the tables to the version of this build.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Fail> {
    let server: i32 = client.query_one("select current_setting('server_version_num')::int", &[]).await?.get(0);
    if server < SERVER_VERSION_MIN {
        return Err(Fail::Unfit(format!("the server is PostgreSQL {}; 13 or newer is needed", server / 10_000)));
    }
    loop {
        let transaction = client.transaction().await?;
        transaction.execute("select pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
        // Asked for under the lock alone: `if not exists` is no protection against two that create at one time.
        if !exists(&transaction).await? {
            transaction
                .batch_execute(
                    "create schema if not exists rnostr; create table rnostr.schema_version (version int not null);
                     insert into rnostr.schema_version values (0)",
                )
                .await?;
        }
        let version: i32 = transaction.query_one("select version from rnostr.schema_version", &[]).await?.get(0);
        let known = MIGRATIONS.len();
        let version = usize::try_from(version).map_err(|_| Fail::Corrupt("the version of the tables is negative"))?;
        if version > known {
            return Err(Fail::Unfit(format!(
                "the tables are of version {version}, made by a newer release; this one knows versions up to {known}"
            )));
        }
        let Some(migration) = MIGRATIONS.get(version) else { return Ok(()) };
        transaction.batch_execute(migration).await?;
        transaction.batch_execute("update rnostr.schema_version set version = version + 1").await?;
        transaction.commit().await?;
        tracing::info!("the tables are of version {} now", version + 1);
    }
}

async fn exists(transaction: &tokio_postgres::Transaction<'_>) -> Result<bool, Fail> {
    Ok(transaction.query_one("select to_regclass('rnostr.schema_version') is not null", &[]).await?.get(0))
}
