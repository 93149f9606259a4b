//! Migrations, and the two roles on PostgreSQL: the owner migrates and grants, the board's role can't change the tables
//! and can only append to the audit log. On SQLite, and where the board's role owns the tables, the board migrates itself.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool};

use super::{Cause, ConnectError, Db};

pub(super) static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// What a table's role may do; every table that isn't named here is an ordinary one.
const SPECIAL: &[(&str, &str)] =
    &[("audit_log", "SELECT, INSERT"), ("audit_head", "SELECT, UPDATE"), ("_sqlx_migrations", "SELECT")];
const ORDINARY: &str = "SELECT, INSERT, UPDATE, DELETE";

/// The owner of the tables, and whether the connected role may act as the owner (a superuser may).
pub(super) const OWNER: &str = "SELECT pg_get_userbyid(relowner)::text, pg_has_role(relowner, 'MEMBER') \
                     FROM pg_class WHERE oid = to_regclass('audit_log')";
const MAY_CREATE: &str = "SELECT coalesce(has_schema_privilege(current_schema()::text, 'CREATE'), FALSE)";
const TABLES: &str = "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace \
                      AND relkind IN ('r', 'p') AND pg_has_role(relowner, 'MEMBER') ORDER BY relname";
pub(super) const ROLE: &str = "SELECT current_user::text";
const SCHEMA: &str = "SELECT current_schema()::text";
const IS_MEMBER: &str = "SELECT pg_has_role($1::name, current_user, 'MEMBER')";
const PLACE: &str =
    "SELECT current_database()::text, current_schema()::text, host(inet_server_addr()), inet_server_port()";
const ANY_KEY: &str = "SELECT floor(random() * 9e15)::bigint";
const HOLD: &str = "SELECT pg_advisory_xact_lock($1)";
const IS_HELD: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                       AND (classid::bigint << 32) + objid::bigint = $1)";

/// The newest migration that this board has.
pub(super) fn newest() -> i64 {
    SQLITE_MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Who may change the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The board itself: nothing but the triggers keeps it from changing the audit log.
    Board,
    /// Another role, as it should be on PostgreSQL.
    Apart,
}

impl Db {
    /// Brings the database to this board's version. The connected role has to own the tables, or make them.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        let done = match self {
            Self::Sqlite(pool) => SQLITE_MIGRATIONS.run(pool).await,
            Self::Postgres(pool) => {
                if let Some((owner, false)) = sqlx::query_as(OWNER).fetch_optional(pool).await? {
                    return Err(ConnectError::NotOwner { owner });
                }
                POSTGRES_MIGRATIONS.run(pool).await
            }
        };
        match done {
            Err(MigrateError::VersionMissing(version)) => Err(ConnectError::Newer(version)),
            Err(MigrateError::VersionMismatch(version)) => Err(ConnectError::Changed(version)),
            other => other.map_err(ConnectError::Migrate),
        }
    }

    /// Makes the database ready for serving: migrates it when the tables are the board's own (or it may make them), and
    /// otherwise only checks that the owner did.
    pub async fn prepare(&self) -> Result<Ownership, ConnectError> {
        if let Self::Postgres(pool) = self {
            let owner: Option<(String, bool)> = sqlx::query_as(OWNER).fetch_optional(pool).await?;
            match owner {
                Some((_, true)) => {}
                Some((_, false)) => {
                    check(pool).await?;
                    return Ok(Ownership::Apart);
                }
                None if sqlx::query_scalar(MAY_CREATE).fetch_one(pool).await? => {}
                None => return Err(ConnectError::Empty),
            }
        }
        self.migrate().await?;
        Ok(Ownership::Board)
    }

    /// Migrates as the owner (`self`) and grants `board`'s role what it needs, no more; the same again changes nothing.
    /// Gives the name of the role.
    pub async fn migrate_for(&self, board: &Self) -> Result<String, ConnectError> {
        let (Self::Postgres(owner), Self::Postgres(pool)) = (self, board) else {
            return Err(ConnectError::NoRoles);
        };
        same_place(owner, pool).await?;
        let role: String = sqlx::query_scalar(ROLE).fetch_one(pool).await?;
        if sqlx::query_scalar(IS_MEMBER).bind(&role).fetch_one(owner).await? {
            return Err(ConnectError::SameRole { role });
        }
        self.migrate().await?;
        grant(owner, &role).await?;
        check(pool).await?;
        Ok(role)
    }
}

/// Whether both lead to the same schema of the same database. A name says nothing about the server: a lock that one takes
/// and the other sees does, whatever way leads there.
async fn same_place(owner: &PgPool, board: &PgPool) -> Result<(), ConnectError> {
    let mut held = owner.begin().await?;
    let theirs: Place = sqlx::query_as(PLACE).fetch_one(&mut *held).await?;
    let ours: Place = sqlx::query_as(PLACE).fetch_one(board).await?;
    let key: i64 = sqlx::query_scalar(ANY_KEY).fetch_one(&mut *held).await?;
    sqlx::query(HOLD).bind(key).execute(&mut *held).await?;
    let seen: bool = sqlx::query_scalar(IS_HELD).bind(key).fetch_one(board).await?;
    if seen && (&ours.0, &ours.1) == (&theirs.0, &theirs.1) {
        return Ok(());
    }
    Err(ConnectError::OtherDatabase { owner: words(&theirs), board: words(&ours) })
}

/// Database, schema, address and port of the server; no address over a local socket.
type Place = (String, Option<String>, Option<String>, Option<i32>);

fn words((database, schema, address, port): &Place) -> String {
    let schema = schema.as_deref().unwrap_or("no schema");
    match (address, port) {
        (Some(address), Some(port)) => format!("{database} ({schema}) at {address}, port {port}"),
        (Some(_) | None, _) => format!("{database} ({schema}) on this computer"),
    }
}

/// One transaction, so that a board that runs meanwhile never lacks what it had.
async fn grant(owner: &PgPool, role: &str) -> Result<(), sqlx::Error> {
    let mut tx = owner.begin().await?;
    let schema: String = sqlx::query_scalar(SCHEMA).fetch_one(&mut *tx).await?;
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut *tx).await?;
    let (role, schema) = (quoted(role), quoted(&schema));
    run(&mut tx, format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).await?;
    for table in tables {
        let rights = SPECIAL.iter().find(|(name, _)| *name == table).map_or(ORDINARY, |(_, rights)| *rights);
        let table = quoted(&table);
        run(&mut tx, format!("REVOKE ALL ON {schema}.{table} FROM {role}, PUBLIC")).await?;
        run(&mut tx, format!("GRANT {rights} ON {schema}.{table} TO {role}")).await?;
    }
    run(&mut tx, format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")).await?;
    // Or a temporary table named audit_log or audit_head would stand before the real one in the trigger.
    let path = format!("SET search_path = {schema}, pg_temp");
    run(&mut tx, format!("ALTER FUNCTION {schema}.audit_log_takes_only_the_next_entry() {path}")).await?;
    tx.commit().await
}

async fn run(tx: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    tx.execute(AssertSqlSafe(sql)).await.map(|_| ())
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What sqlx has written of the migrations that ran.
pub(super) const APPLIED: &str =
    "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";

/// Whether the tables are of this board's version, as sqlx's own check does for who may migrate.
pub(super) async fn check(pool: &PgPool) -> Result<(), ConnectError> {
    let applied: Vec<(i64, Vec<u8>)> = sqlx::query_as(APPLIED).fetch_all(pool).await.map_err(|error| {
        if Cause::of(&error) == Cause::Refused { ConnectError::NotGranted } else { error.into() }
    })?;
    fits(&POSTGRES_MIGRATIONS, &applied)
}

/// Whether just these migrations ran, as they are.
pub(super) fn fits(known: &Migrator, applied: &[(i64, Vec<u8>)]) -> Result<(), ConnectError> {
    for (version, checksum) in applied {
        match known.iter().find(|migration| migration.version == *version) {
            None => return Err(ConnectError::Newer(*version)),
            Some(known) if known.checksum.as_ref() != checksum => {
                return Err(ConnectError::Changed(*version));
            }
            Some(_) => {}
        }
    }
    let missing = known.iter().find(|known| !applied.iter().any(|(version, _)| *version == known.version));
    missing.map_or(Ok(()), |migration| Err(ConnectError::Older(migration.version)))
}
