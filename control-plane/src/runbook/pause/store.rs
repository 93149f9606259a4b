use shared::ids::RunbookId;

use super::Pause;
use crate::db::Tx;
use crate::on;

pub async fn pause_of(tx: &mut Tx, runbook_id: RunbookId) -> Result<Option<Pause>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT paused_at, paused_by, reason FROM runbook_pauses WHERE runbook_id = $1",
    )
    .bind(runbook_id)
    .fetch_optional(conn)
    .await)
}

/// No row changes when it is paused already.
pub async fn pause(tx: &mut Tx, runbook_id: RunbookId, pause: &Pause) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO runbook_pauses (runbook_id, paused_at, paused_by, reason) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (runbook_id) DO NOTHING",
    )
    .bind(runbook_id)
    .bind(pause.paused_at)
    .bind(&pause.paused_by)
    .bind(&pause.reason)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn resume(tx: &mut Tx, runbook_id: RunbookId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM runbook_pauses WHERE runbook_id = $1")
        .bind(runbook_id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}
