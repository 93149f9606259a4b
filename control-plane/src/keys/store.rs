use shared::ids::BoardId;
use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct RootKeyRow {
    pub version: i64,
    pub provider: String,
    pub wrapped: Vec<u8>,
    pub fingerprint: String,
}

#[derive(sqlx::FromRow)]
pub struct KeptRow {
    pub root_version: i64,
    pub purpose: String,
    pub sealed_under: i64,
    pub sealed: Vec<u8>,
}

pub async fn board_id(tx: &mut Tx) -> Result<Option<BoardId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM board WHERE singleton = 1").fetch_optional(conn).await)
}

/// The newest first.
pub async fn living(tx: &mut Tx) -> Result<Vec<RootKeyRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT version, provider, wrapped, fingerprint FROM root_keys WHERE retired_at IS NULL ORDER BY version DESC",
    )
    .fetch_all(conn)
    .await)
}

pub async fn living_versions(tx: &mut Tx) -> Result<Vec<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT version FROM root_keys WHERE retired_at IS NULL ORDER BY version DESC")
        .fetch_all(conn)
        .await)
}

/// Of all versions, the retired too.
pub async fn providers(tx: &mut Tx) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT provider FROM root_keys").fetch_all(conn).await)
}

pub async fn highest(tx: &mut Tx) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT max(version) FROM root_keys").fetch_one(conn).await)
}

/// No row when the version is there already.
pub async fn insert(
    tx: &mut Tx,
    version: u32,
    provider: &str,
    wrapped: &[u8],
    fingerprint: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO root_keys (version, provider, wrapped, fingerprint, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (version) DO NOTHING",
    )
    .bind(i64::from(version))
    .bind(provider)
    .bind(wrapped)
    .bind(fingerprint)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Locks the row until the transaction ends; no row when it was retired.
pub async fn hold(tx: &mut Tx, version: u32) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE root_keys SET version = version WHERE version = $1 AND retired_at IS NULL")
        .bind(i64::from(version))
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn retire(tx: &mut Tx, version: u32, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE root_keys SET retired_at = $2, wrapped = $3 WHERE version = $1 AND retired_at IS NULL",
    )
    .bind(i64::from(version))
    .bind(now)
    .bind(Vec::<u8>::new())
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn kept(tx: &mut Tx, now: Timestamp) -> Result<Vec<KeptRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT root_version, purpose, sealed_under, sealed FROM kept_keys WHERE ends_at > $1 \
         ORDER BY root_version DESC, purpose",
    )
    .bind(now)
    .fetch_all(conn)
    .await)
}

pub async fn insert_kept(tx: &mut Tx, row: &KeptRow, ends: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO kept_keys (root_version, purpose, sealed_under, sealed, ends_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(row.root_version)
    .bind(&row.purpose)
    .bind(row.sealed_under)
    .bind(&row.sealed)
    .bind(ends)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn reseal_kept(
    tx: &mut Tx,
    root_version: i64,
    purpose: &str,
    under: u32,
    sealed: &[u8],
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE kept_keys SET sealed_under = $3, sealed = $4 WHERE root_version = $1 AND purpose = $2",
    )
    .bind(root_version)
    .bind(purpose)
    .bind(i64::from(under))
    .bind(sealed)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn delete_ended(tx: &mut Tx, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM kept_keys WHERE ends_at <= $1").bind(now).execute(conn).await.map(|_| ()))
}
