//! Whether the audit log can be written, for the health page: what refused requests met, and a look of our own at most
//! every ten seconds, however often somebody asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared::time::Timestamp;
use tokio::sync::Mutex;

use super::mark::Mark;
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
    /// How far the chain was checked.
    mark: Mutex<Mark>,
    /// The chain doesn't hold, as far as it was checked.
    broken: AtomicBool,
    /// An alarm stands.
    alarmed: AtomicBool,
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
            if let Some(alarmed) = alarmed(db).await {
                self.0.alarmed.store(alarmed, Ordering::Relaxed);
            }
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

    /// Whether the log can be written but isn't what it was: an operator has to look.
    pub fn is_doubted(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed) || self.0.alarmed.load(Ordering::Relaxed)
    }

    /// An alarm was raised.
    pub fn alarm(&self) {
        self.0.alarmed.store(true, Ordering::Relaxed);
    }

    /// Whether alarms stand, as somebody just saw.
    pub fn set_alarmed(&self, alarmed: bool) {
        self.0.alarmed.store(alarmed, Ordering::Relaxed);
    }

    pub(super) fn set_broken(&self, broken: bool) {
        self.0.broken.store(broken, Ordering::Relaxed);
    }

    pub(super) fn mark(&self) -> &Mutex<Mark> {
        &self.0.mark
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

/// Whether an alarm stands; `None` when the database doesn't say.
async fn alarmed(db: &Db) -> Option<bool> {
    let ask = async {
        let mut tx = db.read().await.ok()?;
        store::any_alarm(&mut tx).await.ok()
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}
