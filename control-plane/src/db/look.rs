//! What an operator is told of the database. Nothing is changed, and nothing is migrated.

use shared::time::Timestamp;

use super::migrate::{APPLIED, OWNER, ROLE, SQLITE_MIGRATIONS, check, fits};
use super::{ConnectError, Db, Ownership};

const SQLITE_VERSION: &str = "SELECT sqlite_version()";
const POSTGRES_VERSION: &str = "SELECT current_setting('server_version')";
const SQLITE_HAS_TABLES: &str =
    "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
const CLOCK: &str = "SELECT clock_timestamp()";
const MAY_REWRITE: &str = "SELECT has_table_privilege('audit_log', 'UPDATE') OR has_table_privilege('audit_log', 'DELETE') \
                           OR has_table_privilege('audit_log', 'TRUNCATE')";

/// What PostgreSQL lets the board's role do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub role: String,
    /// It may change or delete what stands in the audit log.
    pub may_rewrite_log: bool,
}

impl Db {
    /// "PostgreSQL 17.2", "SQLite 3.50.4"
    pub async fn server(&self) -> Result<String, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(pool) => {
                let version: String = sqlx::query_scalar(SQLITE_VERSION).fetch_one(pool).await?;
                format!("SQLite {version}")
            }
            Self::Postgres(pool) => {
                let version: String = sqlx::query_scalar(POSTGRES_VERSION).fetch_one(pool).await?;
                format!("PostgreSQL {version}")
            }
        })
    }

    /// As [`Db::prepare`] would find it: whether the tables are of this board's version, and whose they are.
    pub async fn inspect(&self) -> Result<Ownership, ConnectError> {
        match self {
            Self::Sqlite(pool) => {
                let made: bool = sqlx::query_scalar(SQLITE_HAS_TABLES).fetch_one(pool).await?;
                if !made {
                    return Err(ConnectError::Empty);
                }
                fits(&SQLITE_MIGRATIONS, &sqlx::query_as(APPLIED).fetch_all(pool).await?)?;
                Ok(Ownership::Board)
            }
            Self::Postgres(pool) => {
                let owner: Option<(String, bool)> = sqlx::query_as(OWNER).fetch_optional(pool).await?;
                let (_, is_board) = owner.ok_or(ConnectError::Empty)?;
                check(pool).await?;
                Ok(if is_board { Ownership::Board } else { Ownership::Apart })
            }
        }
    }

    /// None on SQLite, which has no roles.
    pub async fn rights(&self) -> Result<Option<Rights>, sqlx::Error> {
        let Self::Postgres(pool) = self else { return Ok(None) };
        let role = sqlx::query_scalar(ROLE).fetch_one(pool).await?;
        let may_rewrite_log = sqlx::query_scalar(MAY_REWRITE).fetch_one(pool).await?;
        Ok(Some(Rights { role, may_rewrite_log }))
    }

    /// What time it is for the server. None on SQLite, which has this machine's.
    pub async fn clock(&self) -> Result<Option<Timestamp>, sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(pool) => sqlx::query_scalar(CLOCK).fetch_one(pool).await.map(Some),
        }
    }
}
