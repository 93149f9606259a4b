//! From a client's scope to a device's runbook: components in the order of `depends_on`, their steps in order, without
//! steps for other platforms.

use std::collections::{BTreeMap, BTreeSet};

use shared::catalog::{Manifest, Step, Tag};
use shared::ids::{RunbookId, StepId};

use super::{Runbook, run, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog;
use crate::clients::{self, Scope};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::secrets;

/// The device's runbook; composed when it has none and there is a catalog. Approval of the device starts it.
pub async fn ensure(app: &App, tx: &mut Tx, device: &Device) -> Result<Option<Runbook>, Failure> {
    if let Some(runbook) = store::of_device(tx, device.id).await? {
        return Ok(Some(runbook));
    }
    let Some(catalog) = catalog::current(tx).await? else { return Ok(None) };
    let now = app.now();
    let runbook = Runbook {
        id: RunbookId::new(&*app.clock, &*app.random),
        device_id: device.id,
        bundle_digest: catalog.digest.clone(),
        created_at: now,
    };
    store::insert(tx, &runbook).await?;
    let scope = clients::scope(tx, device.client_id).await?;
    let stored = secrets::stored_slots(tx, device.client_id).await?;
    let keys: Vec<String> = scope.components.iter().cloned().collect();
    let mut position = 0;
    for component in ordered(&keys, &catalog.manifests) {
        let Some(manifest) = catalog.manifests.get(component) else { continue };
        for step in manifest.steps.iter().filter(|step| step.runs_on(device.platform, manifest)) {
            if !belongs(step, manifest, &scope, &stored) {
                continue;
            }
            let id = StepId::new(&*app.clock, &*app.random);
            store::insert_step(tx, &runbook, id, position, component, step).await?;
            position += 1;
        }
    }
    run::advance(app, tx, &runbook, &catalog).await?;
    let entry = Entry::new(now, Who::job("runbook"), Action::RunbookComposed)
        .client(device.client_id)
        .device(device.id)
        .detail("bundle", &catalog.digest)
        .detail("steps", position);
    audit::append(tx, &entry).await?;
    Ok(Some(runbook))
}

/// Whether a step's `when` holds for this client. For a slot outside of a group that the client supplies, only the device
/// can say: such a step is in the runbook, and is skipped when its turn comes and the slot is empty.
fn belongs(step: &Step, manifest: &Manifest, scope: &Scope, stored: &BTreeSet<(String, String)>) -> bool {
    if step.when.is_empty() {
        return true;
    }
    if let Some(condition) = step.when.strip_prefix("param:") {
        let (key, value) = condition.split_once('=').unwrap_or((condition, ""));
        return scope.param(&manifest.key, key) == Some(value);
    }
    let Some(slot) = step.when.strip_prefix("slot:").and_then(|key| manifest.slot(key)) else { return false };
    match (slot.tag, &slot.one_of) {
        (_, Some(_)) => scope.wants_slot(manifest, &slot.key),
        (Tag::OurManaged, None) => stored.contains(&(manifest.key.clone(), slot.key.clone())),
        (Tag::ClientSupplied, None) => true,
    }
}

/// The scope, with everything that a component depends on before it. Components that the scope doesn't name are not
/// added: the wizard decides what is in scope.
pub(super) fn ordered<'a>(scope: &'a [String], manifests: &BTreeMap<String, Manifest>) -> Vec<&'a str> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for key in scope {
        visit(key, scope, manifests, &mut seen, &mut order);
    }
    order
}

fn visit<'a>(
    key: &'a str,
    scope: &'a [String],
    manifests: &BTreeMap<String, Manifest>,
    seen: &mut BTreeSet<&'a str>,
    order: &mut Vec<&'a str>,
) {
    if !seen.insert(key) {
        return;
    }
    let needed = manifests.get(key).map(|manifest| manifest.depends_on.as_slice()).unwrap_or_default();
    for other in scope.iter().filter(|other| needed.contains(other)) {
        visit(other, scope, manifests, seen, order);
    }
    order.push(key);
}
