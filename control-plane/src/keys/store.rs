use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct RootKeyRow {
    pub version: i64,
    pub wrapped: Vec<u8>,
    pub fingerprint: String,
}

pub async fn newest(tx: &mut Tx) -> Result<Option<RootKeyRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT version, wrapped, fingerprint FROM root_keys ORDER BY version DESC LIMIT 1",
    )
    .fetch_optional(conn)
    .await)
}

pub async fn insert(
    tx: &mut Tx,
    version: u32,
    provider: &str,
    wrapped: &[u8],
    fingerprint: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO root_keys (version, provider, wrapped, fingerprint, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(i64::from(version))
    .bind(provider)
    .bind(wrapped)
    .bind(fingerprint)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}
