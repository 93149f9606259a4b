use shared::ids::DeviceId;
use shared::time::Timestamp;

use super::Quarantined;
use crate::db::Tx;
use crate::on;

pub async fn quarantine(tx: &mut Tx, id: DeviceId, hardware_uuid: &str) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE devices SET state = 'quarantined', other_hardware_uuid = $2 WHERE id = $1 AND state = 'enrolled'",
    )
    .bind(id)
    .bind(hardware_uuid)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Back to work, as the Mac that it is then.
pub async fn release(tx: &mut Tx, id: DeviceId, seen: &str, hardware_uuid: &str) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE devices SET state = 'enrolled', hardware_uuid = $3, other_hardware_uuid = NULL \
         WHERE id = $1 AND state = 'quarantined' AND other_hardware_uuid = $2",
    )
    .bind(id)
    .bind(seen)
    .bind(hardware_uuid)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn quarantined(tx: &mut Tx) -> Result<Vec<Quarantined>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id AS device_id, client_id, name, hardware_uuid, other_hardware_uuid FROM devices \
         WHERE state = 'quarantined' AND other_hardware_uuid IS NOT NULL ORDER BY lower(name), id LIMIT 500",
    )
    .fetch_all(conn)
    .await)
}

pub async fn is_turned_away(tx: &mut Tx, id: DeviceId, hardware_uuid: &str) -> Result<bool, sqlx::Error> {
    let count: i64 = on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM turned_away WHERE device_id = $1 AND hardware_uuid = $2",
    )
    .bind(id)
    .bind(hardware_uuid)
    .fetch_one(conn)
    .await)?;
    Ok(count > 0)
}

pub async fn turn_away(
    tx: &mut Tx,
    id: DeviceId,
    hardware_uuid: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO turned_away (device_id, hardware_uuid, at) VALUES ($1, $2, $3) \
         ON CONFLICT (device_id, hardware_uuid) DO NOTHING",
    )
    .bind(id)
    .bind(hardware_uuid)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Whoever was turned away before is the device now.
pub async fn let_in(tx: &mut Tx, id: DeviceId, hardware_uuid: &str) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM turned_away WHERE device_id = $1 AND hardware_uuid = $2")
        .bind(id)
        .bind(hardware_uuid)
        .execute(conn)
        .await
        .map(|_| ()))
}
