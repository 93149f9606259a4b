//! `GET /api/v1/clients/{id}/state`: what is installed where, as the devices said, with the devices off too.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{Evidence, Presence, SlotState};

use crate::app::App;
use crate::catalog;
use crate::clients;
use crate::enrollment::{self, DeviceState};
use crate::error::Failure;
use crate::inventory::{self, ClientFindings, Drift};

#[derive(Serialize)]
pub struct ClientJson {
    client_id: ClientId,
    name: String,
    scope: Vec<String>,
    devices: Vec<DeviceJson>,
}

#[derive(Serialize)]
struct DeviceJson {
    device_id: DeviceId,
    name: String,
    state: DeviceState,
    on: bool,
    last_seen_at: Option<String>,
    /// Components of the scope that are for this device's platform.
    wanted: Vec<String>,
    components: Vec<ComponentJson>,
    slots: Vec<SlotJson>,
}

#[derive(Serialize)]
struct ComponentJson {
    component: String,
    presence: Presence,
    /// How it stands to the scope; `null` for what is neither wanted nor there, and on a device that left.
    drift: Option<Drift>,
    version: Option<String>,
    evidence: Vec<Evidence>,
    since: String,
    observed_at: String,
    age_seconds: u64,
}

#[derive(Serialize)]
struct SlotJson {
    component: String,
    slot: String,
    state: SlotState,
    version: Option<i64>,
    observed_at: String,
    /// What asking the provider came to.
    check: Option<CheckJson>,
}

#[derive(Serialize)]
struct CheckJson {
    said: String,
    recorded: BTreeMap<String, String>,
    at: String,
}

pub async fn get_state(
    State(app): State<App>,
    Path(id): Path<ClientId>,
) -> Result<Json<ClientJson>, Failure> {
    let mut tx = app.db.read().await?;
    let client = clients::get(&mut tx, id).await?;
    let scope = clients::components(&mut tx, id).await?;
    let catalog = catalog::current(&mut tx).await?;
    let slots = inventory::slots_of_client(&mut tx, id).await?;
    let found = inventory::findings(&mut tx, catalog.as_ref(), Some(id)).await?;
    let now = app.now();
    let mut devices = Vec::new();
    for device in enrollment::devices_of(&mut tx, id).await? {
        let findings = found.first().map_or(&[][..], |found: &ClientFindings| found.of_device(device.id));
        let drift_of = |key: &str| findings.iter().find(|one| one.component == key).map(|one| one.drift);
        let components = inventory::of_device(&mut tx, device.id)
            .await?
            .into_iter()
            .map(|one| ComponentJson {
                drift: drift_of(&one.component_key),
                component: one.component_key,
                presence: one.presence,
                version: one.version,
                evidence: one.evidence,
                since: one.since.rfc3339(),
                observed_at: one.observed_at.rfc3339(),
                age_seconds: now.since(one.observed_at).as_secs(),
            })
            .collect();
        let slots = slots
            .iter()
            .filter(|slot| slot.device_id == device.id)
            .map(|slot| SlotJson {
                component: slot.component_key.clone(),
                slot: slot.slot_key.clone(),
                state: slot.state,
                version: slot.version,
                observed_at: slot.observed_at.rfc3339(),
                check: slot.check.as_ref().map(|check| CheckJson {
                    said: check.said.clone(),
                    recorded: check.recorded.clone(),
                    at: check.at.rfc3339(),
                }),
            })
            .collect();
        let is_for_it = |key: &&String| {
            let manifest = catalog.as_ref().and_then(|catalog| catalog.manifests.get(*key));
            manifest.is_some_and(|manifest| manifest.platforms.contains(&device.platform))
        };
        let wanted = scope.iter().filter(is_for_it).cloned().collect();
        devices.push(DeviceJson {
            wanted,
            device_id: device.id,
            on: app.links.since(device.id).is_some(),
            name: device.name,
            state: device.state,
            last_seen_at: device.last_seen_at.map(|at| at.rfc3339()),
            components,
            slots,
        });
    }
    Ok(Json(ClientJson { client_id: id, name: client.name, scope, devices }))
}
