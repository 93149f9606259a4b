use shared::time::Timestamp;

use super::Incident;
use crate::db::Tx;
use crate::on;

pub async fn open(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT count(*) FROM incidents WHERE open = 1").fetch_one(conn).await)
}

pub async fn latest(tx: &mut Tx) -> Result<Option<Incident>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT at, who, reason, lifted_at FROM incidents ORDER BY number DESC LIMIT 1",
    )
    .fetch_optional(conn)
    .await)
}

/// No row while one is open.
pub async fn insert(tx: &mut Tx, now: Timestamp, who: &str, reason: &str) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO incidents (number, open, at, who, reason) \
         SELECT coalesce(max(number), 0) + 1, 1, $1, $2, $3 FROM incidents WHERE TRUE ON CONFLICT DO NOTHING",
    )
    .bind(now)
    .bind(who)
    .bind(reason)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn lift(tx: &mut Tx, now: Timestamp, who: &str) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE incidents SET open = NULL, lifted_at = $1, lifted_by = $2 WHERE open = 1")
        .bind(now)
        .bind(who)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}
