//! Why a database failed: the one place that reads the codes of SQLite and PostgreSQL.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// What kept a query from being done, as far as it makes a difference to whoever has to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody else holds a lock, longer than the board waits.
    Locked,
    /// No room: disk, quota, or the server's memory.
    Full,
    ReadOnly,
    /// The server doesn't answer, or has no connection to spare.
    Unreachable,
    /// The role or the system's user may not.
    Refused,
    /// The disk fails, or what is on it is no database.
    Damaged,
    /// Anything else, and that is a fault of the board.
    Other,
}

impl Cause {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "sqlx adds errors; one that isn't known is no known cause"
    )]
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => Self::of_database(&**error),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// The cause that lies behind an error of a command, if a database is behind it.
    pub fn behind(error: &anyhow::Error) -> Option<Self> {
        error.chain().find_map(|error| {
            let whole = error.downcast_ref().map(Self::of);
            // An error that shows itself as its source (`#[error(transparent)]`) hides the `sqlx::Error`.
            let inner = || error.downcast_ref::<Box<dyn DatabaseError>>().map(|error| &**error);
            whole.or_else(|| inner().map(Self::of_database))
        })
    }

    /// What happened and what to do, when a known cause lies behind an error of a command. It doesn't say that nothing was
    /// changed: a command may have written before.
    pub fn words_behind(error: &anyhow::Error) -> Option<String> {
        let cause = Self::behind(error).filter(|cause| *cause != Self::Other)?;
        Some(format!("{} {}", cause.what(), cause.remedy()))
    }

    fn of_database(error: &dyn DatabaseError) -> Self {
        match (error.try_downcast_ref::<PgDatabaseError>(), error.code()) {
            (Some(postgres), _) => Self::of_postgres(postgres.code()),
            (None, Some(code)) => Self::of_sqlite(&code),
            (None, None) => Self::Other,
        }
    }

    /// From an extended result code (<https://sqlite.org/rescode.html>); its low byte is the primary one.
    fn of_sqlite(code: &str) -> Self {
        match code.parse::<u32>().map(|code| code & 0xff) {
            Ok(5 | 6) => Self::Locked,
            Ok(8) => Self::ReadOnly,
            Ok(13) => Self::Full,
            Ok(3 | 14 | 23) => Self::Refused,
            Ok(10 | 11 | 26) => Self::Damaged,
            Ok(_) | Err(_) => Self::Other,
        }
    }

    /// From an SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
    fn of_postgres(code: &str) -> Self {
        match (code, code.get(..2)) {
            ("25006", _) => Self::ReadOnly,
            ("42501", _) | (_, Some("28")) => Self::Refused,
            ("55P03" | "40001" | "40P01" | "57014", _) => Self::Locked,
            ("53300", _) | (_, Some("08" | "57")) => Self::Unreachable,
            (_, Some("53")) => Self::Full,
            (_, Some("58" | "XX")) => Self::Damaged,
            _ => Self::Other,
        }
    }

    /// What happened and what it means for whoever asked.
    pub fn what(self) -> &'static str {
        match self {
            Self::Locked => "Another process holds the lock of the board's database.",
            Self::Full => "The board's database has no room left.",
            Self::ReadOnly => "The board's database is read-only.",
            Self::Unreachable => "The board's database doesn't answer.",
            Self::Refused => "The board may not use its database.",
            Self::Damaged => "The board's database can't be read: the disk fails, or the file is damaged.",
            Self::Other => "The board's database refused what the board asked.",
        }
    }

    /// What the operator has to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Locked => {
                "Try again in a moment; if it stays so, the operator ends the process that holds the lock (a backup, a shell with an open transaction)."
            }
            Self::Full => "The operator makes room on the disk of the database, or raises its quota.",
            Self::ReadOnly => {
                "The operator makes it writable: the permissions of the file and its folder, how the disk is mounted, or a PostgreSQL that is a standby."
            }
            Self::Unreachable => {
                "Try again in a moment; if it stays so, the operator starts the server, mends the way to it, or allows it more connections."
            }
            Self::Refused => {
                "The operator gives the board its permissions: on PostgreSQL `board migrate --owner-url` grants them to the board's role, on SQLite the board's user owns the data folder."
            }
            Self::Damaged => "The operator stops the board, checks the disk and restores the latest backup.",
            Self::Other => "Try again; if it happens again, the operator finds the cause in the board's log.",
        }
    }

    /// Whether it stands in the way of writing, and so of the audit log, while reading may go on.
    pub fn stops_writing(self) -> bool {
        match self {
            Self::Locked | Self::Full | Self::ReadOnly | Self::Refused => true,
            Self::Unreachable | Self::Damaged | Self::Other => false,
        }
    }

    /// After how many seconds it may have passed by itself.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::Locked | Self::Unreachable => Some(5),
            Self::Full | Self::ReadOnly | Self::Refused | Self::Damaged | Self::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cause;

    #[test]
    fn codes_of_both_databases_have_one_cause() {
        for (code, cause) in [
            ("5", Cause::Locked),
            ("517", Cause::Locked),
            ("8", Cause::ReadOnly),
            ("1544", Cause::ReadOnly),
            ("13", Cause::Full),
            ("14", Cause::Refused),
            ("778", Cause::Damaged),
            ("26", Cause::Damaged),
            ("1811", Cause::Other),
            ("", Cause::Other),
        ] {
            assert_eq!(Cause::of_sqlite(code), cause, "SQLite {code}");
        }
        for (code, cause) in [
            ("25006", Cause::ReadOnly),
            ("42501", Cause::Refused),
            ("28P01", Cause::Refused),
            ("55P03", Cause::Locked),
            ("53300", Cause::Unreachable),
            ("57P01", Cause::Unreachable),
            ("08006", Cause::Unreachable),
            ("53100", Cause::Full),
            ("53200", Cause::Full),
            ("53400", Cause::Full),
            ("58030", Cause::Damaged),
            ("XX001", Cause::Damaged),
            ("23505", Cause::Other),
            ("P0001", Cause::Other),
        ] {
            assert_eq!(Cause::of_postgres(code), cause, "PostgreSQL {code}");
        }
    }
}
