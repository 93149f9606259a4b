use shared::ids::{ClientId, DeliveryId, DeviceId, EnrollmentId, SlotId, UserId};
use shared::time::Timestamp;

use super::{Delivery, DeliveryState, Place, Spread, StoredSecret};
use crate::db::Tx;
use crate::on;

pub async fn version(tx: &mut Tx, client_id: ClientId, slot_id: SlotId) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT version FROM client_credentials WHERE client_id = $1 AND slot_id = $2")
        .bind(client_id)
        .bind(slot_id)
        .fetch_optional(conn)
        .await)
}

/// Stores a version in place of the last; no row when somebody else stored one first.
pub async fn upsert(
    tx: &mut Tx,
    place: Place,
    last: i64,
    envelope: &[u8],
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO client_credentials \
         (client_id, slot_id, tag, version, encrypted_value, created_at, last_rotated_at) \
         VALUES ($1, $2, 'our-managed', $3, $4, $5, $5) \
         ON CONFLICT (client_id, slot_id) DO UPDATE \
         SET version = $3, encrypted_value = $4, last_rotated_at = $5 WHERE client_credentials.version = $6",
    )
    .bind(place.client_id)
    .bind(place.slot_id)
    .bind(i64::try_from(place.version).unwrap_or(i64::MAX))
    .bind(envelope)
    .bind(now)
    .bind(last)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn envelope(tx: &mut Tx, place: Place) -> Result<Option<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT encrypted_value FROM client_credentials WHERE client_id = $1 AND slot_id = $2 AND version = $3",
    )
    .bind(place.client_id)
    .bind(place.slot_id)
    .bind(i64::try_from(place.version).unwrap_or(i64::MAX))
    .fetch_optional(conn)
    .await)
}

/// What was encrypted under another version of the root key: an envelope says which in its bytes 5 to 8.
pub async fn not_under(tx: &mut Tx, root_version: u32) -> Result<Vec<(ClientId, SlotId, i64)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT client_id, slot_id, version FROM client_credentials JOIN clients ON clients.id = client_id \
         WHERE substr(encrypted_value, 5, 4) <> $1 AND clients.salt IS NOT NULL ORDER BY client_id, slot_id",
    )
    .bind(root_version.to_be_bytes().to_vec())
    .fetch_all(conn)
    .await)
}

/// Names of the client, and keys of the component and the slot.
pub async fn names(tx: &mut Tx, place: Place) -> Result<Option<(String, String, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT clients.name, slots.component_key, slots.slot_key FROM clients, component_credential_slots AS slots \
         WHERE clients.id = $1 AND slots.id = $2",
    )
    .bind(place.client_id)
    .bind(place.slot_id)
    .fetch_optional(conn)
    .await)
}

/// The version in the envelopes' bytes 5 to 8, how many there are under it, and of how many clients.
pub async fn under(tx: &mut Tx) -> Result<Vec<(Vec<u8>, i64, i64)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT substr(encrypted_value, 5, 4), count(*), count(DISTINCT client_id) FROM client_credentials \
         GROUP BY substr(encrypted_value, 5, 4) ORDER BY substr(encrypted_value, 5, 4)",
    )
    .fetch_all(conn)
    .await)
}

pub async fn without_salt(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM client_credentials JOIN clients ON clients.id = client_credentials.client_id \
         WHERE clients.salt IS NULL",
    )
    .fetch_one(conn)
    .await)
}

/// Exchanges the envelope of the same version; no row when it isn't `old` any more.
pub async fn exchange(tx: &mut Tx, place: Place, old: &[u8], new: &[u8]) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE client_credentials SET encrypted_value = $5 \
         WHERE client_id = $1 AND slot_id = $2 AND version = $3 AND encrypted_value = $4",
    )
    .bind(place.client_id)
    .bind(place.slot_id)
    .bind(i64::try_from(place.version).unwrap_or(i64::MAX))
    .bind(old)
    .bind(new)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn stored(tx: &mut Tx, client_id: ClientId) -> Result<Vec<StoredSecret>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT slot_id, version, last_rotated_at FROM client_credentials WHERE client_id = $1",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)
}

pub async fn stored_slots(tx: &mut Tx, client_id: ClientId) -> Result<Vec<(String, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT slots.component_key, slots.slot_key FROM client_credentials \
         JOIN component_credential_slots AS slots ON slots.id = client_credentials.slot_id \
         WHERE client_credentials.client_id = $1",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)
}

pub async fn devices_of(tx: &mut Tx, client_id: ClientId) -> Result<Vec<DeviceId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM devices WHERE client_id = $1 AND state = 'enrolled'")
        .bind(client_id)
        .fetch_all(conn)
        .await)
}

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

pub async fn tls_spki(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT tls_spki FROM enrollments WHERE device_id = $1 AND state = 'enrolled'",
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

/// The number of a user's last copy, and how many they made since a moment.
pub async fn copies(tx: &mut Tx, user_id: UserId, since: Timestamp) -> Result<(i64, i64), sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT coalesce(max(number), 0), count(CASE WHEN at > $2 THEN 1 END) FROM secret_copies WHERE user_id = $1",
    )
    .bind(user_id)
    .bind(since)
    .fetch_one(conn)
    .await)
}

/// No row when another copy took the number at the same moment.
pub async fn insert_copy(
    tx: &mut Tx,
    user_id: UserId,
    number: i64,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO secret_copies (user_id, number, at) VALUES ($1, $2, $3) ON CONFLICT (user_id, number) DO NOTHING",
    )
    .bind(user_id)
    .bind(number)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

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

pub async fn delete_credentials(tx: &mut Tx, client_id: ClientId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM client_credentials WHERE client_id = $1")
        .bind(client_id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
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

/// A secret, with one of the devices that hold it.
#[derive(sqlx::FromRow)]
pub struct ExposedRow {
    pub client_id: ClientId,
    pub client: String,
    pub slot_id: SlotId,
    pub component_key: String,
    pub slot_key: String,
    pub version: i64,
    pub last_rotated_at: Timestamp,
    /// Its client's engagement has ended.
    pub ended: bool,
    pub device: Option<String>,
}

pub async fn exposed(tx: &mut Tx) -> Result<Vec<ExposedRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT clients.id AS client_id, clients.name AS client, slots.id AS slot_id, slots.component_key, slots.slot_key, \
         client_credentials.version, client_credentials.last_rotated_at, clients.engagement <> 'active' AS ended, \
         holders.name AS device \
         FROM client_credentials JOIN clients ON clients.id = client_credentials.client_id \
         JOIN component_credential_slots AS slots ON slots.id = client_credentials.slot_id \
         LEFT JOIN (SELECT devices.client_id, devices.name, held_secrets.slot_id FROM held_secrets \
         JOIN devices ON devices.id = held_secrets.device_id WHERE devices.state <> 'revoked') AS holders \
         ON holders.client_id = clients.id AND holders.slot_id = slots.id \
         ORDER BY clients.name, clients.id, slots.component_key, slots.slot_key, holders.name",
    )
    .fetch_all(conn)
    .await)
}
