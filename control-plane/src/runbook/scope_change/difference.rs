//! From a change and what it does to runbooks to what a person has to know before it is saved.

use std::collections::BTreeSet;

use shared::catalog::{Manifest, StepKind, Tag};
use shared::protocol::inventory::Presence;
use shared::time::Timestamp;

use super::super::compose::{self, Fitting};
use super::super::{Step, StepState};
use super::views::{
    DeviceDifference, Difference, NewSlot, NotHere, ParamChange, Stays, Steps, UnusedSlot, Why,
};
use crate::app::App;
use crate::catalog::Catalog;
use crate::clients::{self, Change, Scope};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::inventory::{self, Installed, InstalledSlot};
use crate::secrets;
use crate::web::{Moment, count};

pub(super) async fn of(
    app: &App,
    tx: &mut Tx,
    change: &Change,
    fittings: &[(Device, Fitting)],
    now: Timestamp,
) -> Result<Difference, Failure> {
    let id = change.client.id;
    let stored = secrets::stored_slots(tx, id).await?;
    let held = inventory::slots_of_client(tx, id).await?;
    let installed = inventory::of_client(tx, id).await?;
    let (ours, theirs) = new_slots(change, &stored);
    let name = |key: &str| change.catalog.name_of(key);
    Ok(Difference {
        added: change.added().map(name).collect(),
        removed: change.removed().map(name).collect(),
        edited: change.edited().map(name).collect(),
        devices: fittings
            .iter()
            .map(|(device, fitting)| {
                let on = app.links.since(device.id);
                DeviceDifference {
                    name: device.name.clone(),
                    href: format!("/devices/{}/runbook", device.id),
                    on: on.is_some(),
                    is_paused: fitting.is_paused,
                    since: on.or(device.last_seen_at).map(|at| Moment { at, now }),
                    ..device_difference(change, device, fitting, &installed, now)
                }
            })
            .collect(),
        ours,
        theirs,
        unused: unused_slots(change, fittings, &stored, &held),
    })
}

fn device_difference(
    change: &Change,
    device: &Device,
    fitting: &Fitting,
    installed: &[Installed],
    now: Timestamp,
) -> DeviceDifference {
    let (catalog, changes) = (&fitting.catalog, &fitting.changes);
    let coming = |kind: StepKind| {
        let added = changes.added.iter().filter(move |added| added.step.kind == kind);
        let added = added.map(|added| (added.component.as_str(), added.step.title.as_str()));
        let back = titles(&changes.back, move |step| step.kind == kind);
        let again = titles(&changes.again, move |step| step.kind == kind);
        by_component(catalog, back.chain(again).chain(added))
    };
    let begun = |states: &[StepState]| {
        by_component(catalog, titles(&changes.begun, |step| states.contains(&step.state)))
    };
    DeviceDifference {
        agent: coming(StepKind::Auto),
        you: coming(StepKind::Manual),
        skipped: by_component(catalog, titles(&changes.left, |_| true)),
        not_again: by_component(catalog, titles(&changes.rests, |_| true)),
        under_way: begun(&[StepState::Offered, StepState::Running]),
        unfinished: begun(&[StepState::Failed, StepState::Interrupted, StepState::Cancelled]),
        stays: change
            .removed()
            .filter_map(|key| {
                let look =
                    installed.iter().find(|one| one.device_id == device.id && one.component_key == key);
                stays(change.catalog.name_of(key), look, key, &fitting.present, now)
            })
            .collect(),
        params: param_changes(change, fitting),
        not_here: change.added().filter_map(|key| not_here(change, device, fitting, key)).collect(),
        ..DeviceDifference::default()
    }
}

fn titles<'s>(
    steps: &'s [Step],
    wanted: impl Fn(&Step) -> bool + 's,
) -> impl Iterator<Item = (&'s str, &'s str)> {
    let wanted = steps.iter().filter(move |step| wanted(step));
    wanted.map(|step| (step.component_key.as_str(), step.title.as_str()))
}

/// In the order in which they come.
fn by_component<'s>(catalog: &Catalog, steps: impl Iterator<Item = (&'s str, &'s str)>) -> Vec<Steps> {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for (component, title) in steps {
        match groups.iter_mut().find(|(key, _)| *key == component) {
            Some((_, titles)) => titles.push(title.to_owned()),
            None => groups.push((component, vec![title.to_owned()])),
        }
    }
    let named = |(key, titles)| Steps { component: catalog.name_of(key), titles };
    groups.into_iter().map(named).collect()
}

/// What is known to be on the device. Nothing is taken away there.
fn stays(
    component: String,
    look: Option<&Installed>,
    key: &str,
    present: &[Step],
    now: Timestamp,
) -> Option<Stays> {
    let own: Vec<&Step> = present.iter().filter(|step| step.component_key == key).collect();
    let is_done = |step: &&&Step| {
        step.state == StepState::Succeeded || compose::resting(step) == Some(StepState::Succeeded)
    };
    let done = own.iter().filter(is_done).count();
    let seen = look.map(|look| Moment { at: look.observed_at, now });
    match look.map(|look| (look.presence, &look.version)) {
        Some((Presence::Absent, _)) => None,
        Some((Presence::Present | Presence::Outdated, version)) => {
            let version = version.as_ref().map(|version| format!(", version {version}"));
            let evidence = format!("seen installed{}", version.unwrap_or_default());
            Some(Stays { component, evidence, seen })
        }
        Some((Presence::Unknown, _)) | None if done > 0 => {
            let evidence = format!("{done} of {} done", count(own.len(), "step", "steps"));
            Some(Stays { component, evidence, seen: None })
        }
        Some((Presence::Unknown, _)) | None => None,
    }
}

/// Inputs that another value reaches, of components that stay.
fn param_changes(change: &Change, fitting: &Fitting) -> Vec<ParamChange> {
    let stays = change.after.components.intersection(&change.before.components);
    let manifests = stays.filter_map(|key| change.catalog.manifests.get(key));
    let mut found = Vec::new();
    for manifest in manifests {
        for param in &manifest.params {
            let value = |scope: &Scope| scope.param(&manifest.key, &param.key).unwrap_or_default().to_owned();
            let (before, after) = (value(&change.before), value(&change.after));
            if before == after {
                continue;
            }
            found.push(ParamChange {
                component: manifest.name.clone(),
                name: param.name.clone(),
                done: done_with(fitting, &manifest.key, &param.key),
                before,
                after,
            });
        }
    }
    found
}

/// Finished steps whose scripts read the input.
fn done_with(fitting: &Fitting, component: &str, param: &str) -> Vec<String> {
    let Some(manifest) = fitting.catalog.manifests.get(component) else { return Vec::new() };
    let variable = format!("BOARD_PARAM_{param}");
    let reads = |step: &Step| {
        manifest.step(&step.step_key).is_some_and(|step| {
            let scripts = [&step.check, &step.run, &step.verify];
            scripts.iter().any(|script| script.as_ref().is_some_and(|script| script.contains(&variable)))
        })
    };
    let own = fitting.present.iter().filter(|step| step.component_key == component);
    let done = own.filter(|step| step.state == StepState::Succeeded && reads(step));
    done.map(|step| step.title.clone()).collect()
}

fn not_here(change: &Change, device: &Device, fitting: &Fitting, key: &str) -> Option<NotHere> {
    let manifest = change.catalog.manifests.get(key)?;
    let why = if !manifest.platforms.contains(&device.platform) {
        Why::Platform
    } else if !fitting.catalog.manifests.contains_key(key) {
        Why::Catalog
    } else {
        return None;
    };
    Some(NotHere { component: manifest.name.clone(), why })
}

/// (component, slot) of the slots that a scope wants filled.
fn wanted_slots<'c>(scope: &Scope, catalog: &'c Catalog) -> BTreeSet<(&'c str, &'c str)> {
    let manifests = scope.components.iter().filter_map(|key| catalog.manifests.get(key));
    manifests
        .flat_map(|manifest| manifest.slots.iter().map(move |slot| (manifest, slot)))
        .map(|(manifest, slot)| (manifest.key.as_str(), slot.key.as_str()))
        .filter(|(component, slot)| scope.wants(catalog, component, slot))
        .collect()
}

fn manifest_slot<'c>(
    catalog: &'c Catalog,
    (component, slot): (&str, &str),
) -> Option<(&'c Manifest, &'c shared::catalog::Slot)> {
    let manifest = catalog.manifests.get(component)?;
    Some((manifest, manifest.slot(slot)?))
}

fn new_slots(change: &Change, stored: &BTreeSet<(String, String)>) -> (Vec<NewSlot>, Vec<NewSlot>) {
    let before = wanted_slots(&change.before, &change.catalog);
    let after = wanted_slots(&change.after, &change.catalog);
    let new = after.difference(&before).filter_map(|keys| manifest_slot(&change.catalog, *keys));
    let (ours, theirs): (Vec<_>, Vec<_>) = new.partition(|(_, slot)| slot.tag == Tag::OurManaged);
    let shown = |(manifest, slot): (&Manifest, &shared::catalog::Slot)| NewSlot {
        component: manifest.name.clone(),
        name: slot.name.clone(),
        key: slot.key.clone(),
        hint: clients::fill_hint(slot.hint.as_deref().unwrap_or_default(), &change.client),
        stored: stored.contains(&(manifest.key.clone(), slot.key.clone())),
    };
    (ours.into_iter().map(shown).collect(), theirs.into_iter().map(shown).collect())
}

/// What stays where it is although nothing uses it: on the board, encrypted, and in the devices' stores.
fn unused_slots(
    change: &Change,
    fittings: &[(Device, Fitting)],
    stored: &BTreeSet<(String, String)>,
    held: &[InstalledSlot],
) -> Vec<UnusedSlot> {
    let before = wanted_slots(&change.before, &change.catalog);
    let after = wanted_slots(&change.after, &change.catalog);
    let mut found = Vec::new();
    for keys in before.difference(&after) {
        let Some((manifest, slot)) = manifest_slot(&change.catalog, *keys) else { continue };
        let holds = |device: &Device| {
            held.iter().any(|held| {
                held.device_id == device.id
                    && (held.component_key.as_str(), held.slot_key.as_str()) == *keys
                    && held.is_held()
            })
        };
        let on: Vec<String> = fittings
            .iter()
            .filter(|(device, _)| holds(device))
            .map(|(device, _)| device.name.clone())
            .collect();
        let stored = stored.contains(&(manifest.key.clone(), slot.key.clone()));
        if stored || !on.is_empty() {
            let ours = slot.tag == Tag::OurManaged;
            let (component, name) = (manifest.name.clone(), slot.name.clone());
            found.push(UnusedSlot { component, name, ours, stored, on });
        }
    }
    found
}
