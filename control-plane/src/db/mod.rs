//! Both databases behind one type. Every query is ONE SQL text, compiled for both by [`on!`].
//!
//! Rules: `$1` placeholders; writes begin with `BEGIN IMMEDIATE` on SQLite ([`Db::write`]); state moves by
//! compare-and-set (`UPDATE … WHERE state = $n`, then exactly one row); no `FOR UPDATE`, no `SKIP LOCKED`;
//! `CAST(sum(…) AS BIGINT)`. A forgotten bind is silently NULL on SQLite: every store test runs on both.

mod cause;
pub mod copying;
mod look;
mod migrate;
mod rewrite;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

pub use cause::Cause;
pub use look::Rights;
pub use migrate::Ownership;
pub use rewrite::Rewrite;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgPool, Postgres, Sqlite, SqlitePool, Transaction};

/// A statement waits this long for a lock that somebody else holds, then the request is refused.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// A request waits this long for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

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
    #[error(
        "the database is of an older board (migration {0} is missing), and the board's role may not change it: run `board migrate --owner-url postgres://OWNER@HOST/NAME`; nothing was changed"
    )]
    Older(i64),
    #[error(
        "the database holds no tables, and the board's role may not make them: run `board migrate --owner-url postgres://OWNER@HOST/NAME`"
    )]
    Empty,
    #[error(
        "the board's role may not read the database's tables: run `board migrate --owner-url postgres://OWNER@HOST/NAME`, which grants it what it needs"
    )]
    NotGranted,
    #[error(
        "the tables belong to the role {owner}: name it in --owner-url, or hand the tables over (REASSIGN OWNED) first; nothing was changed"
    )]
    NotOwner { owner: String },
    #[error(
        "the role {role} of --database owns the tables or is a superuser, so nothing would keep it from changing the audit log: make a role of its own for the board (CREATE ROLE board LOGIN); nothing was changed"
    )]
    SameRole { role: String },
    #[error(
        "--owner-url leads to {owner}, and --database to {board}: name the same database of the same server in both; nothing was changed"
    )]
    OtherDatabase { owner: String, board: String },
    #[error(
        "--owner-url is for PostgreSQL: SQLite has no roles, who owns the file owns the tables; leave it out"
    )]
    NoRoles,
    #[error("the database can't be migrated")]
    Migrate(#[source] MigrateError),
    #[error("the database can't be opened")]
    Open(#[from] sqlx::Error),
}

impl Db {
    /// Opens `sqlite:PATH` (made when it isn't there) or `postgres://…`.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Self::sqlite(Path::new(path)).await;
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Self::postgres(PgConnectOptions::from_str(url)?).await;
        }
        Err(ConnectError::Address { url: without_password(url) })
    }

    async fn postgres(options: PgConnectOptions) -> Result<Self, ConnectError> {
        let options = options.options([("lock_timeout", format!("{}s", LOCK_TIMEOUT.as_secs()))]);
        let pool = PgPoolOptions::new().max_connections(16).acquire_timeout(ACQUIRE_TIMEOUT);
        Ok(Self::Postgres(pool.connect_with(options).await?))
    }

    async fn sqlite(path: &Path) -> Result<Self, ConnectError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // SQLite ends a transaction by itself when the disk is full or fails. sqlx doesn't notice, and every later
            // one on that connection would fail: such a connection is closed.
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            });
        Ok(Self::Sqlite(pool.connect_with(sqlite_options(path)).await?))
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

fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(LOCK_TIMEOUT)
        .pragma("secure_delete", "ON")
        .pragma("recursive_triggers", "ON")
}

/// A database address as it may be shown: a password may stand before the host or in the query.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let query = rest.find(['?', '#']).unwrap_or(rest.len());
    match rest.rfind('@') {
        // A password with a ? in it, or a query with an @: nobody can say which.
        Some(at) if query < at => format!("{scheme}://…"),
        Some(at) => format!("{scheme}://…{}", &rest[at..query]),
        None => format!("{scheme}://{}", &rest[..query]),
    }
}
