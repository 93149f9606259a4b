//! What every device of one client, or of all, was found to have. The number of statements doesn't depend on how many
//! there are.

use std::collections::{BTreeMap, HashMap};

use shared::ids::{ClientId, DeviceId};

use super::drift::{self, Finding, StoredVersions, Wanted};
use super::{InstalledSlot, Look, store};
use crate::catalog::Catalog;
use crate::clients::Scope;
use crate::db::Tx;
use crate::enrollment::Device;

/// A client with its devices; those whose enrollment ended are left out.
#[derive(Clone, Debug)]
pub struct ClientFindings {
    pub id: ClientId,
    pub name: String,
    /// Never empty: one without a device stands for what is wanted while none has joined.
    pub devices: Vec<DeviceFindings>,
}

#[derive(Clone, Debug)]
pub struct DeviceFindings {
    pub device: Option<Device>,
    pub findings: Vec<Finding>,
}

impl ClientFindings {
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        self.devices.iter().flat_map(|device| &device.findings)
    }

    pub fn of_device(&self, id: DeviceId) -> &[Finding] {
        let is_it = |one: &&DeviceFindings| one.device.as_ref().is_some_and(|device| device.id == id);
        self.devices.iter().find(is_it).map_or(&[], |one| &one.findings)
    }
}

/// Clients by their ids, both ends included; an end that is `None` is open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    pub first: Option<ClientId>,
    pub last: Option<ClientId>,
}

/// Of one client or of all, by name.
pub async fn findings(
    tx: &mut Tx,
    catalog: Option<&Catalog>,
    only: Option<ClientId>,
) -> Result<Vec<ClientFindings>, sqlx::Error> {
    within(tx, catalog, Span { first: only, last: only }).await
}

/// Of the next `most` clients after this one in the order of their ids, by name; and the last of them, when there are
/// more.
pub async fn findings_after(
    tx: &mut Tx,
    catalog: Option<&Catalog>,
    after: Option<ClientId>,
    most: u16,
) -> Result<(Vec<ClientFindings>, Option<ClientId>), sqlx::Error> {
    let mut ids = store::clients_after(tx, after, i64::from(most) + 1).await?;
    let more = ids.len() > usize::from(most);
    ids.truncate(usize::from(most));
    let Some((first, last)) = ids.first().zip(ids.last()) else { return Ok((Vec::new(), None)) };
    let found = within(tx, catalog, Span { first: Some(*first), last: Some(*last) }).await?;
    Ok((found, more.then_some(*last)))
}

async fn within(
    tx: &mut Tx,
    catalog: Option<&Catalog>,
    of: Span,
) -> Result<Vec<ClientFindings>, sqlx::Error> {
    let mut scopes: HashMap<ClientId, Scope> = HashMap::new();
    for (client, component) in store::scope_components(tx, of).await? {
        scopes.entry(client).or_default().components.insert(component);
    }
    for (client, component, group, slot) in store::scope_choices(tx, of).await? {
        scopes.entry(client).or_default().choices.insert((component, group), slot);
    }
    let mut stored: HashMap<ClientId, StoredVersions> = HashMap::new();
    for (client, component, slot, version) in store::stored_versions(tx, of).await? {
        stored.entry(client).or_default().insert((component, slot), version);
    }
    let mut looks: HashMap<DeviceId, Vec<Look>> = HashMap::new();
    for look in store::looks(tx, of).await? {
        looks.entry(look.device_id).or_default().push(look);
    }
    let mut slots: HashMap<DeviceId, Vec<InstalledSlot>> = HashMap::new();
    for slot in store::slots(tx, of).await? {
        slots.entry(slot.device_id).or_default().push(slot);
    }
    let mut devices: HashMap<ClientId, Vec<Device>> = HashMap::new();
    for device in store::devices(tx, of).await? {
        devices.entry(device.client_id).or_default().push(device);
    }
    let (no_scope, none_stored) = (Scope::default(), BTreeMap::new());
    let mut clients = Vec::new();
    for (id, name) in store::client_names(tx, of).await? {
        let scope = scopes.get(&id).unwrap_or(&no_scope);
        let stored = stored.get(&id).unwrap_or(&none_stored);
        let wanted = |platform| Wanted { scope, catalog, platform, stored };
        let mut found: Vec<DeviceFindings> = devices
            .remove(&id)
            .unwrap_or_default()
            .into_iter()
            .map(|device| {
                let looks = looks.remove(&device.id).unwrap_or_default();
                let slots = slots.remove(&device.id).unwrap_or_default();
                let findings = drift::judge(wanted(Some(device.platform)), &looks, &slots);
                DeviceFindings { device: Some(device), findings }
            })
            .collect();
        if found.is_empty() {
            found.push(DeviceFindings { device: None, findings: drift::judge(wanted(None), &[], &[]) });
        }
        clients.push(ClientFindings { id, name, devices: found });
    }
    clients.sort_by_cached_key(|client| (client.name.to_lowercase(), client.id));
    Ok(clients)
}
