use std::collections::HashSet;

use shared::ids::ClientId;
use shared::time::Timestamp;

use super::{Engagement, EngagementState};
use crate::db::Tx;
use crate::on;

pub async fn get(tx: &mut Tx, id: ClientId) -> Result<Option<Engagement>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT engagement, purge_after_days, ended_at, ended_by, purge_due_at, hold_reason, purged_at, rewritten_at \
         FROM clients WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await)
}

/// Clients whose engagement is in this state, the earliest due first.
pub async fn in_state(tx: &mut Tx, state: EngagementState) -> Result<Vec<ClientId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM clients WHERE engagement = $1 ORDER BY purge_due_at, id")
        .bind(state)
        .fetch_all(conn)
        .await)
}

/// Clients whose engagement is over, purged or not.
pub async fn ended(tx: &mut Tx) -> Result<HashSet<ClientId>, sqlx::Error> {
    let ids: Vec<ClientId> = on!(tx, conn => sqlx::query_scalar("SELECT id FROM clients WHERE engagement <> 'active'")
        .fetch_all(conn)
        .await)?;
    Ok(ids.into_iter().collect())
}

/// Fixes when the purge is due. No row when the engagement isn't active.
pub async fn end(
    tx: &mut Tx,
    id: ClientId,
    by: &str,
    now: Timestamp,
    due: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET engagement = 'ending', ended_at = $2, ended_by = $3, purge_due_at = $4, hold_reason = NULL \
         WHERE id = $1 AND engagement = 'active'",
    )
    .bind(id)
    .bind(now)
    .bind(by)
    .bind(due)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn hold(tx: &mut Tx, id: ClientId, reason: &str) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET engagement = 'held', hold_reason = $2 WHERE id = $1 AND engagement = 'ending'",
    )
    .bind(id)
    .bind(reason)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// The due date stays as it was fixed.
pub async fn release(tx: &mut Tx, id: ClientId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET engagement = 'ending', hold_reason = NULL WHERE id = $1 AND engagement = 'held'",
    )
    .bind(id)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Makes it active again. `salt` is for a client without one; who has one keeps it.
pub async fn reactivate(
    tx: &mut Tx,
    id: ClientId,
    from: EngagementState,
    salt: &[u8; 32],
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET engagement = 'active', ended_at = NULL, ended_by = NULL, purge_due_at = NULL, \
         hold_reason = NULL, salt = coalesce(salt, $3) WHERE id = $1 AND engagement = $2 AND engagement <> 'active'",
    )
    .bind(id)
    .bind(from)
    .bind(salt.as_slice())
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Erases the salt of a client whose purge is due.
pub async fn purge(tx: &mut Tx, id: ClientId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET engagement = 'purged', salt = NULL, purged_at = $2, rewritten_at = NULL \
         WHERE id = $1 AND engagement = 'ending' AND purge_due_at <= $2",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn set_days(tx: &mut Tx, id: ClientId, days: i64) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET purge_after_days = $2 WHERE id = $1 AND engagement = 'active' AND purge_after_days <> $2",
    )
    .bind(id)
    .bind(days)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Purged clients after whose purge the database's files weren't rewritten, with the time of the purge.
pub async fn unwritten(tx: &mut Tx) -> Result<Vec<(ClientId, Timestamp)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, purged_at FROM clients WHERE purged_at IS NOT NULL AND rewritten_at IS NULL ORDER BY purged_at, id",
    )
    .fetch_all(conn)
    .await)
}

pub async fn rewritten(
    tx: &mut Tx,
    id: ClientId,
    purged: Timestamp,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE clients SET rewritten_at = $3 WHERE id = $1 AND purged_at = $2 AND rewritten_at IS NULL",
    )
    .bind(id)
    .bind(purged)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}
