use shared::ids::BoardId;
use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

pub async fn board_id(tx: &mut Tx) -> Result<Option<BoardId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM board WHERE singleton = 1").fetch_optional(conn).await)
}

/// A rekey that was under way when the backup was made is over.
pub async fn end_rekey_lease(tx: &mut Tx) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM rekey_lease").execute(conn).await.map(|_| ()))
}

/// What browsers were asked to sign.
pub async fn end_challenges(tx: &mut Tx) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM passkey_challenges").execute(conn).await.map(|_| ()))
}

/// Everybody signs in again.
pub async fn end_sessions(tx: &mut Tx) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM sessions")
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// One-time links that nobody used.
pub async fn end_links(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE sign_in_links SET used_at = $1 WHERE used_at IS NULL")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// API tokens: one that was revoked after the backup would live again.
pub async fn end_tokens(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE api_tokens SET revoked_at = $1 WHERE revoked_at IS NULL")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Joins under way: whoever compared a fingerprint did it with another board.
pub async fn end_joins(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE enrollments SET expires_at = $1 WHERE state IN ('pending', 'approved') AND expires_at > $1")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Join codes that are good yet.
pub async fn end_join_codes(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE join_codes SET expires_at = $1 WHERE expires_at > $1")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Offers that no device took: the board makes them again.
pub async fn end_offers(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE attempts SET expires_at = $1 WHERE state = 'offered' AND expires_at > $1")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Devices may hold certificates that were issued after the backup.
pub async fn doubt_certificates(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE enrollments SET restored_at = $1 WHERE state = 'enrolled'")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}
