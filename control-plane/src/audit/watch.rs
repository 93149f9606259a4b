//! Whether the audit log can be written, for the health page: what refused requests met, and a look of our own at most
//! every ten seconds, however often somebody asks.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared::time::Timestamp;
use tokio::sync::Mutex;

use super::{Action, AuditError, Entry, Who, append, store};
use crate::db::{Cause, Db};

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A database that takes longer than this doesn't answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// What kept the last entry from being written; `None` once one can be written again.
    trouble: std::sync::Mutex<Option<Cause>>,
    /// When we looked last; held while somebody looks, so that one does it for all who ask.
    looked: Mutex<Option<Timestamp>>,
}

impl Watch {
    /// Remembers what a refused request met.
    pub fn note(&self, cause: Cause) {
        *self.trouble() = Some(cause);
    }

    /// What keeps the audit log from being written, if anything does. While nothing is known to, the look takes the lock
    /// and gives it back without writing; when something did, only a committed write and an entry that fits (and is
    /// taken back) end it.
    pub async fn check(&self, db: &Db, now: Timestamp) -> Option<Cause> {
        let mut looked = self.0.looked.lock().await;
        // A clock that was set back doesn't blind it.
        if looked.is_none_or(|at| now < at || now.since(at) >= LOOK_EVERY) {
            let known = *self.trouble();
            let seen = look(now, db, known).await;
            if let Some(cause) = seen
                && known != seen
            {
                tracing::error!(?cause, "the audit log can't be written");
            } else if known.is_some() && seen.is_none() {
                tracing::info!("the audit log can be written again");
            }
            *self.trouble() = seen;
            *looked = Some(now);
        }
        *self.trouble()
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Cause>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Long enough to need room of its own in either database.
const TRIAL: usize = 16 * 1024;

async fn look(now: Timestamp, db: &Db, known: Option<Cause>) -> Option<Cause> {
    let touch = async {
        let mut tx = db.write().await?;
        store::touch_head(&mut tx).await?;
        if known.is_none() {
            return Ok(());
        }
        tx.commit().await?;
        let mut tx = db.write().await?;
        let trial = Entry::new(now, Who::job("health"), Action::LogTried).reason(&"x".repeat(TRIAL));
        append(&mut tx, &trial).await.map(|_| ())
    };
    match tokio::time::timeout(PATIENCE, touch).await {
        Ok(done) => done.err().map(|error: AuditError| error.cause()),
        // SQLite is no server that could be away: it waits for the lock.
        Err(_) => known.or(Some(match db {
            Db::Sqlite(_) => Cause::Locked,
            Db::Postgres(_) => Cause::Unreachable,
        })),
    }
}
