use shared::ids::BoardId;
use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

pub async fn id(tx: &mut Tx) -> Result<Option<BoardId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM board WHERE singleton = 1").fetch_optional(conn).await)
}

/// Takes the turn to change the root key; no row while somebody else has it.
pub async fn take_lease(
    tx: &mut Tx,
    holder: &[u8; 16],
    now: Timestamp,
    expires: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO rekey_lease (singleton, holder, expires_at) VALUES (1, $1, $3) \
         ON CONFLICT (singleton) DO UPDATE SET holder = $1, expires_at = $3 WHERE rekey_lease.expires_at <= $2",
    )
    .bind(holder.as_slice())
    .bind(now)
    .bind(expires)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// No row once somebody else has taken it.
pub async fn renew_lease(tx: &mut Tx, holder: &[u8; 16], expires: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE rekey_lease SET expires_at = $2 WHERE holder = $1")
        .bind(holder.as_slice())
        .bind(expires)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn end_lease(tx: &mut Tx, holder: &[u8; 16]) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM rekey_lease WHERE holder = $1")
        .bind(holder.as_slice())
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn insert(tx: &mut Tx, id: BoardId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO board (singleton, id, created_at) VALUES (1, $1, $2)")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}
