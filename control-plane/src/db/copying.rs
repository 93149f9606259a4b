//! Copies of a whole database, for `board backup` and `board restore`.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{Db, Tx};
use crate::on;

// Each is for one of the databases.
const COPY: &str = "VACUUM INTO $1";
const SNAPSHOT: &str = "SELECT pg_export_snapshot()";
const SETTLE: &str = "PRAGMA journal_mode = DELETE";
const SCHEMA: &str = "SELECT current_schema()::text";
const TABLES: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')";
const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND usename IS NOT NULL";

impl Db {
    /// Opens an SQLite file that nobody writes, and changes nothing in it or beside it.
    pub async fn read_only(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
        Ok(Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?))
    }

    /// Copies an SQLite database as it is at one moment into `path`, an empty file. Others go on reading and writing. On
    /// PostgreSQL it does nothing: `pg_dump` copies there.
    pub async fn copy_into(&self, path: &Path) -> Result<(), sqlx::Error> {
        if let Self::Sqlite(pool) = self {
            sqlx::query(COPY).bind(path.to_string_lossy()).execute(pool).await?;
        }
        Ok(())
    }
}

/// The newest migration that ran.
pub async fn schema_version(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(conn)
        .await)
}

/// Lets another session see this transaction's moment, on PostgreSQL.
pub async fn snapshot(tx: &mut Tx) -> Result<Option<String>, sqlx::Error> {
    match tx {
        Tx::Sqlite(_) => Ok(None),
        Tx::Postgres(tx) => sqlx::query_scalar(SNAPSHOT).fetch_one(&mut **tx).await.map(Some),
    }
}

/// Puts everything of an SQLite database into its one file. False while another program has it open.
pub async fn settle(path: &Path) -> Result<bool, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
    let mode: Result<String, sqlx::Error> = sqlx::query_scalar(SETTLE).fetch_one(&mut connection).await;
    let settled = match mode {
        Ok(mode) => mode == "delete",
        Err(sqlx::Error::Database(error)) if error.message().contains("locked") => false,
        Err(error) => return Err(error),
    };
    connection.close().await?;
    Ok(settled)
}

/// A PostgreSQL database that a restore goes into.
pub struct Target {
    connection: PgConnection,
    schema: String,
}

impl Target {
    pub async fn open(url: &str) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect(url).await?;
        let schema = sqlx::query_scalar(SCHEMA).fetch_one(&mut connection).await?;
        Ok(Self { connection, schema })
    }

    pub async fn is_empty(&mut self) -> Result<bool, sqlx::Error> {
        let tables: i64 = sqlx::query_scalar(TABLES).fetch_one(&mut self.connection).await?;
        Ok(tables == 0)
    }

    /// Whether another program is connected.
    pub async fn is_in_use(&mut self) -> Result<bool, sqlx::Error> {
        let others: i64 = sqlx::query_scalar(OTHERS).fetch_one(&mut self.connection).await?;
        Ok(others > 0)
    }

    /// Renames the schema with everything in it, and makes an empty one in its place.
    pub async fn move_aside(&mut self, name: &str) -> Result<(), sqlx::Error> {
        let (from, to) = (super::migrate::quoted(&self.schema), super::migrate::quoted(name));
        let mut tx = self.connection.begin().await?;
        tx.execute(AssertSqlSafe(format!("ALTER SCHEMA {from} RENAME TO {to}"))).await?;
        tx.execute(AssertSqlSafe(format!("CREATE SCHEMA {from}"))).await?;
        // As a database has it that was just made.
        tx.execute(AssertSqlSafe(format!("GRANT USAGE ON SCHEMA {from} TO PUBLIC"))).await?;
        tx.commit().await
    }

    pub async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

/// The newest migration that this board knows.
pub fn newest_schema() -> i64 {
    super::migrate::newest()
}
