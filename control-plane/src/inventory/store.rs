use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{ComponentReport, Presence, SlotCheck, SlotReport, SlotState};
use shared::time::Timestamp;

use super::findings::Span;
use super::{Installed, InstalledSlot, Look};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::on;

#[derive(sqlx::FromRow)]
struct Row {
    device_id: DeviceId,
    component_key: String,
    presence: Presence,
    version: Option<String>,
    evidence: String,
    since: Timestamp,
    observed_at: Timestamp,
}

impl From<Row> for Installed {
    fn from(row: Row) -> Self {
        Self {
            device_id: row.device_id,
            component_key: row.component_key,
            presence: row.presence,
            version: row.version,
            evidence: serde_json::from_str(&row.evidence).unwrap_or_default(),
            since: row.since,
            observed_at: row.observed_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct SlotRow {
    device_id: DeviceId,
    component_key: String,
    slot_key: String,
    state: SlotState,
    version: Option<i64>,
    observed_at: Timestamp,
    check_said: Option<String>,
    check_recorded: Option<String>,
    checked_at: Option<Timestamp>,
}

impl From<SlotRow> for InstalledSlot {
    fn from(row: SlotRow) -> Self {
        let recorded =
            row.check_recorded.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self {
            device_id: row.device_id,
            component_key: row.component_key,
            slot_key: row.slot_key,
            state: row.state,
            version: row.version,
            observed_at: row.observed_at,
            check: row.check_said.zip(row.checked_at).map(|(said, at)| SlotCheck { said, recorded, at }),
        }
    }
}

pub async fn component(
    tx: &mut Tx,
    device_id: DeviceId,
    key: &str,
) -> Result<Option<Installed>, sqlx::Error> {
    let row: Option<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, presence, version, evidence, since, observed_at \
         FROM installed_components WHERE device_id = $1 AND component_key = $2",
    )
    .bind(device_id)
    .bind(key)
    .fetch_optional(conn)
    .await)?;
    Ok(row.map(Installed::from))
}

pub async fn upsert_component(
    tx: &mut Tx,
    device_id: DeviceId,
    report: &ComponentReport,
    since: Timestamp,
) -> Result<(), sqlx::Error> {
    let evidence = serde_json::to_string(&report.evidence).unwrap_or_default();
    on!(tx, conn => sqlx::query(
        "INSERT INTO installed_components \
         (device_id, component_key, presence, version, evidence, since, observed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (device_id, component_key) DO UPDATE \
         SET presence = $3, version = $4, evidence = $5, since = $6, observed_at = $7",
    )
    .bind(device_id)
    .bind(&report.component)
    .bind(report.presence)
    .bind(&report.version)
    .bind(&evidence)
    .bind(since)
    .bind(report.observed_at)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// At one moment a component is one thing: the last word about it counts, or a device that always names the same moment
/// would make rows without end.
pub async fn insert_history(
    tx: &mut Tx,
    device_id: DeviceId,
    report: &ComponentReport,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "DELETE FROM installed_history WHERE device_id = $1 AND component_key = $2 AND observed_at = $3",
    )
    .bind(device_id)
    .bind(&report.component)
    .bind(report.observed_at)
    .execute(conn)
    .await
    .map(|_| ()))?;
    on!(tx, conn => sqlx::query(
        "INSERT INTO installed_history (device_id, component_key, presence, version, observed_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(device_id)
    .bind(&report.component)
    .bind(report.presence)
    .bind(&report.version)
    .bind(report.observed_at)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Keeps the latest changes of a component.
pub async fn shorten_history(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
    most: i64,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "DELETE FROM installed_history WHERE device_id = $1 AND component_key = $2 AND observed_at < \
         (SELECT min(observed_at) FROM (SELECT observed_at FROM installed_history \
         WHERE device_id = $1 AND component_key = $2 ORDER BY observed_at DESC LIMIT $3) AS latest)",
    )
    .bind(device_id)
    .bind(component)
    .bind(most)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn upsert_slot(tx: &mut Tx, device_id: DeviceId, report: &SlotReport) -> Result<(), sqlx::Error> {
    let check = report.check.as_ref();
    let recorded = check.map(|check| serde_json::to_string(&check.recorded).unwrap_or_default());
    on!(tx, conn => sqlx::query(
        "INSERT INTO installed_slots (device_id, component_key, slot_key, state, version, observed_at, check_said, \
         check_recorded, checked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (device_id, component_key, slot_key) DO UPDATE SET state = $4, version = $5, observed_at = $6, \
         check_said = $7, check_recorded = $8, checked_at = $9",
    )
    .bind(device_id)
    .bind(&report.component)
    .bind(&report.slot)
    .bind(report.state)
    .bind(report.version.and_then(|version| i64::try_from(version).ok()))
    .bind(report.observed_at)
    .bind(check.map(|check| check.said.as_str()))
    .bind(recorded.as_deref())
    .bind(check.map(|check| check.at))
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn of_device(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<Installed>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, presence, version, evidence, since, observed_at \
         FROM installed_components WHERE device_id = $1 ORDER BY component_key",
    )
    .bind(device_id)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(Installed::from).collect())
}

pub async fn not_absent(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT component_key FROM installed_components WHERE device_id = $1 AND presence <> 'absent' \
         ORDER BY component_key",
    )
    .bind(device_id)
    .fetch_all(conn)
    .await)
}

pub async fn of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Installed>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, presence, version, evidence, since, observed_at FROM installed_components \
         WHERE device_id IN (SELECT id FROM devices WHERE client_id = $1) ORDER BY component_key, device_id",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(Installed::from).collect())
}

pub async fn slots_of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<InstalledSlot>, sqlx::Error> {
    let rows: Vec<SlotRow> = on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, slot_key, state, version, observed_at, check_said, check_recorded, \
         checked_at FROM installed_slots WHERE device_id IN (SELECT id FROM devices WHERE client_id = $1) \
         ORDER BY component_key, slot_key, device_id",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(InstalledSlot::from).collect())
}

pub async fn slot(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
    slot: &str,
) -> Result<Option<InstalledSlot>, sqlx::Error> {
    let row: Option<SlotRow> = on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, slot_key, state, version, observed_at, check_said, check_recorded, \
         checked_at FROM installed_slots WHERE device_id = $1 AND component_key = $2 AND slot_key = $3",
    )
    .bind(device_id)
    .bind(component)
    .bind(slot)
    .fetch_optional(conn)
    .await)?;
    Ok(row.map(InstalledSlot::from))
}

pub async fn history(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
) -> Result<Vec<(Presence, Option<String>, Timestamp)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT presence, version, observed_at FROM installed_history \
         WHERE device_id = $1 AND component_key = $2 ORDER BY observed_at",
    )
    .bind(device_id)
    .bind(component)
    .fetch_all(conn)
    .await)
}

/// Ids of clients after this one.
pub async fn clients_after(
    tx: &mut Tx,
    after: Option<ClientId>,
    most: i64,
) -> Result<Vec<ClientId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM clients WHERE (id > $1 OR $1 IS NULL) ORDER BY id LIMIT $2")
        .bind(after)
        .bind(most)
        .fetch_all(conn)
        .await)
}

// Of the clients from one id to another; an end that isn't bound is open. The comparison stands first: PostgreSQL learns
// the type from it.

pub async fn client_names(tx: &mut Tx, of: Span) -> Result<Vec<(ClientId, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT id, name FROM clients WHERE (id >= $1 OR $1 IS NULL) AND (id <= $2 OR $2 IS NULL)")
        .bind(of.first)
        .bind(of.last)
        .fetch_all(conn)
        .await)
}

pub async fn scope_components(tx: &mut Tx, of: Span) -> Result<Vec<(ClientId, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT client_id, component_key FROM client_components WHERE (client_id >= $1 OR $1 IS NULL) AND (client_id <= $2 OR $2 IS NULL)",
    )
    .bind(of.first)
    .bind(of.last)
    .fetch_all(conn)
    .await)
}

/// Client, component, group and the slot that was chosen.
pub async fn scope_choices(
    tx: &mut Tx,
    of: Span,
) -> Result<Vec<(ClientId, String, String, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT client_id, component_key, group_key, slot_key FROM client_choices \
         WHERE (client_id >= $1 OR $1 IS NULL) AND (client_id <= $2 OR $2 IS NULL)",
    )
    .bind(of.first)
    .bind(of.last)
    .fetch_all(conn)
    .await)
}

/// Client, component, slot and version of each secret of ours.
pub async fn stored_versions(
    tx: &mut Tx,
    of: Span,
) -> Result<Vec<(ClientId, String, String, i64)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT c.client_id, s.component_key, s.slot_key, c.version FROM client_credentials c \
         JOIN component_credential_slots s ON s.id = c.slot_id WHERE (c.client_id >= $1 OR $1 IS NULL) AND (c.client_id <= $2 OR $2 IS NULL)",
    )
    .bind(of.first)
    .bind(of.last)
    .fetch_all(conn)
    .await)
}

/// Devices whose enrollment hasn't ended.
pub async fn devices(tx: &mut Tx, of: Span) -> Result<Vec<Device>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, client_id, name, hardware_uuid, platform, os_version, dev, state, last_seen_at FROM devices \
         WHERE (client_id >= $1 OR $1 IS NULL) AND (client_id <= $2 OR $2 IS NULL) AND state <> 'revoked' ORDER BY lower(name), id",
    )
    .bind(of.first)
    .bind(of.last)
    .fetch_all(conn)
    .await)
}

pub async fn looks(tx: &mut Tx, of: Span) -> Result<Vec<Look>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, presence, version, observed_at FROM installed_components \
         WHERE device_id IN (SELECT id FROM devices WHERE (client_id >= $1 OR $1 IS NULL) AND (client_id <= $2 OR $2 IS NULL) AND state <> 'revoked')",
    )
    .bind(of.first)
    .bind(of.last)
    .fetch_all(conn)
    .await)
}

/// Without what providers said.
pub async fn slots(tx: &mut Tx, of: Span) -> Result<Vec<InstalledSlot>, sqlx::Error> {
    let rows: Vec<(DeviceId, String, String, SlotState, Option<i64>, Timestamp)> = on!(tx, conn => sqlx::query_as(
        "SELECT device_id, component_key, slot_key, state, version, observed_at FROM installed_slots \
         WHERE device_id IN (SELECT id FROM devices WHERE (client_id >= $1 OR $1 IS NULL) AND (client_id <= $2 OR $2 IS NULL) AND state <> 'revoked')",
    )
    .bind(of.first)
    .bind(of.last)
    .fetch_all(conn)
    .await)?;
    Ok(rows
        .into_iter()
        .map(|(device_id, component_key, slot_key, state, version, observed_at)| InstalledSlot {
            device_id,
            component_key,
            slot_key,
            state,
            version,
            observed_at,
            check: None,
        })
        .collect())
}
