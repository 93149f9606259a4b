//! Installed state: what devices found by looking, how old it is, its history, and how it differs from the scope.

pub mod drift;
mod findings;
mod store;
#[cfg(test)]
mod tests;

use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotCheck, SlotReport, SlotState};
use shared::time::Timestamp;

pub use drift::{Drift, Finding, Tally};
pub use findings::{ClientFindings, DeviceFindings, findings, findings_after};

use crate::db::Tx;

/// Changes of a component that are kept: what changes more often than that says nothing about years.
const HISTORY: i64 = 1000;

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

/// One slot on one device, as the device said; never its value.
#[derive(Clone, Debug)]
pub struct InstalledSlot {
    pub device_id: DeviceId,
    pub component_key: String,
    pub slot_key: String,
    pub state: SlotState,
    pub version: Option<i64>,
    pub observed_at: Timestamp,
    /// What asking the provider came to.
    pub check: Option<SlotCheck>,
}

impl InstalledSlot {
    /// The device has a value, whether it works or not.
    pub fn is_held(&self) -> bool {
        !matches!(self.state, SlotState::Empty | SlotState::Unreadable)
    }

    /// The provider refuses the value that the device has.
    pub fn is_refused(&self) -> bool {
        self.state == SlotState::Rejected
    }

    /// The evidence in one line: "slack.com answered 200 and accepts it (team_id T0123456)".
    pub fn evidence(&self) -> Option<String> {
        let check = self.check.as_ref()?;
        let recorded: Vec<String> =
            check.recorded.iter().map(|(name, value)| format!("{name} {value}")).collect();
        Some(match recorded.as_slice() {
            [] => check.said.clone(),
            [..] => format!("{} ({})", check.said, recorded.join(", ")),
        })
    }
}

/// Takes a device's report. A result older than the one that is stored changes nothing; a different one is added to
/// the history. Comes back with the slots whose value a provider refuses since this report.
pub async fn apply(
    tx: &mut Tx,
    device_id: DeviceId,
    components: &[ComponentReport],
    slots: &[SlotReport],
    now: Timestamp,
) -> Result<Vec<SlotReport>, sqlx::Error> {
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
            store::shorten_history(tx, device_id, &report.component, HISTORY).await?;
        }
        store::upsert_component(tx, device_id, report, since).await?;
    }
    let mut refused = Vec::new();
    for report in slots {
        let mut report = SlotReport { observed_at: report.observed_at.min(now), ..report.clone() };
        if let Some(check) = &mut report.check {
            check.at = check.at.min(now);
        }
        let before = store::slot(tx, device_id, &report.component, &report.slot).await?;
        if before.as_ref().is_some_and(|before| before.observed_at > report.observed_at) {
            continue;
        }
        store::upsert_slot(tx, device_id, &report).await?;
        let version = report.version.and_then(|version| i64::try_from(version).ok());
        let known = before.is_some_and(|before| before.is_refused() && before.version == version);
        if report.state == SlotState::Rejected && !known {
            refused.push(report);
        }
    }
    Ok(refused)
}

pub async fn of_device(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<Installed>, sqlx::Error> {
    store::of_device(tx, device_id).await
}

/// Keys of the components that may be on a device, in or out of scope: it saw them last, or couldn't tell.
pub async fn not_absent(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<String>, sqlx::Error> {
    store::not_absent(tx, device_id).await
}

/// Of all of a client's devices.
pub async fn of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Installed>, sqlx::Error> {
    store::of_client(tx, client_id).await
}

pub async fn slots_of_client(tx: &mut Tx, client_id: ClientId) -> Result<Vec<InstalledSlot>, sqlx::Error> {
    store::slots_of_client(tx, client_id).await
}

/// What a device says of one slot, if it ever said anything.
pub async fn slot(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
    slot: &str,
) -> Result<Option<InstalledSlot>, sqlx::Error> {
    store::slot(tx, device_id, component, slot).await
}

/// Every change that was seen of one component, oldest first: presence, version, when.
pub async fn history(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
) -> Result<Vec<(Presence, Option<String>, Timestamp)>, sqlx::Error> {
    store::history(tx, device_id, component).await
}
