//! From a client's scope to a device's runbook: components in the order of `depends_on`, their steps in order, without
//! steps for other platforms.

use std::collections::{BTreeMap, BTreeSet};

use shared::catalog::{Manifest, Step, Tag};
use shared::ids::{RunbookId, StepId};

use super::{Runbook, StepState, run, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, Catalog};
use crate::clients::{self, Scope};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::secrets;

/// The device's runbook, fitting its client's scope: composed when it has none and there is a catalog; steps that came
/// into scope later are added at the end, those that left it before they began are skipped. Approval of the device
/// starts it.
pub async fn ensure(app: &App, tx: &mut Tx, device: &Device) -> Result<Option<Runbook>, Failure> {
    let now = app.now();
    let before = store::of_device(tx, device.id).await?;
    let catalog = match &before {
        Some(runbook) => catalog::by_digest(tx, &runbook.bundle_digest).await?,
        None => catalog::current(tx).await?,
    };
    let Some(catalog) = catalog else { return Ok(before) };
    let is_first = before.is_none();
    let runbook = match before {
        Some(runbook) => runbook,
        None => {
            let runbook = Runbook {
                id: RunbookId::new(&*app.clock, &*app.random),
                device_id: device.id,
                bundle_digest: catalog.digest.clone(),
                created_at: now,
            };
            store::insert(tx, &runbook).await?;
            runbook
        }
    };
    let scope = clients::scope(tx, device.client_id).await?;
    let stored = secrets::stored_slots(tx, device.client_id).await?;
    let wanted = wanted(device, &scope, &stored, &catalog);
    let present = store::steps(tx, runbook.id).await?;
    let is_there = |component: &str, step: &Step| {
        present.iter().any(|one| one.component_key == component && one.step_key == step.id)
    };
    let next = i64::try_from(present.len()).unwrap_or(i64::MAX);
    let added: Vec<_> = wanted.iter().filter(|(component, step)| !is_there(component, step)).collect();
    for (position, (component, step)) in (next..).zip(&added) {
        let id = StepId::new(&*app.clock, &*app.random);
        store::insert_step(tx, &runbook, id, position, component, step).await?;
    }
    let mut left = 0;
    for step in &present {
        let stays = wanted.iter().any(|(key, one)| *key == step.component_key && one.id == step.step_key);
        let not_begun = matches!(step.state, StepState::Blocked | StepState::Ready | StepState::Waiting);
        if !stays && not_begun {
            let note = Some("no longer in the client's scope");
            let moved =
                store::move_own_step(tx, device.id, step.id, step.state, StepState::Skipped, note, now)
                    .await?;
            left += moved;
        }
    }
    if is_first || !added.is_empty() || left > 0 {
        run::advance(app, tx, &runbook, &catalog).await?;
        let entry = Entry::new(now, Who::job("runbook"), Action::RunbookComposed)
            .client(device.client_id)
            .device(device.id)
            .detail("bundle", &catalog.digest)
            .detail("added", added.len())
            .detail("left", left);
        audit::append(tx, &entry).await?;
    }
    Ok(Some(runbook))
}

/// The steps that a device should have, in order.
fn wanted<'a>(
    device: &Device,
    scope: &Scope,
    stored: &BTreeSet<(String, String)>,
    catalog: &'a Catalog,
) -> Vec<(&'a str, &'a Step)> {
    let keys: Vec<String> = scope.components.iter().cloned().collect();
    let manifests =
        ordered(&keys, &catalog.manifests).into_iter().filter_map(|key| catalog.manifests.get(key));
    manifests
        .flat_map(|manifest| manifest.steps.iter().map(move |step| (manifest, step)))
        .filter(|(manifest, step)| step.runs_on(device.platform, manifest))
        .filter(|(manifest, step)| belongs(step, manifest, scope, stored))
        .map(|(manifest, step)| (manifest.key.as_str(), step))
        .collect()
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
