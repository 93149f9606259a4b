use shared::ids::DeviceId;

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
