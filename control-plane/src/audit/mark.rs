//! How far this board has checked the chain since it started. Views look at the mark; a job moves it.

use std::time::Duration;

use shared::protocol::link::Head;
use shared::time::Timestamp;

use super::chain::{Break, Walk};
use super::heads::{self, Witness};
use super::{AuditError, Who, number, store};
use crate::db::{Db, Tx};

/// Entries read at once, and checked before the mark is free for a view.
const BATCH: i64 = 500;
const SLICE: u64 = 500;
/// The whole chain is walked again this often: old entries could be changed behind the mark.
const AGAIN: Duration = Duration::from_secs(24 * 3600);
/// The job's pace.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Every entry up to this one fits the one before it.
    pub up_to: u64,
    /// The log's end at that time.
    pub of: u64,
    pub at: Timestamp,
    pub broken: Option<Break>,
    /// Entries that this board read for it since it started.
    pub read: u64,
}

#[derive(Debug, Default)]
pub struct Mark {
    walk: Walk,
    began: Option<Timestamp>,
    /// Entries read in all walks.
    read: u64,
}

impl Mark {
    /// Checks at most `most` entries behind the mark.
    pub async fn walk_on(&mut self, db: &Db, now: Timestamp, most: u64) -> Result<Checked, sqlx::Error> {
        self.began.get_or_insert(now);
        let mut read = 0;
        loop {
            let mut tx = db.read().await?;
            let of = number(store::head_seq(&mut tx).await?);
            let checked = |mark: &Self, broken| Checked {
                up_to: mark.walk.last.seq,
                of,
                at: now,
                broken,
                read: mark.read,
            };
            let last = i64::try_from(self.walk.last.seq).unwrap_or(i64::MAX);
            if last > 0 && !is_held(&mut tx, &self.walk.last).await? {
                let why = "it is another one than when the board looked before";
                let broken = Break { seq: self.walk.last.seq, why };
                return Ok(checked(self, Some(broken)));
            }
            let rows =
                store::after(&mut tx, last, BATCH.min(i64::try_from(most - read).unwrap_or(BATCH))).await?;
            if rows.is_empty() {
                let short = of != self.walk.last.seq && read < most;
                let why = "entries are missing at the end";
                let broken = short.then_some(Break { seq: self.walk.last.seq + 1, why });
                return Ok(checked(self, broken));
            }
            for row in rows {
                read += 1;
                self.read += 1;
                if let Err(broken) = self.walk.step_row(row) {
                    return Ok(checked(self, Some(broken)));
                }
            }
            if read >= most {
                return Ok(checked(self, None));
            }
        }
    }
}

async fn is_held(tx: &mut Tx, head: &Head) -> Result<bool, sqlx::Error> {
    let seq = i64::try_from(head.seq).unwrap_or(i64::MAX);
    Ok(store::place(tx, seq)
        .await?
        .is_some_and(|(epoch, hash)| number(epoch) == head.epoch && hash == head.hash))
}

impl super::Watch {
    /// Checks on from the mark, at most `most` entries, and says how far it stands.
    pub async fn walk_on(&self, db: &Db, now: Timestamp, most: u64) -> Result<Checked, sqlx::Error> {
        let checked = self.mark().lock().await.walk_on(db, now, most).await?;
        // A walk that began again and hasn't come to the place yet knows nothing better.
        if checked.broken.is_some() || checked.up_to >= checked.of {
            self.set_broken(checked.broken.is_some());
        }
        Ok(checked)
    }

    /// One turn of the job: to the end of the log as it is when it begins. An entry that isn't the one that was here before
    /// raises an alarm, the board being its own witness, and the walk begins again.
    pub async fn walk_to_the_end(&self, db: &Db, now: Timestamp) -> Result<Checked, AuditError> {
        if let Some(seen) = self.seen_long_ago(now).await {
            // What was seen last stays a witness for the walk from the start.
            self.be_witness(db, &seen, now).await?;
            self.begin_again().await;
        }
        let mut checked = self.walk_in_slices(db, now).await?;
        if checked.broken.is_some() {
            let seen = self.mark().lock().await.walk.last.clone();
            if self.be_witness(db, &seen, now).await? {
                self.begin_again().await;
                checked = self.walk_in_slices(db, now).await?;
            }
        }
        if let Some(Break { seq, why }) = checked.broken {
            tracing::error!(seq, why, "the audit chain is broken");
        }
        Ok(checked)
    }

    /// A view that asks meanwhile waits for one slice.
    async fn walk_in_slices(&self, db: &Db, now: Timestamp) -> Result<Checked, sqlx::Error> {
        let mut end = None;
        loop {
            let checked = self.walk_on(db, now, SLICE).await?;
            if checked.broken.is_some() || checked.up_to >= *end.get_or_insert(checked.of) {
                return Ok(checked);
            }
        }
    }

    /// The last entry of a walk that began too long ago.
    async fn seen_long_ago(&self, now: Timestamp) -> Option<Head> {
        let mark = self.mark().lock().await;
        mark.began.is_some_and(|began| now.since(began) >= AGAIN).then(|| mark.walk.last.clone())
    }

    async fn begin_again(&self) {
        let mut mark = self.mark().lock().await;
        *mark = Mark { read: mark.read, ..Mark::default() };
    }

    async fn be_witness(&self, db: &Db, head: &Head, now: Timestamp) -> Result<bool, AuditError> {
        let mut tx = db.write().await?;
        let witness = Witness { device: None, who: Who::job("audit"), head };
        let raised = heads::compare(&mut tx, &witness, now).await?;
        tx.commit().await?;
        if raised {
            self.alarm();
        }
        Ok(raised)
    }
}

/// The job: walks on once a minute, for as long as the board runs.
pub async fn keep_checked(app: crate::app::App) {
    let mut pace = tokio::time::interval(EVERY);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        if let Err(error) = app.audit_watch.walk_to_the_end(&app.db, app.now()).await {
            tracing::warn!(%error, "the audit chain could not be checked; it is tried again in a minute");
        }
    }
}
