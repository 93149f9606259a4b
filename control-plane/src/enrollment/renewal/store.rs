use shared::ids::{ClientId, DeviceId, EnrollmentId};
use shared::time::Timestamp;

use super::LateRenewal;
use crate::db::Tx;
use crate::enrollment::ca::Issued;
use crate::on;

/// When a consultant let the device go on after a long silence, if that was its latest question.
pub async fn confirmed(tx: &mut Tx, id: EnrollmentId) -> Result<Option<Timestamp>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT renewal_confirmed_at FROM enrollments WHERE id = $1")
        .bind(id)
        .fetch_one(conn)
        .await)
}

/// Asks, unless the question is open already. A confirmation that was good for an earlier one ends.
pub async fn ask(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET renewal_asked_at = $2, renewal_confirmed_at = NULL WHERE id = $1 \
         AND state = 'enrolled' AND (renewal_asked_at IS NULL OR renewal_confirmed_at IS NOT NULL)",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn confirm(tx: &mut Tx, device_id: DeviceId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET renewal_confirmed_at = $2 WHERE device_id = $1 AND state = 'enrolled' \
         AND renewal_asked_at IS NOT NULL AND renewal_confirmed_at IS NULL",
    )
    .bind(device_id)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Puts a new certificate beside the one in use, if the serials are still those that were read.
pub async fn issue(
    tx: &mut Tx,
    id: EnrollmentId,
    issued: &Issued,
    read: &(Option<Vec<u8>>, Option<Vec<u8>>),
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET certificate = $2, certificate_not_after = $3, serial_issued = $4, \
         renewal_asked_at = NULL WHERE id = $1 AND state = 'enrolled' \
         AND serial_current IS NOT DISTINCT FROM $5 AND serial_issued IS NOT DISTINCT FROM $6",
    )
    .bind(id)
    .bind(&issued.der)
    .bind(issued.not_after)
    .bind(&issued.serial)
    .bind(&read.0)
    .bind(&read.1)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn late(tx: &mut Tx) -> Result<Vec<LateRenewal>, sqlx::Error> {
    let rows: Vec<(DeviceId, ClientId, String, Option<Timestamp>, Timestamp)> = on!(tx, conn => sqlx::query_as(
        "SELECT devices.id, devices.client_id, devices.name, devices.last_seen_at, enrollments.renewal_asked_at \
         FROM enrollments JOIN devices ON devices.id = enrollments.device_id \
         WHERE enrollments.state = 'enrolled' AND devices.state = 'enrolled' \
         AND enrollments.renewal_asked_at IS NOT NULL AND enrollments.renewal_confirmed_at IS NULL \
         ORDER BY enrollments.renewal_asked_at LIMIT 500",
    )
    .fetch_all(conn)
    .await)?;
    Ok(rows
        .into_iter()
        .map(|(device_id, client_id, name, last_seen_at, asked_at)| LateRenewal {
            device_id,
            client_id,
            name,
            last_seen_at,
            asked_at,
        })
        .collect())
}
