use shared::ids::{DeviceId, PlanId, RunbookId, StepId};
use shared::time::Timestamp;

use super::{Answer, Plan, PlanState, PlanStep};
use crate::db::Tx;
use crate::on;

/// No row is made while another plan of the runbook is open.
pub async fn insert(tx: &mut Tx, plan: &Plan) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO plans (id, runbook_id, state, asked_by, asked_at, heard_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT DO NOTHING",
    )
    .bind(plan.id)
    .bind(plan.runbook_id)
    .bind(plan.state)
    .bind(&plan.asked_by)
    .bind(plan.asked_at)
    .bind(plan.heard_at)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// The runbook's automatic steps, but those that were skipped.
pub async fn insert_steps(tx: &mut Tx, id: PlanId, runbook_id: RunbookId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO plan_steps (plan_id, step_id, found) SELECT $1, id, '' FROM steps \
         WHERE runbook_id = $2 AND kind = 'auto' AND state <> 'skipped'",
    )
    .bind(id)
    .bind(runbook_id)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn open(tx: &mut Tx, runbook_id: RunbookId) -> Result<Option<Plan>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, runbook_id, state, asked_by, asked_at, heard_at, ended_at, reason FROM plans \
         WHERE runbook_id = $1 AND state IN ('asked', 'sent')",
    )
    .bind(runbook_id)
    .fetch_optional(conn)
    .await)
}

pub async fn latest(tx: &mut Tx, runbook_id: RunbookId) -> Result<Option<Plan>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, runbook_id, state, asked_by, asked_at, heard_at, ended_at, reason FROM plans \
         WHERE runbook_id = $1 ORDER BY asked_at DESC, id DESC LIMIT 1",
    )
    .bind(runbook_id)
    .fetch_optional(conn)
    .await)
}

/// A plan, if it is of this device.
pub async fn of_device(tx: &mut Tx, device_id: DeviceId, id: PlanId) -> Result<Option<Plan>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT plans.id, runbook_id, state, asked_by, asked_at, heard_at, ended_at, reason FROM plans \
         JOIN runbooks ON runbooks.id = plans.runbook_id WHERE plans.id = $2 AND runbooks.device_id = $1",
    )
    .bind(device_id)
    .bind(id)
    .fetch_optional(conn)
    .await)
}

pub async fn steps(tx: &mut Tx, id: PlanId) -> Result<Vec<PlanStep>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT plan_steps.step_id, steps.component_key, steps.step_key, plan_steps.answer, plan_steps.found \
         FROM plan_steps JOIN steps ON steps.id = plan_steps.step_id WHERE plan_steps.plan_id = $1 \
         ORDER BY steps.position",
    )
    .bind(id)
    .fetch_all(conn)
    .await)
}

pub async fn send(tx: &mut Tx, id: PlanId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE plans SET state = 'sent', heard_at = $2 WHERE id = $1 AND state = 'asked'")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// It is to be sent again.
pub async fn unsend(tx: &mut Tx, id: PlanId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE plans SET state = 'asked' WHERE id = $1 AND state = 'sent'")
        .bind(id)
        .execute(conn)
        .await
        .map(|_| ()))
}

/// Deletes the runbook's plans that ended, but the last few of its plans.
pub async fn forget(tx: &mut Tx, runbook_id: RunbookId, kept: i64) -> Result<(), sqlx::Error> {
    let ended: Vec<PlanId> = on!(tx, conn => sqlx::query_scalar(
        "SELECT id FROM plans WHERE runbook_id = $1 AND state NOT IN ('asked', 'sent') AND id NOT IN \
         (SELECT id FROM plans WHERE runbook_id = $1 ORDER BY asked_at DESC, id DESC LIMIT $2)",
    )
    .bind(runbook_id)
    .bind(kept)
    .fetch_all(conn)
    .await)?;
    for id in ended {
        on!(tx, conn => sqlx::query("DELETE FROM plan_steps WHERE plan_id = $1").bind(id).execute(conn).await.map(|_| ()))?;
        on!(tx, conn => sqlx::query("DELETE FROM plans WHERE id = $1").bind(id).execute(conn).await.map(|_| ()))?;
    }
    Ok(())
}

pub async fn heard(tx: &mut Tx, id: PlanId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE plans SET heard_at = $2 WHERE id = $1 AND state = 'sent'")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn answer(
    tx: &mut Tx,
    id: PlanId,
    step_id: StepId,
    answer: Answer,
    found: &str,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE plan_steps SET answer = $3, found = $4 WHERE plan_id = $1 AND step_id = $2 AND answer IS NULL",
    )
    .bind(id)
    .bind(step_id)
    .bind(answer)
    .bind(found)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn end(
    tx: &mut Tx,
    id: PlanId,
    from: PlanState,
    to: PlanState,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE plans SET state = $3, reason = $4, ended_at = $5 WHERE id = $1 AND state = $2",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(reason)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}
