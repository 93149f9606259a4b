//! `board doctor`: what stands between the operator and a board that does its work, a line each with what was seen and what
//! to do about it. It works whether the board runs or not.
//!
//! Nothing is changed and no secret is opened: the root key is unwrapped, and with it the authority's key, as at every
//! start; an entry is put into the audit log and taken back, as the health page does. To add a check: a function that
//! gives [`Finding`]s, called in [`examine`], and a test that makes it fail.

mod authority;
mod catalog;
mod database;
mod files;
mod keys;
mod log;
mod ports;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use shared::catalog::PublisherKey;
use shared::time::Timestamp;

pub use shared::doctor::{Finding, Report, State};

use crate::db::{Cause, Db};
use crate::keys::{Outside, Source};

/// What is examined: what `board serve` would be started with.
pub struct Patient {
    /// `sqlite:PATH` or `postgres://…`
    pub database: String,
    pub data: PathBuf,
    /// A provider that the operator names beside the database's.
    pub root_key: Option<Source>,
    pub console: SocketAddr,
    pub proxy: Option<IpAddr>,
    pub agents: SocketAddr,
    pub agents_url: Option<String>,
    /// How browsers reach the console, to be looked at from outside.
    pub console_url: Option<String>,
    /// Who has to have signed the catalog.
    pub publisher: Option<PublisherKey>,
    pub outside: Outside,
}

impl Patient {
    fn now(&self) -> Timestamp {
        self.outside.clock.now()
    }

    /// The database's file, on SQLite.
    fn file(&self) -> Option<PathBuf> {
        self.database.strip_prefix("sqlite:").map(PathBuf::from)
    }
}

/// Makes every check that makes sense: without its database nothing is known of a board's keys, and one of another version
/// is left alone.
pub async fn examine(patient: &Patient) -> Report {
    let (mut findings, db) = database::look(patient).await;
    findings.extend(files::look(patient));
    let mut authorities = Vec::new();
    if let Some(db) = &db {
        let (found, believed) = within(db, patient).await;
        findings.extend(found);
        authorities = believed;
        db.close().await;
    }
    findings.extend(ports::look(patient, &authorities).await);
    Report { findings }
}

/// What only the database knows; and the certificates of the authorities that agents believe.
async fn within(db: &Db, patient: &Patient) -> (Vec<Finding>, Vec<Vec<u8>>) {
    let (mut findings, root) = keys::look(db, patient).await;
    findings.extend(kept(keys::secrets(db).await, "secrets"));
    findings.extend(log::look(db, patient).await);
    let believed = match &root {
        Some(root) => {
            let (found, believed) = authority::look(db, patient, root).await;
            findings.extend(found);
            believed
        }
        None => Vec::new(),
    };
    findings.extend(kept(catalog::look(db, patient).await, "catalog"));
    (findings, believed)
}

/// What was found, or that the database didn't say.
fn kept(found: Result<Vec<Finding>, sqlx::Error>, check: &'static str) -> Vec<Finding> {
    found.unwrap_or_else(|error| vec![unanswered(check, &error)])
}

fn unanswered(check: &'static str, error: &sqlx::Error) -> Finding {
    let cause = Cause::of(error);
    Finding::problem(check, format!("{} {error}", cause.what()), cause.remedy())
}
