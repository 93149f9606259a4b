use shared::ids::{ClientId, DeviceId, WipeId};
use shared::time::Timestamp;

use super::Asked;
use crate::db::Tx;
use crate::enrollment::DeviceState;
use crate::on;

pub async fn leave(tx: &mut Tx, id: DeviceId, from: DeviceState) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE devices SET state = 'leaving', other_hardware_uuid = NULL WHERE id = $1 AND state = $2",
    )
    .bind(id)
    .bind(from)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn insert(
    tx: &mut Tx,
    id: WipeId,
    device_id: DeviceId,
    pasted: bool,
    now: Timestamp,
    by: &str,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO wipes (id, device_id, pasted, asked_at, asked_by) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(device_id)
    .bind(pasted)
    .bind(now)
    .bind(by)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn newest(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Asked>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, device_id, pasted, asked_at, asked_by, receipt, confirmed_at FROM wipes \
         WHERE device_id = $1 ORDER BY asked_at DESC, id DESC LIMIT 1",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

pub async fn of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Asked>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT wipes.id, wipes.device_id, wipes.pasted, wipes.asked_at, wipes.asked_by, wipes.receipt, \
         wipes.confirmed_at FROM wipes JOIN devices ON devices.id = wipes.device_id \
         WHERE devices.client_id = $1 AND NOT EXISTS (SELECT 1 FROM wipes AS later \
         WHERE later.device_id = wipes.device_id AND later.id > wipes.id)",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)
}

/// The key that an enrolled device signs its receipts with.
pub async fn tls_spki(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT tls_spki FROM enrollments WHERE device_id = $1 AND state = 'enrolled'",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

pub async fn confirm(tx: &mut Tx, id: WipeId, receipt: &str, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE wipes SET receipt = $2, confirmed_at = $3 WHERE id = $1 AND confirmed_at IS NULL",
    )
    .bind(id)
    .bind(receipt)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Join codes that nobody used are void.
pub async fn end_codes(tx: &mut Tx, client_id: ClientId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE join_codes SET expires_at = $2 WHERE client_id = $1 AND expires_at > $2")
        .bind(client_id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}
