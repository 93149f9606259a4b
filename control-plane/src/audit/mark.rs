//! How far this board has checked the chain since it started. Views look at the mark; a job moves it.

use std::time::Duration;

use shared::protocol::link::Head;
use shared::time::Timestamp;

use super::chain::{Break, Walk};
use super::heads::{self, Witness};
use super::{AuditError, Who, number, store};
use crate::db::{Db, Tx};

/// Entries read at once.
const BATCH: i64 = 500;
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
    /// Entries that were read for it.
    pub read: u64,
}

#[derive(Debug, Default)]
pub struct Mark {
    walk: Walk,
    began: Option<Timestamp>,
}

impl Mark {
    /// Checks at most `most` entries behind the mark.
    pub async fn walk_on(&mut self, db: &Db, now: Timestamp, most: u64) -> Result<Checked, sqlx::Error> {
        self.began.get_or_insert(now);
        let mut read = 0;
        loop {
            let mut tx = db.read().await?;
            let of = number(store::head_seq(&mut tx).await?);
            let checked =
                |walk: &Walk, broken, read| Checked { up_to: walk.last.seq, of, at: now, broken, read };
            let last = i64::try_from(self.walk.last.seq).unwrap_or(i64::MAX);
            if last > 0 && !is_held(&mut tx, &self.walk.last).await? {
                let why = "it is another one than when the board looked before";
                let broken = Break { seq: self.walk.last.seq, why };
                return Ok(checked(&self.walk, Some(broken), read));
            }
            let rows =
                store::after(&mut tx, last, BATCH.min(i64::try_from(most - read).unwrap_or(BATCH))).await?;
            if rows.is_empty() {
                let short = of != self.walk.last.seq && read < most;
                let why = "entries are missing at the end";
                let broken = short.then_some(Break { seq: self.walk.last.seq + 1, why });
                return Ok(checked(&self.walk, broken, read));
            }
            for row in rows {
                read += 1;
                if let Err(broken) = self.walk.step_row(row) {
                    return Ok(checked(&self.walk, Some(broken), read));
                }
            }
            if read >= most {
                return Ok(checked(&self.walk, None, read));
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
        self.set_broken(checked.broken.is_some());
        Ok(checked)
    }

    /// One turn of the job: to the end of the log. An entry that isn't the one that was here before raises an alarm, the
    /// board being its own witness, and the walk begins again.
    pub async fn walk_to_the_end(&self, db: &Db, now: Timestamp) -> Result<Checked, AuditError> {
        let mut mark = self.mark().lock().await;
        if mark.began.is_some_and(|began| now.since(began) >= AGAIN) {
            // What was seen last stays a witness for the walk from the start.
            self.be_witness(db, &mark.walk.last, now).await?;
            *mark = Mark::default();
        }
        let mut checked = mark.walk_on(db, now, u64::MAX).await?;
        if checked.broken.is_some() && self.be_witness(db, &mark.walk.last, now).await? {
            *mark = Mark::default();
            checked = mark.walk_on(db, now, u64::MAX).await?;
        }
        self.set_broken(checked.broken.is_some());
        if let Some(Break { seq, why }) = checked.broken {
            tracing::error!(seq, why, "the audit chain is broken");
        }
        Ok(checked)
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
