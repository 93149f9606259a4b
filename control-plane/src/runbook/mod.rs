//! Runbooks: composed from a client's scope for one device, offered step by step, and what became of each step.
//!
//! Every move of a step or an attempt is a compare-and-set. The database is the truth; a push is only how it gets to
//! the device fast.

pub mod api;
mod compose;
mod decide;
mod lines;
mod markdown;
mod pause;
pub mod plan;
mod restart;
mod run;
pub mod scope_change;
mod store;
#[cfg(test)]
mod tests;
pub mod undo;
pub mod views;
pub mod web;

use shared::catalog::StepKind;
use shared::ids::{AttemptId, DeviceId, RunbookId, StepId};
use shared::text_enum;
use shared::time::Timestamp;

pub use compose::ensure;
pub use decide::{confirm_manual, mark, reopen_refused, retry, skip};
pub use pause::{Pause, is_paused, pause, pause_of, resume};
pub use restart::{restart, would_restart};
pub use run::{
    ApplyError, Carried, apply_ended, apply_offer_refused, apply_output, apply_started, next_offer,
    wake_waiting,
};

use crate::db::Tx;

text_enum! {
    pub enum StepState {
        Blocked = "blocked",
        Ready = "ready",
        Offered = "offered",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Interrupted = "interrupted",
        Cancelled = "cancelled",
        Skipped = "skipped",
        Waiting = "waiting",
    }
}

impl StepState {
    /// Whether what depends on the step may go on.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped)
    }
}

text_enum! {
    pub enum AttemptState {
        Offered = "offered",
        Running = "running",
        Succeeded = "succeeded",
        /// `check` said that it is already so.
        AlreadySo = "already-so",
        Failed = "failed",
        Interrupted = "interrupted",
        Cancelled = "cancelled",
        /// The device wouldn't execute it, and said why.
        Refused = "refused",
    }
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Runbook {
    pub id: RunbookId,
    pub device_id: DeviceId,
    pub bundle_digest: String,
    pub created_at: Timestamp,
}

/// A step and its latest attempt.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Step {
    pub id: StepId,
    pub component_key: String,
    pub step_key: String,
    pub kind: StepKind,
    pub title: String,
    pub state: StepState,
    pub waits_for: Option<String>,
    /// Why it was skipped, or who marked it.
    pub note: Option<String>,
    pub changed_at: Timestamp,
    pub attempt_id: Option<AttemptId>,
    pub attempt_state: Option<AttemptState>,
    pub offered_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub running_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub exit_code: Option<i64>,
    pub found: Option<String>,
    pub duration_ms: Option<i64>,
    /// Why it is to run again: "version 2 of tool/OUR_KEY".
    pub rerun_for: Option<String>,
    /// Why the latest attempt ran again.
    pub reran_for: Option<String>,
    /// It is to be undone next: who wants that, and why.
    pub undo_for: Option<String>,
    /// What it was before somebody wanted that.
    pub undo_from: Option<StepState>,
    /// Why the latest attempt undid it, or tried to.
    pub undone_for: Option<String>,
}

pub async fn of_device(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Runbook>, sqlx::Error> {
    store::of_device(tx, device_id).await
}

/// The steps in order.
pub async fn steps(tx: &mut Tx, runbook_id: RunbookId) -> Result<Vec<Step>, sqlx::Error> {
    store::steps(tx, runbook_id).await
}

/// How many steps a device's runbook has, and how many are done.
pub async fn progress(tx: &mut Tx, device_id: DeviceId) -> Result<Option<(usize, usize)>, sqlx::Error> {
    let Some(runbook) = of_device(tx, device_id).await? else { return Ok(None) };
    let steps = steps(tx, runbook.id).await?;
    Ok(Some((steps.iter().filter(|step| step.state.is_done()).count(), steps.len())))
}

/// An attempt's output, joined.
pub async fn output(tx: &mut Tx, attempt_id: AttemptId) -> Result<String, sqlx::Error> {
    Ok(store::output(tx, attempt_id).await?.concat())
}

/// The last lines of an attempt's output.
pub async fn tail(tx: &mut Tx, attempt_id: AttemptId, lines: usize) -> Result<Vec<String>, sqlx::Error> {
    let mut chunks = store::last_output(tx, attempt_id, 8).await?;
    chunks.reverse();
    let text = chunks.concat();
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}
