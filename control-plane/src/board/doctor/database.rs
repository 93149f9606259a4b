//! The database: whether it is there, of this board's version, and what it lets the board's role do.

use std::time::Duration;

use super::{Finding, Patient, unanswered};
use crate::db::{Cause, ConnectError, Db, Ownership, without_password};

const CHECK: &str = "database";
const RIGHTS: &str = "rights";
const CLOCK: &str = "clock";
/// Beyond this sessions, codes and certificates end at another time than they say.
const SKEW: Duration = Duration::from_secs(120);

/// The database is given when it can be asked for more.
pub(super) async fn look(patient: &Patient) -> (Vec<Finding>, Option<Db>) {
    let shown = without_password(&patient.database);
    if let Some(file) = patient.file().filter(|file| !file.exists()) {
        let saw = format!("there is no board at {}", file.display());
        let advice = "`board init` makes one. If it is elsewhere, name its folder with --data, or the database with --database.";
        return (vec![Finding::problem(CHECK, saw, advice)], None);
    }
    let db = match Db::connect(&patient.database).await {
        Ok(db) => db,
        Err(error) => return (vec![failed(&shown, &error)], None),
    };
    let ownership = match db.inspect().await {
        Ok(ownership) => ownership,
        Err(error) => {
            db.close().await;
            return (vec![failed(&shown, &error)], None);
        }
    };
    let mut findings = vec![match db.server().await {
        Ok(server) => Finding::ok(CHECK, format!("{server}, {shown}, at this board's version")),
        Err(error) => unanswered(CHECK, &error),
    }];
    findings.extend(rights(&db, ownership).await);
    findings.extend(clock(&db, patient).await);
    (findings, Some(db))
}

fn failed(shown: &str, error: &ConnectError) -> Finding {
    let (saw, advice) = match error {
        ConnectError::Open(error) => {
            let cause = Cause::of(error);
            (format!("{} {error}", cause.what()), cause.remedy())
        }
        ConnectError::Empty => (
            "it holds no board".to_owned(),
            "`board init` makes one; on PostgreSQL `board migrate --owner-url` makes the tables before.",
        ),
        ConnectError::Older(version) => (
            format!("it is of an older board: migration {version} is missing"),
            "Make a backup, then `board migrate`; on PostgreSQL with --owner-url, when the tables belong to another role.",
        ),
        ConnectError::Newer(version) => (
            format!("it is of a newer board: migration {version} is not known to this one"),
            "Install the newer board again, or restore a backup of before.",
        ),
        ConnectError::Changed(version) => (
            format!("migration {version} is not the one that this board has"),
            "This program and the database don't belong together. Install the board that made the database.",
        ),
        ConnectError::NotGranted => (
            "the board's role may not read the tables".to_owned(),
            "`board migrate --owner-url postgres://OWNER@HOST/NAME` grants it what it needs.",
        ),
        ConnectError::Address { .. } => {
            ("it is no database address".to_owned(), "Write sqlite:PATH or postgres://USER@HOST/NAME.")
        }
        ConnectError::NotOwner { .. }
        | ConnectError::SameRole { .. }
        | ConnectError::OtherDatabase { .. }
        | ConnectError::NoRoles
        | ConnectError::Migrate(_) => (error.to_string(), "See `board migrate --help`."),
    };
    Finding::problem(CHECK, format!("{shown}: {saw}"), advice)
}

async fn rights(db: &Db, ownership: Ownership) -> Option<Finding> {
    let advice = "For production give the board a role of its own: `board migrate --owner-url` grants it what it needs, no more.";
    match db.rights().await {
        Ok(None) => None,
        Ok(Some(rights)) if ownership == Ownership::Board => Some(Finding::warning(
            RIGHTS,
            format!(
                "the role {} owns the tables, so only triggers keep it from changing the audit log",
                rights.role
            ),
            advice,
        )),
        Ok(Some(rights)) if rights.may_rewrite_log => Some(Finding::problem(
            RIGHTS,
            format!("the role {} may change what stands in the audit log", rights.role),
            "Somebody granted it more than it needs: `board migrate --owner-url` takes it away again.",
        )),
        Ok(Some(rights)) => {
            Some(Finding::ok(RIGHTS, format!("the role {} can only append to the audit log", rights.role)))
        }
        Err(error) => Some(unanswered(RIGHTS, &error)),
    }
}

async fn clock(db: &Db, patient: &Patient) -> Option<Finding> {
    let theirs = match db.clock().await {
        Ok(theirs) => theirs?,
        Err(error) => return Some(unanswered(CLOCK, &error)),
    };
    let ours = patient.now();
    let off = ours.since(theirs).max(theirs.since(ours));
    Some(if off > SKEW {
        Finding::problem(
            CLOCK,
            format!("it is {ours} here and {theirs} on the database's server"),
            "Let both take their time from the network (NTP): sessions, join codes and certificates end by it.",
        )
    } else {
        Finding::ok(CLOCK, "the same here and on the database's server")
    })
}
