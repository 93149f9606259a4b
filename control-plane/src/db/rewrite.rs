//! Rewriting tables after a purge, so that the database's files hold nothing of what was erased.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool, SqlitePool};

use super::Db;

const TRUNCATE_WAL: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
const FILE_OF: &str = "SELECT pg_relation_filenode(to_regclass($1))::bigint";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    Done,
    /// Somebody read from the database all the while; the log beside it couldn't be emptied. Another time it can.
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
        let before: Option<i64> = sqlx::query_scalar(FILE_OF).bind(table).fetch_one(&mut *connection).await?;
        connection.execute(AssertSqlSafe(format!("VACUUM (FULL) {table}"))).await?;
        let after: Option<i64> = sqlx::query_scalar(FILE_OF).bind(table).fetch_one(&mut *connection).await?;
        if before == after {
            return Ok(Rewrite::NotOwner);
        }
    }
    Ok(Rewrite::Done)
}
