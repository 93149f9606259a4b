//! Deliveries, and what devices hold.

use shared::ids::{ClientId, DeliveryId, DeviceId, EnrollmentId, SlotId};
use shared::time::Timestamp;

use super::super::{Delivery, DeliveryState, Spread};
use crate::db::Tx;
use crate::on;

/// What a device's client has stored, whether or not it is in scope.
#[derive(sqlx::FromRow)]
pub struct StoredSlot {
    pub client_id: ClientId,
    pub slot_id: SlotId,
    pub version: i64,
    pub component_key: String,
    pub slot_key: String,
}

pub async fn stored_for(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<StoredSlot>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT client_credentials.client_id, client_credentials.slot_id, client_credentials.version, \
         slots.component_key, slots.slot_key FROM devices \
         JOIN client_credentials ON client_credentials.client_id = devices.client_id \
         JOIN component_credential_slots AS slots ON slots.id = client_credentials.slot_id WHERE devices.id = $1",
    )
    .bind(device_id)
    .fetch_all(conn)
    .await)
}

/// Makes a delivery; one of the same version that was withdrawn is to be sent again.
pub async fn insert_delivery(
    tx: &mut Tx,
    id: DeliveryId,
    device_id: DeviceId,
    slot_id: SlotId,
    version: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO deliveries (id, device_id, slot_id, tag, version, state, created_at) \
         VALUES ($1, $2, $3, 'our-managed', $4, $5, $6) ON CONFLICT (device_id, slot_id, version) \
         DO UPDATE SET state = $5, reason = NULL WHERE deliveries.state = $7",
    )
    .bind(id)
    .bind(device_id)
    .bind(slot_id)
    .bind(version)
    .bind(DeliveryState::Pending)
    .bind(now)
    .bind(DeliveryState::Superseded)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Closes older versions that have not arrived.
pub async fn supersede(
    tx: &mut Tx,
    device_id: DeviceId,
    slot_id: SlotId,
    version: i64,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE deliveries SET state = $4 WHERE device_id = $1 AND slot_id = $2 AND version < $3 AND state <> 'receipted'",
    )
    .bind(device_id)
    .bind(slot_id)
    .bind(version)
    .bind(DeliveryState::Superseded)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Closes what has not arrived of a slot that the device is not to have.
pub async fn withdraw(tx: &mut Tx, device_id: DeviceId, slot_id: SlotId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE deliveries SET state = $3 WHERE device_id = $1 AND slot_id = $2 \
         AND state IN ('pending', 'sent', 'refused')",
    )
    .bind(device_id)
    .bind(slot_id)
    .bind(DeliveryState::Superseded)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn deliveries(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<Delivery>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT deliveries.id, deliveries.device_id, devices.client_id, deliveries.slot_id, slots.component_key, \
         slots.slot_key, slots.display_name, deliveries.version, deliveries.state, deliveries.reason, \
         deliveries.receipt_at FROM deliveries JOIN devices ON devices.id = deliveries.device_id \
         JOIN component_credential_slots AS slots ON slots.id = deliveries.slot_id \
         WHERE deliveries.device_id = $1 ORDER BY slots.component_key, slots.slot_key, deliveries.version",
    )
    .bind(device_id)
    .fetch_all(conn)
    .await)
}

pub async fn delivery(
    tx: &mut Tx,
    device_id: DeviceId,
    id: DeliveryId,
) -> Result<Option<Delivery>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT deliveries.id, deliveries.device_id, devices.client_id, deliveries.slot_id, slots.component_key, \
         slots.slot_key, slots.display_name, deliveries.version, deliveries.state, deliveries.reason, \
         deliveries.receipt_at FROM deliveries JOIN devices ON devices.id = deliveries.device_id \
         JOIN component_credential_slots AS slots ON slots.id = deliveries.slot_id \
         WHERE deliveries.device_id = $1 AND deliveries.id = $2",
    )
    .bind(device_id)
    .bind(id)
    .fetch_optional(conn)
    .await)
}

/// The X25519 key of an enrolled device.
pub async fn sealing_key(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT enrollments.sealing_public_key FROM devices JOIN enrollments ON enrollments.device_id = devices.id \
         WHERE devices.id = $1 AND devices.state = 'enrolled' AND enrollments.state = 'enrolled'",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

/// What an enrolled device's fingerprint is made of, beside the board's own parts.
#[derive(sqlx::FromRow)]
pub struct Identity {
    pub id: EnrollmentId,
    pub tls_spki: Vec<u8>,
    pub sealing_public_key: Vec<u8>,
}

pub async fn identity(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Identity>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT enrollments.id, enrollments.tls_spki, enrollments.sealing_public_key FROM devices \
         JOIN enrollments ON enrollments.device_id = devices.id \
         WHERE devices.id = $1 AND devices.state = 'enrolled' AND enrollments.state = 'enrolled'",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

/// The device doesn't have what a closed delivery brought: it is one to send, or one to be planned when its slot is wanted.
pub async fn reopen(
    tx: &mut Tx,
    id: DeliveryId,
    from: DeliveryState,
    to: DeliveryState,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE deliveries SET state = $3, receipt = NULL, receipt_at = NULL WHERE id = $1 AND state = $2",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn mark_sent(tx: &mut Tx, id: DeliveryId, expires: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE deliveries SET state = 'sent', expires_at = $2 WHERE id = $1 AND state IN ('pending', 'sent')",
    )
    .bind(id)
    .bind(expires)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn set_decrypt(tx: &mut Tx, id: DeliveryId, seq: i64) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE deliveries SET decrypt_seq = $2 WHERE id = $1")
        .bind(id)
        .bind(seq)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn decrypt_of(tx: &mut Tx, id: DeliveryId) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT decrypt_seq FROM deliveries WHERE id = $1").bind(id).fetch_one(conn).await)
}

pub async fn mark_receipted(
    tx: &mut Tx,
    id: DeliveryId,
    receipt: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE deliveries SET state = 'receipted', receipt = $2, receipt_at = $3, reason = NULL, \
         first_receipt_at = coalesce(first_receipt_at, $3) WHERE id = $1 AND state <> 'receipted'",
    )
    .bind(id)
    .bind(receipt)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn mark_refused(tx: &mut Tx, id: DeliveryId, reason: &str) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE deliveries SET state = 'refused', reason = $2 WHERE id = $1 AND state = 'sent'")
        .bind(id)
        .bind(reason)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Whether a device had this delivery's version at any time.
pub async fn was_receipted(tx: &mut Tx, id: DeliveryId) -> Result<bool, sqlx::Error> {
    let at: Option<Timestamp> = on!(tx, conn => sqlx::query_scalar("SELECT first_receipt_at FROM deliveries WHERE id = $1")
        .bind(id)
        .fetch_one(conn)
        .await)?;
    Ok(at.is_some())
}

/// The newest delivery of each slot to each enrolled device of a client, and what the device holds.
pub async fn spread(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Spread>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT newest.device_id, newest.slot_id, newest.version, newest.state, newest.reason, \
         held_secrets.version AS held FROM deliveries AS newest JOIN devices ON devices.id = newest.device_id \
         LEFT JOIN held_secrets ON held_secrets.device_id = newest.device_id \
         AND held_secrets.slot_id = newest.slot_id \
         WHERE devices.client_id = $1 AND devices.state <> 'revoked' AND newest.version = \
         (SELECT max(version) FROM deliveries WHERE device_id = newest.device_id AND slot_id = newest.slot_id)",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)
}

/// Every slot of ours, with the version that is stored for the device's client; 0 where there is none.
pub async fn our_slots(
    tx: &mut Tx,
    device_id: DeviceId,
) -> Result<Vec<(SlotId, String, String, i64)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT slots.id, slots.component_key, slots.slot_key, coalesce(client_credentials.version, 0) \
         FROM component_credential_slots AS slots LEFT JOIN devices ON devices.id = $1 \
         LEFT JOIN client_credentials ON client_credentials.client_id = devices.client_id \
         AND client_credentials.slot_id = slots.id WHERE slots.tag = 'our-managed'",
    )
    .bind(device_id)
    .fetch_all(conn)
    .await)
}

/// Slots and versions that a device said it holds.
pub async fn held(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<(SlotId, i64)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT slot_id, version FROM held_secrets WHERE device_id = $1")
        .bind(device_id)
        .fetch_all(conn)
        .await)
}

pub async fn set_held(
    tx: &mut Tx,
    device_id: DeviceId,
    slot_id: SlotId,
    version: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO held_secrets (device_id, slot_id, version, said_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (device_id, slot_id) DO UPDATE SET version = $3, said_at = $4",
    )
    .bind(device_id)
    .bind(slot_id)
    .bind(version)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn forget_held(tx: &mut Tx, device_id: DeviceId, slot_id: SlotId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM held_secrets WHERE device_id = $1 AND slot_id = $2")
        .bind(device_id)
        .bind(slot_id)
        .execute(conn)
        .await
        .map(|_| ()))
}

/// The highest version that any device of the client holds.
pub async fn highest_held(
    tx: &mut Tx,
    client_id: ClientId,
    slot_id: SlotId,
) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT max(held_secrets.version) FROM held_secrets JOIN devices ON devices.id = held_secrets.device_id \
         WHERE devices.client_id = $1 AND held_secrets.slot_id = $2",
    )
    .bind(client_id)
    .bind(slot_id)
    .fetch_one(conn)
    .await)
}

pub async fn close_deliveries(tx: &mut Tx, client_id: ClientId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE deliveries SET state = 'superseded' WHERE state IN ('pending', 'sent') \
         AND device_id IN (SELECT id FROM devices WHERE client_id = $1)",
    )
    .bind(client_id)
    .execute(conn)
    .await
    .map(|_| ()))
}
