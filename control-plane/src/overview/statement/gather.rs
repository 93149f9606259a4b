//! What is stored, read in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use shared::ids::ClientId;

use super::{Known, Log};
use crate::app::App;
use crate::audit::{self, Action};
use crate::catalog::{self, AnySlot};
use crate::clients;
use crate::db::Tx;
use crate::enrollment;
use crate::error::Failure;
use crate::inventory;
use crate::secrets;

pub async fn gather(app: &App, tx: &mut Tx, id: ClientId) -> Result<Known, Failure> {
    let client = clients::get(tx, id).await?;
    let catalog = catalog::current(tx).await?;
    let devices = enrollment::devices_of(tx, id).await?;
    let mut deliveries = Vec::new();
    for device in &devices {
        deliveries.extend(secrets::for_device(tx, device.id).await?);
    }
    let slots = clients::slots(tx, id).await?;
    let mut reported = inventory::slots_of_client(tx, id).await?;
    let spread = secrets::spread(tx, id).await?;
    let stored = secrets::stored(tx, id).await?;

    let held = |id| spread.iter().any(|one| one.slot_id == id && one.held.is_some());
    let mut known: BTreeSet<(String, String)> = secrets::stored_slots(tx, id).await?;
    known.extend(deliveries.iter().map(|one| (one.component_key.clone(), one.slot_key.clone())));
    known.extend(
        reported.iter().filter(|on| on.is_held()).map(|on| (on.component_key.clone(), on.slot_key.clone())),
    );
    let mut former = Vec::new();
    for (component, key) in known {
        if slots.iter().any(|slot| slot.keys() == (component.as_str(), key.as_str())) {
            continue;
        }
        // A device may name what no catalog ever had.
        let Some(slot) = catalog::slot(tx, &component, &key).await? else { continue };
        let remains = match &slot {
            AnySlot::Ours(slot) => stored.iter().any(|secret| secret.slot_id == slot.id) || held(slot.id),
            AnySlot::Theirs(_) => true,
        };
        if remains {
            former.push(slot);
        }
    }
    reported.retain(|on| devices.iter().any(|device| device.id == on.device_id));
    let components: BTreeMap<String, String> = catalog
        .iter()
        .flat_map(|catalog| &catalog.manifests)
        .map(|(key, manifest)| (key.clone(), manifest.name.clone()))
        .collect();
    Ok(Known {
        now: app.now(),
        on: devices.iter().map(|device| device.id).filter(|id| app.links.since(*id).is_some()).collect(),
        log: Log {
            head: audit::head(tx).await?,
            is_doubted: !audit::alarms(tx).await?.is_empty(),
            enrolled: audit::latest_of(tx, id, Action::DeviceEnrolled).await?,
            leaving: audit::latest_of(tx, id, Action::DeviceLeaving).await?,
            wiped: audit::latest_of(tx, id, Action::DeviceWiped).await?,
            revoked: audit::latest_of(tx, id, Action::DeviceRevoked).await?,
            stored: audit::latest_of(tx, id, Action::SecretStored).await?,
            copied: audit::latest_of(tx, id, Action::SecretCopied).await?,
            pastes_relayed: audit::latest_of(tx, id, Action::PasteRelayed).await?,
            pastes_answered: audit::latest_of(tx, id, Action::PasteAnswered).await?,
        },
        engagement: clients::engagement::engagement(tx, id).await?,
        client,
        devices,
        slots,
        former,
        stored,
        deliveries,
        spread,
        reported,
        components,
    })
}
