use shared::catalog::{SignedBundle, Slot};
use shared::ids::SlotId;
use shared::signing::SignedSuccession;
use shared::time::Timestamp;

use super::SlotRecord;
use crate::db::Tx;
use crate::on;

pub async fn newest_serial(tx: &mut Tx) -> Result<Option<u64>, sqlx::Error> {
    let serial: Option<i64> =
        on!(tx, conn => sqlx::query_scalar("SELECT max(serial) FROM catalog_bundles").fetch_one(conn).await)?;
    Ok(serial.and_then(|serial| u64::try_from(serial).ok()))
}

pub async fn newest_digest(tx: &mut Tx) -> Result<Option<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT digest FROM catalog_bundles ORDER BY serial DESC LIMIT 1")
        .fetch_optional(conn)
        .await)
}

pub async fn bundle(tx: &mut Tx, digest: &str) -> Result<Option<SignedBundle>, sqlx::Error> {
    let row: Option<(Vec<u8>, Vec<u8>)> = on!(tx, conn => sqlx::query_as("SELECT payload, signature FROM catalog_bundles WHERE digest = $1")
            .bind(digest)
            .fetch_optional(conn)
            .await)?;
    Ok(row.map(|(payload, signature)| SignedBundle { payload, signature }))
}

pub async fn insert_bundle(
    tx: &mut Tx,
    digest: &str,
    serial: u64,
    signed: &SignedBundle,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO catalog_bundles (digest, serial, payload, signature, imported_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(digest)
    .bind(i64::try_from(serial).unwrap_or(i64::MAX))
    .bind(&signed.payload)
    .bind(&signed.signature)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// In the order in which they came.
pub async fn successions(tx: &mut Tx) -> Result<Vec<SignedSuccession>, sqlx::Error> {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = on!(tx, conn => sqlx::query_as("SELECT payload, signature FROM key_successions ORDER BY position")
            .fetch_all(conn)
            .await)?;
    Ok(rows.into_iter().map(|(payload, signature)| SignedSuccession { payload, signature }).collect())
}

/// No row when it is here already.
pub async fn insert_succession(
    tx: &mut Tx,
    digest: &str,
    signed: &SignedSuccession,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO key_successions (digest, position, payload, signature, imported_at) \
         VALUES ($1, (SELECT coalesce(max(position), 0) + 1 FROM key_successions), $2, $3, $4) \
         ON CONFLICT (digest) DO NOTHING",
    )
    .bind(digest)
    .bind(&signed.payload)
    .bind(&signed.signature)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn slots_of(tx: &mut Tx, component: &str) -> Result<Vec<SlotRecord>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, component_key, slot_key, display_name, tag, hint, required FROM component_credential_slots \
         WHERE component_key = $1 ORDER BY slot_key",
    )
    .bind(component)
    .fetch_all(conn)
    .await)
}

pub async fn slot(tx: &mut Tx, component: &str, slot: &str) -> Result<Option<SlotRecord>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, component_key, slot_key, display_name, tag, hint, required FROM component_credential_slots \
         WHERE component_key = $1 AND slot_key = $2",
    )
    .bind(component)
    .bind(slot)
    .fetch_optional(conn)
    .await)
}

pub async fn insert_slot(tx: &mut Tx, id: SlotId, component: &str, slot: &Slot) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO component_credential_slots (id, component_key, slot_key, display_name, tag, hint, required) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(component)
    .bind(&slot.key)
    .bind(&slot.name)
    .bind(slot.tag)
    .bind(&slot.hint)
    .bind(slot.required)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn update_slot(tx: &mut Tx, id: SlotId, slot: &Slot) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE component_credential_slots SET display_name = $2, hint = $3, required = $4 WHERE id = $1",
    )
    .bind(id)
    .bind(&slot.name)
    .bind(&slot.hint)
    .bind(slot.required)
    .execute(conn)
    .await
    .map(|_| ()))
}
