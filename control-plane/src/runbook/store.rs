use shared::catalog::Step as ManifestStep;
use shared::ids::{AttemptId, DeviceId, RunbookId, StepId};
use shared::protocol::steps::{AttemptEnded, OutputChunk};
use shared::time::Timestamp;

use super::{AttemptState, Runbook, Step, StepState};
use crate::db::Tx;
use crate::on;

pub async fn of_device(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Runbook>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, device_id, bundle_digest, created_at FROM runbooks WHERE device_id = $1",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

pub async fn insert(tx: &mut Tx, runbook: &Runbook) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO runbooks (id, device_id, bundle_digest, created_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(runbook.id)
    .bind(runbook.device_id)
    .bind(&runbook.bundle_digest)
    .bind(runbook.created_at)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn insert_step(
    tx: &mut Tx,
    runbook: &Runbook,
    id: StepId,
    position: i64,
    component: &str,
    step: &ManifestStep,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO steps (id, runbook_id, position, component_key, step_key, kind, title, state, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(runbook.id)
    .bind(position)
    .bind(component)
    .bind(&step.id)
    .bind(step.kind)
    .bind(&step.title)
    .bind(StepState::Blocked)
    .bind(runbook.created_at)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn steps(tx: &mut Tx, runbook_id: RunbookId) -> Result<Vec<Step>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT steps.id, steps.component_key, steps.step_key, steps.kind, steps.title, steps.state, \
         steps.waits_for, steps.note, steps.changed_at, attempts.id AS attempt_id, attempts.state AS attempt_state, \
         attempts.offered_at, attempts.expires_at, attempts.running_at, attempts.ended_at, attempts.exit_code, attempts.found, \
         attempts.duration_ms, steps.rerun_for, attempts.rerun_for AS reran_for, \
         steps.undo_for, steps.undo_from, attempts.undo_for AS undone_for FROM steps LEFT JOIN attempts ON attempts.id = \
         (SELECT latest.id FROM attempts AS latest WHERE latest.step_id = steps.id \
         ORDER BY latest.number DESC LIMIT 1) \
         WHERE steps.runbook_id = $1 ORDER BY steps.position",
    )
    .bind(runbook_id)
    .fetch_all(conn)
    .await)
}

/// Whether there may be something to offer: looked at before the write lock is taken.
pub async fn has_open_step(tx: &mut Tx, runbook_id: RunbookId) -> Result<bool, sqlx::Error> {
    let count: i64 = on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM steps WHERE runbook_id = $1 AND state IN ('ready', 'offered', 'running')",
    )
    .bind(runbook_id)
    .fetch_one(conn)
    .await)?;
    Ok(count > 0)
}

pub async fn move_step(
    tx: &mut Tx,
    id: StepId,
    from: StepState,
    to: StepState,
    waits_for: Option<&str>,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE steps SET state = $3, waits_for = $4, changed_at = $5 WHERE id = $1 AND state = $2",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(waits_for)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Moves a step with a note, only if it belongs to this device. A wish to undo it ends with that.
pub async fn move_own_step(
    tx: &mut Tx,
    device_id: DeviceId,
    id: StepId,
    from: StepState,
    to: StepState,
    note: Option<&str>,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE steps SET state = $4, waits_for = NULL, note = $5, changed_at = $6, undo_for = NULL, undo_from = NULL \
         WHERE id = $2 AND state = $3 \
         AND runbook_id IN (SELECT id FROM runbooks WHERE device_id = $1)",
    )
    .bind(device_id)
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(note)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn insert_attempt(
    tx: &mut Tx,
    id: AttemptId,
    step_id: StepId,
    now: Timestamp,
    expires: Timestamp,
    (rerun_for, undo_for): (Option<&str>, Option<&str>),
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO attempts (id, step_id, number, state, offered_at, expires_at, rerun_for, undo_for) \
         SELECT $1, $2, coalesce(max(number), 0) + 1, 'offered', $3, $4, $5, $6 FROM attempts WHERE step_id = $2",
    )
    .bind(id)
    .bind(step_id)
    .bind(now)
    .bind(expires)
    .bind(rerun_for)
    .bind(undo_for)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// What a step is to run again for; only one that was attempted before and isn't skipped.
pub async fn set_rerun(tx: &mut Tx, id: StepId, reason: Option<&str>) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE steps SET rerun_for = $2 WHERE id = $1 AND state <> $3 \
         AND EXISTS (SELECT 1 FROM attempts WHERE step_id = $1)",
    )
    .bind(id)
    .bind(reason)
    .bind(StepState::Skipped)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// A step that was attempted is to be undone next, whatever else it was to do.
pub async fn ask_undo(
    tx: &mut Tx,
    device_id: DeviceId,
    id: StepId,
    from: StepState,
    why: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE steps SET state = 'ready', undo_from = state, undo_for = $4, rerun_for = NULL, waits_for = NULL, \
         note = NULL, changed_at = $5 WHERE id = $2 AND state = $3 \
         AND runbook_id IN (SELECT id FROM runbooks WHERE device_id = $1) \
         AND EXISTS (SELECT 1 FROM attempts WHERE step_id = $2)",
    )
    .bind(device_id)
    .bind(id)
    .bind(from)
    .bind(why)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// The attempt has it now.
pub async fn undo_offered(tx: &mut Tx, id: StepId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE steps SET undo_for = NULL WHERE id = $1")
        .bind(id)
        .execute(conn)
        .await
        .map(|_| ()))
}

/// The step of an attempt, if both belong to this device.
pub async fn step_of_attempt(
    tx: &mut Tx,
    device_id: DeviceId,
    attempt_id: AttemptId,
) -> Result<Option<StepId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT steps.id FROM attempts JOIN steps ON steps.id = attempts.step_id \
         JOIN runbooks ON runbooks.id = steps.runbook_id WHERE attempts.id = $1 AND runbooks.device_id = $2",
    )
    .bind(attempt_id)
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

/// Gives an offer that is made again its time.
pub async fn offer_again(tx: &mut Tx, id: AttemptId, expires: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE attempts SET expires_at = $2 WHERE id = $1 AND state IN ('offered', 'running')")
        .bind(id)
        .bind(expires)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn start_attempt(tx: &mut Tx, id: AttemptId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE attempts SET state = 'running', running_at = $2 WHERE id = $1 AND state = 'offered'",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Closes an attempt with what the device says of it.
pub async fn finish_attempt(
    tx: &mut Tx,
    id: AttemptId,
    to: AttemptState,
    now: Timestamp,
    ended: Option<&AttemptEnded>,
    found: &str,
) -> Result<u64, sqlx::Error> {
    let exit_code = ended.and_then(|ended| ended.exit_code).map(i64::from);
    let duration = ended.and_then(|ended| i64::try_from(ended.duration_ms).ok());
    on!(tx, conn => sqlx::query(
        "UPDATE attempts SET state = $2, ended_at = $3, exit_code = $4, found = $5, duration_ms = $6 \
         WHERE id = $1 AND state IN ('offered', 'running')",
    )
    .bind(id)
    .bind(to)
    .bind(now)
    .bind(exit_code)
    .bind(found)
    .bind(duration)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn insert_output(tx: &mut Tx, chunk: &OutputChunk) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO attempt_output (attempt_id, seq, text) VALUES ($1, $2, $3) \
         ON CONFLICT (attempt_id, seq) DO NOTHING",
    )
    .bind(chunk.attempt_id)
    .bind(i64::try_from(chunk.seq).unwrap_or(i64::MAX))
    .bind(chunk.text.replace('\0', "\u{fffd}"))
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Bytes of output that are kept of an attempt.
pub async fn output_size(tx: &mut Tx, id: AttemptId) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT CAST(coalesce(sum(length(text)), 0) AS BIGINT) FROM attempt_output WHERE attempt_id = $1",
    )
    .bind(id)
    .fetch_one(conn)
    .await)
}

pub async fn output(tx: &mut Tx, id: AttemptId) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT text FROM attempt_output WHERE attempt_id = $1 ORDER BY seq")
        .bind(id)
        .fetch_all(conn)
        .await)
}

/// The latest chunks, newest first.
pub async fn last_output(tx: &mut Tx, id: AttemptId, chunks: i64) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT text FROM attempt_output WHERE attempt_id = $1 ORDER BY seq DESC LIMIT $2",
    )
    .bind(id)
    .bind(chunks)
    .fetch_all(conn)
    .await)
}
