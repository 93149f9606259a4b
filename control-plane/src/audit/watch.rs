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
    /// What kept an entry from being written, and when that was noticed last; `None` once one can be written again.
    trouble: std::sync::Mutex<Option<(Cause, Timestamp)>>,
    /// When we looked last; held while somebody looks, so that one does it for all who ask.
    looked: Mutex<Option<Timestamp>>,
}

impl Watch {
    /// Remembers what a refused request met.
    pub fn note(&self, cause: Cause, now: Timestamp) {
        *self.trouble() = Some((cause, now));
    }

    /// What keeps the audit log from being written, if anything does. Each look appends an entry and takes it back; once
    /// something is known to be wrong, only committed writes and a long entry that fits end it.
    pub async fn check(&self, db: &Db, now: Timestamp) -> Option<Cause> {
        let mut looked = self.0.looked.lock().await;
        // A clock that was set back doesn't blind it.
        if looked.is_none_or(|at| now < at || now.since(at) >= LOOK_EVERY) {
            *looked = Some(now);
            let known = self.trouble().map(|(cause, _)| cause);
            let seen = look(now, db, known).await;
            let mut trouble = self.trouble();
            if let Some(cause) = seen {
                if known.is_none() {
                    tracing::error!(?cause, "the audit log can't be written");
                }
                *trouble = Some((cause, now));
            } else if trouble.is_some_and(|(_, at)| now.since(at) >= LOOK_EVERY) {
                // What a request met a moment ago counts more than our own try.
                tracing::info!("the audit log can be written again");
                *trouble = None;
            }
        }
        self.trouble().map(|(cause, _)| cause)
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<(Cause, Timestamp)>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Long enough to need room of its own in either database.
const TRIAL: usize = 16 * 1024;
/// Each commit writes a page or so to the disk; a request's entry needs a handful.
const PAGES: usize = 8;

async fn look(now: Timestamp, db: &Db, known: Option<Cause>) -> Option<Cause> {
    let touch = async {
        let mut trial = Entry::new(now, Who::job("health"), Action::LogTried);
        if known.is_some() {
            for _ in 0..PAGES {
                let mut tx = db.write().await?;
                store::touch_head(&mut tx).await?;
                tx.commit().await?;
            }
            trial = trial.reason(&"x".repeat(TRIAL));
        }
        let mut tx = db.write().await?;
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
