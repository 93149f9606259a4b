use shared::ids::DeviceId;
use shared::time::Timestamp;

use super::{AuthorityState, Standing};
use crate::db::Tx;
use crate::enrollment::ca::Successor;
use crate::on;

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    pub number: i64,
    pub certificate: Vec<u8>,
    pub created_at: Timestamp,
}

pub async fn active(tx: &mut Tx) -> Result<Option<Row>, sqlx::Error> {
    in_state(tx, AuthorityState::Active).await
}

pub async fn coming(tx: &mut Tx) -> Result<Option<Row>, sqlx::Error> {
    in_state(tx, AuthorityState::Coming).await
}

async fn in_state(tx: &mut Tx, state: AuthorityState) -> Result<Option<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT number, certificate, created_at FROM authorities WHERE state = $1")
        .bind(state)
        .fetch_optional(conn)
        .await)
}

pub async fn all(tx: &mut Tx) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT number, certificate FROM authorities").fetch_all(conn).await)
}

pub async fn last_number(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT coalesce(max(number), 0) FROM authorities").fetch_one(conn).await)
}

pub async fn insert(tx: &mut Tx, number: i64, next: &Successor, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO authorities (number, certificate, wrapped_key, created_at, state, proof) \
         VALUES ($1, $2, $3, $4, 'coming', $5)",
    )
    .bind(number)
    .bind(&next.certificate)
    .bind(&next.wrapped)
    .bind(now)
    .bind(&next.proof)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Locks the row until the transaction ends.
pub async fn hold_active(tx: &mut Tx) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("UPDATE authorities SET state = state WHERE state = 'active' RETURNING number")
        .fetch_optional(conn)
        .await)
}

pub async fn retire_active(tx: &mut Tx, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE authorities SET state = 'retired', retired_at = $1 WHERE state = 'active'")
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn activate_coming(tx: &mut Tx) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE authorities SET state = 'active' WHERE state = 'coming'")
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Every living device, and whether it keeps the pin of this authority.
pub async fn standings(tx: &mut Tx, number: i64) -> Result<Vec<Standing>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT devices.id AS device_id, devices.name AS device, clients.name AS client, devices.state, \
         devices.last_seen_at, EXISTS (SELECT 1 FROM enrollments WHERE enrollments.device_id = devices.id \
         AND enrollments.state IN ('approved', 'enrolled') AND acknowledged_authority >= $1) AS acknowledged \
         FROM devices JOIN clients ON clients.id = devices.client_id WHERE devices.state <> 'revoked' \
         ORDER BY lower(clients.name), lower(devices.name), devices.id",
    )
    .bind(number)
    .fetch_all(conn)
    .await)
}

/// Number, certificate and proof of the coming authority, and the certificate of the active one.
pub type News = (i64, Vec<u8>, Vec<u8>, Vec<u8>);

pub async fn news(tx: &mut Tx, device_id: DeviceId) -> Result<Option<News>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT coming.number, coming.certificate, coming.proof, active.certificate FROM enrollments \
         JOIN authorities AS coming ON coming.state = 'coming' JOIN authorities AS active ON active.state = 'active' \
         WHERE enrollments.device_id = $1 AND enrollments.state = 'enrolled' \
         AND coalesce(acknowledged_authority, 0) < coming.number",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

pub async fn acknowledge(tx: &mut Tx, device_id: DeviceId, number: i64) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET acknowledged_authority = $2 WHERE device_id = $1 AND state = 'enrolled' \
         AND coalesce(acknowledged_authority, 0) < $2",
    )
    .bind(device_id)
    .bind(number)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn believed(tx: &mut Tx, retired_after: Timestamp) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT certificate FROM authorities WHERE state <> 'retired' OR retired_at > $1 ORDER BY number",
    )
    .bind(retired_after)
    .fetch_all(conn)
    .await)
}

pub async fn keeps_coming(tx: &mut Tx, device_id: DeviceId) -> Result<bool, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM enrollments JOIN authorities ON authorities.state = 'coming' \
         WHERE enrollments.device_id = $1 AND enrollments.state = 'enrolled' \
         AND enrollments.acknowledged_authority = authorities.number)",
    )
    .bind(device_id)
    .fetch_one(conn)
    .await)
}
