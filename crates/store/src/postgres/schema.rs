//! The tables, by versioned migrations. Each runs once, in its own transaction, under a lock that lets any number of
//! processes start together.

use tokio_postgres::Client;

use super::fail::Fail;

/// Migrations. Each brings the tables one version further.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
    include_str!("migrations/0009.sql"),
    include_str!("migrations/0010.sql"),
    include_str!("migrations/0011.sql"),
    include_str!("migrations/0012.sql"),
    include_str!("migrations/0013.sql"),
    include_str!("migrations/0014.sql"),
];
/// The advisory lock of a migration, held for one transaction.
const MIGRATION_LOCK: i64 = 0x726e_6f73_7472;
/// The oldest server with all features that this store uses, as `server_version_num`.
const SERVER_VERSION_MIN: i32 = 130_000;

/// Brings the tables to the version of this build.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Fail> {
    let server: i32 = client.query_one("select current_setting('server_version_num')::int", &[]).await?.get(0);
    if server < SERVER_VERSION_MIN {
        return Err(Fail::Unfit(format!("the server is PostgreSQL {}; 13 or newer is needed", server / 10_000)));
    }
    loop {
        let transaction = client.transaction().await?;
        // A migration of large tables takes its time.
        transaction.batch_execute("set local statement_timeout = 0").await?;
        transaction.execute("select pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
        // The lock is needed: two sessions that run `if not exists` at the same time can collide.
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
