//! Installed state: what devices found by looking, how old it is, its history, and how it differs from the scope.

pub mod drift;
mod findings;
mod store;
#[cfg(test)]
mod tests;

use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotReport, SlotState};
use shared::time::Timestamp;

pub use drift::{Drift, Finding, Tally};
pub use findings::{ClientFindings, DeviceFindings, findings};

use crate::db::Tx;

/// One component on one device, as last seen.
#[derive(Clone, Debug)]
pub struct Installed {
    pub device_id: DeviceId,
    pub component_key: String,
    pub presence: Presence,
    pub version: Option<String>,
    pub evidence: Vec<Evidence>,
    /// Since when it has been so.
    pub since: Timestamp,
    pub observed_at: Timestamp,
}

/// The same without its evidence, for looking at many.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Look {
    pub device_id: DeviceId,
    pub component_key: String,
    pub presence: Presence,
    pub version: Option<String>,
    pub observed_at: Timestamp,
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct InstalledSlot {
    pub device_id: DeviceId,
    pub component_key: String,
    pub slot_key: String,
    pub state: SlotState,
    pub version: Option<i64>,
    pub observed_at: Timestamp,
}

/// Takes a device's report. A result older than the one that is stored changes nothing; a different one is added to
/// the history.
pub async fn apply(
    tx: &mut Tx,
    device_id: DeviceId,
    components: &[ComponentReport],
    slots: &[SlotReport],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for report in components {
        // A clock that runs ahead must not make its look the last word for ever.
        let report = &ComponentReport { observed_at: report.observed_at.min(now), ..report.clone() };
        let before = store::component(tx, device_id, &report.component).await?;
        if before.as_ref().is_some_and(|before| before.observed_at > report.observed_at) {
            continue;
        }
        let same =
            before.filter(|before| before.presence == report.presence && before.version == report.version);
        let since = same.as_ref().map_or(report.observed_at, |before| before.since);
        if same.is_none() {
            store::insert_history(tx, device_id, report).await?;
        }
        store::upsert_component(tx, device_id, report, since).await?;
    }
    for report in slots {
        let report = &SlotReport { observed_at: report.observed_at.min(now), ..report.clone() };
        store::upsert_slot(tx, device_id, report).await?;
    }
    Ok(())
}

pub async fn of_device(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<Installed>, sqlx::Error> {
    store::of_device(tx, device_id).await
}

/// Of all of a client's devices.
pub async fn of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Installed>, sqlx::Error> {
    store::of_client(tx, client_id).await
}

pub async fn slots_of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<InstalledSlot>, sqlx::Error> {
    store::slots_of_client(tx, client_id).await
}

/// Whether the device says that it has this slot's value.
pub async fn has_slot(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
    slot: &str,
) -> Result<bool, sqlx::Error> {
    Ok(store::slot_state(tx, device_id, component, slot)
        .await?
        .is_some_and(|state| matches!(state, SlotState::Present | SlotState::Verified)))
}

/// Every change that was seen of one component, oldest first: presence, version, when.
pub async fn history(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
) -> Result<Vec<(Presence, Option<String>, Timestamp)>, sqlx::Error> {
    store::history(tx, device_id, component).await
}
