//! Rewriting tables after a purge, so that the database's files hold nothing of what was erased.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, SqlitePool};

use super::Db;

const TRUNCATE_WAL: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
/// Whoever has a transaction open in this database. Unlike times and snapshots, locks are shown to every role.
const OPEN: &str = "SELECT virtualtransaction FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'virtualxid' \
                    AND granted AND pid <> pg_backend_pid() AND datname = current_database()";
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(100);
/// The first number that no transaction of the server has yet, and the oldest that still runs, in whichever database.
const NEXT: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
const OLDEST: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
const OWNED: &str = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)";
const FILE_OF: &str = "SELECT pg_relation_filenode(to_regclass($1))::bigint";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    Done,
    /// Somebody read from the database all the while: the log beside it couldn't be emptied, or what was erased is still
    /// there for them. Another time it can.
    Busy,
    /// On PostgreSQL: the connected role may not rewrite tables that belong to another.
    NotOwner,
}

impl Db {
    /// SQLite: the whole file anew, and its log emptied. PostgreSQL: these tables with their large values into new
    /// files; its own log (WAL) and backups end with their retention.
    pub async fn rewrite(&self, tables: &[&str]) -> Result<Rewrite, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => sqlite(pool).await,
            Self::Postgres(pool) => postgres(pool, tables).await,
        }
    }
}

async fn sqlite(pool: &SqlitePool) -> Result<Rewrite, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    connection.execute("VACUUM").await?;
    let (busy, _, _): (i64, i64, i64) = sqlx::query_as(TRUNCATE_WAL).fetch_one(&mut *connection).await?;
    connection.ping().await?;
    Ok(if busy == 0 { Rewrite::Done } else { Rewrite::Busy })
}

/// Who may not rewrite a table gets a warning and no error: a new file proves it.
async fn postgres(pool: &PgPool, tables: &[&str]) -> Result<Rewrite, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    for table in tables {
        let may: Option<bool> =
            sqlx::query_scalar(OWNED).bind(table).fetch_optional(&mut *connection).await?;
        if may == Some(false) {
            return Ok(Rewrite::NotOwner);
        }
    }
    if !readers_are_over(&mut connection).await? {
        return Ok(Rewrite::Busy);
    }
    for table in tables {
        let before: Option<i64> = sqlx::query_scalar(FILE_OF).bind(table).fetch_one(&mut *connection).await?;
        connection.execute(AssertSqlSafe(format!("VACUUM (FULL) {table}"))).await?;
        let after: Option<i64> = sqlx::query_scalar(FILE_OF).bind(table).fetch_one(&mut *connection).await?;
        if before == after {
            return Ok(Rewrite::NotOwner);
        }
    }
    Ok(Rewrite::Done)
}

/// Whether every transaction that is open now ends in time: whoever reads here, and whoever writes anywhere on the server,
/// because the rewrite's own snapshot is no younger than those. A rewritten table keeps what one of them may still see.
async fn readers_are_over(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let next: i64 = sqlx::query_scalar(NEXT).fetch_one(&mut *connection).await?;
    let mut open: Vec<String> = sqlx::query_scalar(OPEN).fetch_all(&mut *connection).await?;
    let mut waited = Duration::ZERO;
    loop {
        let oldest: i64 = sqlx::query_scalar(OLDEST).fetch_one(&mut *connection).await?;
        if (open.is_empty() && oldest >= next) || waited >= PATIENCE {
            return Ok(open.is_empty() && oldest >= next);
        }
        tokio::time::sleep(BETWEEN).await;
        waited += BETWEEN;
        let still: Vec<String> = sqlx::query_scalar(OPEN).fetch_all(&mut *connection).await?;
        open.retain(|one| still.contains(one));
    }
}
