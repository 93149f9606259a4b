//! What people decide about steps, and what a device confirms: retry, skip, mark, confirm.

use std::time::Duration;

use shared::catalog::StepKind;
use shared::ids::{DeviceId, StepId};
use shared::protocol::inventory::SlotReport;

use super::compose::Wants;
use super::run::{ApplyError, wake_waiting};
use super::{Step, StepState, store, undo};
use crate::access::Throttle;
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, Catalog};
use crate::clients::engagement;
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::free_text;
use crate::inventory;
use crate::jobs::Wake;

/// A person asks for another attempt of a step that didn't succeed, or that was undone. Nothing of a component out of scope
/// runs.
pub async fn retry(app: &App, who: Who, device: &Device, step_id: StepId) -> Result<(), Failure> {
    let unfinished = [StepState::Failed, StepState::Interrupted, StepState::Cancelled];
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    if !is_wanted(&mut tx, device, step_id).await? {
        let detail = "Its component left the scope, and nothing of it runs. Nothing was changed: bring it back into the scope and retry then, or skip the step.";
        return Err(Failure::conflict("out-of-scope", "The step is out of scope", detail));
    }
    let steps = own_steps(&mut tx, device.id).await?;
    if steps.iter().any(|step| step.id == step_id && undo::is_undone(step)) {
        // What it depends on may have been undone, too.
        let (from, to) = (StepState::Skipped, StepState::Blocked);
        move_from(app, &mut tx, device.id, step_id, &[from], to, None).await?;
    } else {
        move_from(app, &mut tx, device.id, step_id, &unfinished, StepState::Ready, None).await?;
    }
    let entry = Entry::new(app.now(), who, Action::StepRetried);
    finish(app, tx, device, step_id, entry).await
}

/// A person goes on without a step, and says why.
pub async fn skip(
    app: &App,
    who: Who,
    device: &Device,
    step_id: StepId,
    reason: &str,
) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let open = [
        StepState::Failed,
        StepState::Interrupted,
        StepState::Cancelled,
        StepState::Waiting,
        StepState::Ready,
        StepState::Blocked,
    ];
    let note = format!("{}: {reason}", who.id);
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    move_from(app, &mut tx, device.id, step_id, &open, StepState::Skipped, Some(&note)).await?;
    let entry = Entry::new(app.now(), who, Action::StepSkipped).reason(reason);
    finish(app, tx, device, step_id, entry).await
}

/// A person says that a manual step is done. What the device can't confirm stays unverifiable until it says more.
pub async fn mark(app: &App, who: Who, device: &Device, step_id: StepId) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    let manual = own_steps(&mut tx, device.id)
        .await?
        .into_iter()
        .any(|step| step.id == step_id && step.kind == StepKind::Manual);
    if !manual {
        return Err(Failure::not_found("manual step"));
    }
    let note = format!("marked by {}; unverifiable until the device confirms it", who.id);
    move_from(app, &mut tx, device.id, step_id, &[StepState::Waiting], StepState::Succeeded, Some(&note))
        .await?;
    let entry = Entry::new(app.now(), who, Action::StepMarked);
    finish(app, tx, device, step_id, entry).await
}

/// Providers refuse these since the last report: the manual steps that brought them wait for a consultant again. Gives
/// the audit entry for the caller to append last.
pub async fn reopen_refused(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    refused: &[SlotReport],
) -> Result<Option<Entry>, ApplyError> {
    let Some(runbook) = store::of_device(tx, device.id).await?.filter(|_| !refused.is_empty()) else {
        return Ok(None);
    };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await.map_err(Failure::from)? else {
        return Ok(None);
    };
    let mut reopened = Vec::new();
    for step in store::steps(tx, runbook.id).await? {
        let brought_one = slots_of(&catalog, &step).iter().any(|slot| {
            refused.iter().any(|refused| refused.component == step.component_key && refused.slot == *slot)
        });
        if step.kind != StepKind::Manual || step.state != StepState::Succeeded || !brought_one {
            continue;
        }
        let (from, to, now) = (StepState::Succeeded, StepState::Waiting, app.now());
        if store::move_own_step(tx, device.id, step.id, from, to, None, now).await? == 1 {
            reopened.push(step);
        }
    }
    let entry = moved_by(app, tx, device, Action::StepReopened, &reopened).await?;
    Ok(entry.map(|entry| entry.reason("the provider refuses the credential")))
}

/// A device can say one thing and then the other as often as it likes: of each step the log takes this many moves an
/// hour; the step itself always is as the device says.
const SAID: Throttle = Throttle {
    bucket: "step-by-device",
    per_source: 6,
    in_total: i64::MAX,
    window: Duration::from_secs(3600),
};

/// The entry for steps that a device's report moved.
async fn moved_by(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    action: Action,
    steps: &[Step],
) -> Result<Option<Entry>, ApplyError> {
    let now = app.now();
    let mut told = Vec::new();
    for step in steps {
        let source = step.id.to_string();
        if SAID.allows(tx, &source, now).await? {
            SAID.record(tx, &source, now).await?;
            told.push(format!("{}/{}", step.component_key, step.step_key));
        }
    }
    if told.is_empty() {
        return Ok(None);
    }
    let entry = Entry::new(now, Who::device(device.id, ""), action)
        .client(device.client_id)
        .device(device.id)
        .detail("steps", told.join(" "));
    Ok(Some(entry))
}

/// The client's slots that a step is done with.
fn slots_of<'c>(catalog: &'c Catalog, step: &Step) -> &'c [String] {
    catalog
        .manifests
        .get(&step.component_key)
        .and_then(|manifest| manifest.step(&step.step_key))
        .map(|step| step.slots.as_slice())
        .unwrap_or_default()
}

/// The device said what it has: manual steps whose slots are all there, and none of them refused by its provider, are
/// done, and marked ones confirmed. Gives the audit entry for the caller to append last.
pub async fn confirm_manual(app: &App, tx: &mut Tx, device: &Device) -> Result<Option<Entry>, ApplyError> {
    let Some(runbook) = store::of_device(tx, device.id).await? else { return Ok(None) };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await.map_err(Failure::from)? else {
        return Ok(None);
    };
    let mut confirmed = Vec::new();
    for step in store::steps(tx, runbook.id).await? {
        let open =
            step.state == StepState::Waiting || (step.state == StepState::Succeeded && step.note.is_some());
        let slots = slots_of(&catalog, &step);
        if step.kind != StepKind::Manual || !open || slots.is_empty() {
            continue;
        }
        let mut all = true;
        for slot in slots {
            let slot = inventory::slot(tx, device.id, &step.component_key, slot).await?;
            all &= slot.is_some_and(|slot| slot.is_held() && !slot.is_refused());
        }
        if all {
            let (from, now) = (step.state, app.now());
            let to = StepState::Succeeded;
            if store::move_own_step(tx, device.id, step.id, from, to, None, now).await? == 1 {
                confirmed.push(step);
            }
        }
    }
    // Other steps may have waited for a slot that is there now.
    wake_waiting(app, tx, device.id).await?;
    moved_by(app, tx, device, Action::StepConfirmed, &confirmed).await
}

/// Whether the client's scope wants a step; what isn't the device's own is somebody else's to refuse.
async fn is_wanted(tx: &mut Tx, device: &Device, step_id: StepId) -> Result<bool, Failure> {
    let Some(runbook) = store::of_device(tx, device.id).await? else { return Ok(true) };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await? else { return Ok(true) };
    let wants = Wants::of(tx, device.client_id).await?;
    let steps = store::steps(tx, runbook.id).await?;
    Ok(steps.iter().find(|step| step.id == step_id).is_none_or(|step| wants.step(&catalog, step)))
}

pub(super) async fn own_steps(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<Step>, sqlx::Error> {
    match store::of_device(tx, device_id).await? {
        Some(runbook) => store::steps(tx, runbook.id).await,
        None => Ok(Vec::new()),
    }
}

pub(super) async fn move_from(
    app: &App,
    tx: &mut Tx,
    device_id: DeviceId,
    step_id: StepId,
    from: &[StepState],
    to: StepState,
    note: Option<&str>,
) -> Result<(), Failure> {
    for from in from {
        if store::move_own_step(tx, device_id, step_id, *from, to, note, app.now()).await? == 1 {
            return Ok(());
        }
    }
    Err(Failure::conflict(
        "step-moved",
        "The step has moved on",
        "It is not in a state in which this can be done: it may run, be done, or somebody else decided already. The runbook shows how it stands.",
    ))
}

pub(super) async fn finish(
    app: &App,
    mut tx: Tx,
    device: &Device,
    step_id: StepId,
    entry: Entry,
) -> Result<(), Failure> {
    wake_waiting(app, &mut tx, device.id).await?;
    let entry = entry.client(device.client_id).device(device.id).detail("step", step_id);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Device(device.id));
    Ok(())
}
