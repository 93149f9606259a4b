//! Both databases behind one type. Every query is ONE SQL text, compiled for both by [`on!`].
//!
//! Rules: `$1` placeholders; writes begin with `BEGIN IMMEDIATE` on SQLite ([`Db::write`]); state moves by
//! compare-and-set (`UPDATE … WHERE state = $n`, then exactly one row); no `FOR UPDATE`, no `SKIP LOCKED`;
//! `CAST(sum(…) AS BIGINT)`. A forgotten bind is silently NULL on SQLite: every store test runs on both.

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

#[derive(Clone, Debug)]
pub enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Runs one query on whichever database the transaction is of:
/// `on!(tx, conn => sqlx::query("…").bind(id).execute(conn).await.map(|done| done.rows_affected()))`.
#[macro_export]
macro_rules! on {
    ($tx:expr, $conn:ident => $query:expr) => {
        match $tx {
            $crate::db::Tx::Sqlite(tx) => {
                let $conn = &mut **tx;
                $query
            }
            $crate::db::Tx::Postgres(tx) => {
                let $conn = &mut **tx;
                $query
            }
        }
    };
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{url} is not a database address: use sqlite:PATH or postgres://USER@HOST/NAME")]
    Address { url: String },
    #[error(
        "the database was made by a newer board (migration {0} is not known to this one): run the newer board, or restore a backup of before"
    )]
    Newer(i64),
    #[error("migration {0} of the database differs from this board's: it was changed after it ran")]
    Changed(i64),
    #[error("the database can't be migrated: {0}")]
    Migrate(#[source] MigrateError),
    #[error("the database can't be opened: {0}")]
    Open(#[from] sqlx::Error),
}

impl Db {
    /// Opens `sqlite:PATH` (made when it isn't there) or `postgres://…`.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Self::sqlite(Path::new(path)).await;
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url)?;
            let pool = PgPoolOptions::new().max_connections(16).connect_with(options).await?;
            return Ok(Self::Postgres(pool));
        }
        Err(ConnectError::Address { url: without_password(url) })
    }

    async fn sqlite(path: &Path) -> Result<Self, ConnectError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("secure_delete", "ON")
            .pragma("recursive_triggers", "ON");
        let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await?;
        Ok(Self::Sqlite(pool))
    }

    pub async fn migrate(&self) -> Result<(), ConnectError> {
        let done = match self {
            Self::Sqlite(pool) => SQLITE_MIGRATIONS.run(pool).await,
            Self::Postgres(pool) => POSTGRES_MIGRATIONS.run(pool).await,
        };
        match done {
            Err(MigrateError::VersionMissing(version)) => Err(ConnectError::Newer(version)),
            Err(MigrateError::VersionMismatch(version)) => Err(ConnectError::Changed(version)),
            other => other.map_err(ConnectError::Migrate),
        }
    }

    /// A transaction that may write. On SQLite it takes the write lock at once: a transaction that reads first and
    /// asks for the lock later is refused when another one wrote between.
    pub async fn write(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// A transaction that only reads, and sees one moment of the database.
    pub async fn read(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        })
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// A database address as it may be shown.
pub fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
