mod board;
mod deliveries;

use shared::ids::{ClientId, DeviceId, SlotId, UserId};
use shared::time::Timestamp;

use super::{Place, StoredSecret};
use crate::db::Tx;
use crate::on;

pub use board::{board_row, exchange_board, remove_board, upsert_board};
pub use deliveries::{
    StoredSlot, close_deliveries, decrypt_of, deliveries, delivery, forget_held, held, highest_held,
    identity, insert_delivery, mark_receipted, mark_refused, mark_sent, our_slots, reopen, sealing_key,
    set_decrypt, set_held, spread, stored_for, supersede, was_receipted, withdraw,
};

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

pub async fn delete_credentials(tx: &mut Tx, client_id: ClientId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM client_credentials WHERE client_id = $1")
        .bind(client_id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
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
