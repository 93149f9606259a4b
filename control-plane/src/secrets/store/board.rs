//! The board's own secrets.

use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct BoardRow {
    pub version: i64,
    /// None once it was removed.
    pub encrypted_value: Option<Vec<u8>>,
    pub changed_at: Timestamp,
}

pub async fn board_row(tx: &mut Tx, name: &str) -> Result<Option<BoardRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT version, encrypted_value, changed_at FROM board_secrets WHERE name = $1")
        .bind(name)
        .fetch_optional(conn)
        .await)
}

/// Stores the version after the last; no row when somebody else stored it first.
pub async fn upsert_board(
    tx: &mut Tx,
    name: &str,
    version: i64,
    envelope: &[u8],
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO board_secrets (name, version, encrypted_value, changed_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET version = $2, encrypted_value = $3, changed_at = $4 \
         WHERE board_secrets.version = $2 - 1",
    )
    .bind(name)
    .bind(version)
    .bind(envelope)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Exchanges the envelope of the same version; no row when it isn't `old` any more.
pub async fn exchange_board(tx: &mut Tx, name: &str, old: &[u8], new: &[u8]) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE board_secrets SET encrypted_value = $3 WHERE name = $1 AND encrypted_value = $2",
    )
    .bind(name)
    .bind(old)
    .bind(new)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn remove_board(tx: &mut Tx, name: &str, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE board_secrets SET encrypted_value = NULL, changed_at = $2 WHERE name = $1 AND encrypted_value IS NOT NULL",
    )
    .bind(name)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}
