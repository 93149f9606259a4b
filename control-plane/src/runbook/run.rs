//! Running: which step is next, and what the device's reports do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::catalog::{StepKind, Tag};
use shared::ids::{AttemptId, DeviceId, StepId};
use shared::protocol::steps::{AttemptEnded, MAX_OUTPUT, Offer, OfferKind, Outcome, OutputChunk};

use super::compose::Wants;
use super::{AttemptState, RunBy, Runbook, Step, StepState, boards, pause_of, restart, store, undo};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, Catalog};
use crate::clients;
use crate::db::Tx;
use crate::enrollment::{self, Device};
use crate::error::Failure;
use crate::freeze;
use crate::inventory;
use crate::secrets;

/// An offer that the device doesn't take in this time is void there, and is made again.
const OFFER_TTL: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("there is no such attempt for this device")]
    UnknownAttempt,
    #[error("there is no such plan for this device, or it has no such step")]
    UnknownPlan,
    #[error("more output than is kept of one attempt")]
    TooMuchOutput,
    #[error("the outcome is not one that this board knows")]
    UnknownOutcome,
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("{0:?}")]
    Failure(Box<Failure>),
}

impl From<Failure> for ApplyError {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

/// Moves steps whose turn has come: automatic ones to ready, or to waiting for a delivery; manual ones to waiting for a
/// consultant. A step that asks for a client-supplied slot which the device doesn't have is skipped. What the client's
/// scope doesn't want stays as it is.
pub(super) async fn advance(
    app: &App,
    tx: &mut Tx,
    runbook: &Runbook,
    catalog: &Catalog,
) -> Result<(), sqlx::Error> {
    let client_id = enrollment::client_of(tx, runbook.device_id).await?;
    let wants = Wants::of(tx, client_id).await?;
    // Each pass may open the way for later steps; there are no more passes than steps.
    let count = store::steps(tx, runbook.id).await?.len();
    for _ in 0..=count {
        let steps = store::steps(tx, runbook.id).await?;
        let mut moved = false;
        for (index, step) in steps.iter().enumerate() {
            let waits_here = step.state == StepState::Blocked
                || (step.state == StepState::Waiting && step.kind == StepKind::Auto)
                || restart::is_due(step);
            if !waits_here || !wants.step(catalog, step) || !turn_has_come(&steps, index, catalog) {
                continue;
            }
            let (state, waits_for) = next_state(tx, runbook, step, catalog, &wants).await?;
            if state != step.state {
                store::move_step(tx, step.id, step.state, state, waits_for.as_deref(), app.now()).await?;
                moved |= state.is_done();
            }
        }
        if !moved {
            return Ok(());
        }
    }
    Ok(())
}

async fn next_state(
    tx: &mut Tx,
    runbook: &Runbook,
    step: &Step,
    catalog: &Catalog,
    wants: &Wants,
) -> Result<(StepState, Option<String>), sqlx::Error> {
    let manifest = catalog.manifests.get(&step.component_key);
    let wanted = manifest
        .and_then(|manifest| Some((manifest, manifest.step(&step.step_key)?)))
        .and_then(|(manifest, step)| manifest.slot(step.when.strip_prefix("slot:")?))
        .filter(|slot| slot.tag == Tag::ClientSupplied && slot.one_of.is_none());
    if let Some(slot) = wanted
        && !inventory::slot(tx, runbook.device_id, &step.component_key, &slot.key)
            .await?
            .is_some_and(|slot| slot.is_held())
    {
        return Ok((StepState::Skipped, None));
    }
    if step.kind == StepKind::Manual {
        return Ok((StepState::Waiting, Some("a consultant".to_owned())));
    }
    if step.run_by == RunBy::Board {
        return boards::next_state(tx, runbook, step, catalog).await;
    }
    let missing = missing_deliveries(tx, runbook, step, catalog, wants).await?;
    Ok(match missing.first() {
        Some(slot) => (StepState::Waiting, Some(format!("the delivery of {slot}"))),
        None => (StepState::Ready, None),
    })
}

/// Our-managed slots that the step needs and the device has no receipt for.
async fn missing_deliveries(
    tx: &mut Tx,
    runbook: &Runbook,
    step: &Step,
    catalog: &Catalog,
    Wants { scope, stored }: &Wants,
) -> Result<Vec<String>, sqlx::Error> {
    let Some(manifest) = catalog.manifests.get(&step.component_key) else { return Ok(Vec::new()) };
    let Some(written) = manifest.step(&step.step_key) else { return Ok(Vec::new()) };
    let mut needed = manifest.slots_read_by(written);
    if needed.is_empty() {
        return Ok(Vec::new());
    }
    needed.retain(|key| {
        let ours = manifest.slot(key).filter(|slot| slot.tag == Tag::OurManaged);
        ours.is_some_and(|slot| {
            let there = stored.contains(&(manifest.key.clone(), slot.key.clone()));
            scope.wants_slot(manifest, key) && (slot.required || slot.one_of.is_some() || there)
        })
    });
    let needed: Vec<&str> = needed.into_iter().collect();
    secrets::missing(tx, runbook.device_id, &step.component_key, &needed).await
}

/// Whether all earlier steps of the component, and all steps of the components that it depends on, are done.
fn turn_has_come(steps: &[Step], index: usize, catalog: &Catalog) -> bool {
    let step = &steps[index];
    let needed: BTreeSet<&str> = catalog
        .manifests
        .get(&step.component_key)
        .map(|manifest| manifest.depends_on.iter().map(String::as_str).collect())
        .unwrap_or_default();
    steps.iter().enumerate().all(|(other_index, other)| {
        let before = other.component_key == step.component_key && other_index < index;
        let depended_on = needed.contains(other.component_key.as_str());
        !(before || depended_on) || other.state.is_done()
    })
}

/// Attempts that a link knows about: those it carried, and those that the device said it has in its journal.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    pub sent: BTreeSet<AttemptId>,
    pub in_journal: BTreeSet<AttemptId>,
}

/// The offer to push now. One automatic attempt at a time, and an attempt keeps its id until the device said how it
/// ended: an offer that was lost, ran out or may have been, is made again under the same id, so that the device can tell
/// it from a new one. Only then the first ready step in order. While the runbook is paused nothing is offered, also not
/// again: what the device has in its journal it goes on with by itself. No step of a component out of scope is offered.
pub async fn next_offer(app: &App, device: &Device, carried: &Carried) -> Result<Option<Offer>, Failure> {
    let mut tx = app.db.read().await?;
    let Some(runbook) = store::of_device(&mut tx, device.id).await? else { return Ok(None) };
    if !store::has_open_step(&mut tx, runbook.id).await? || pause_of(&mut tx, runbook.id).await?.is_some() {
        return Ok(None);
    }
    drop(tx);
    let mut tx = app.db.write().await?;
    let now = app.now();
    let stopped = pause_of(&mut tx, runbook.id).await?.is_some() || freeze::is_on(&mut tx).await?;
    if stopped || !enrollment::is_enrolled(&mut tx, device.id).await? {
        return Ok(None);
    }
    let mut steps = store::steps(&mut tx, runbook.id).await?;
    steps.retain(|step| step.run_by == RunBy::Agent);
    let scope = clients::scope(&mut tx, device.client_id).await?;
    for step in &steps {
        let (Some(state), Some(attempt_id)) = (step.attempt_state, step.attempt_id) else { continue };
        if !matches!(state, AttemptState::Offered | AttemptState::Running) {
            continue;
        }
        let over = state == AttemptState::Offered && step.expires_at.is_some_and(|expires| now >= expires);
        let known = carried.in_journal.contains(&attempt_id) || (carried.sent.contains(&attempt_id) && !over);
        if known {
            return Ok(None);
        }
        store::offer_again(&mut tx, attempt_id, now.after(OFFER_TTL)).await?;
        tx.commit().await?;
        let kind = kind_of(step.reran_for.as_deref(), step.undone_for.as_deref());
        return Ok(Some(offer(&runbook, step, attempt_id, kind, scope.params_of(&step.component_key))));
    }
    let ready = |step: &&Step| {
        step.kind == StepKind::Auto
            && step.state == StepState::Ready
            && (step.undo_for.is_some() || scope.components.contains(&step.component_key))
    };
    let Some(step) = steps.iter().find(ready) else { return Ok(None) };
    let attempt_id = AttemptId::new(&*app.clock, &*app.random);
    if store::move_step(&mut tx, step.id, StepState::Ready, StepState::Offered, None, now).await? != 1 {
        return Ok(None);
    }
    let undo = step.undo_for.as_deref();
    let again = restart::reason_of(step).filter(|_| undo.is_none());
    let why = (again, undo);
    store::insert_attempt(&mut tx, attempt_id, step.id, now, now.after(OFFER_TTL), why).await?;
    store::set_rerun(&mut tx, step.id, None).await?;
    store::undo_offered(&mut tx, step.id).await?;
    let entry = Entry::new(now, Who::job("runbook"), Action::StepOffered)
        .client(device.client_id)
        .device(device.id)
        .detail("step", format!("{}/{}", step.component_key, step.step_key))
        .detail("attempt", attempt_id);
    let entry = if undo.is_some() { entry.detail("kind", "undo") } else { entry };
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    let kind = kind_of(again, undo);
    Ok(Some(offer(&runbook, step, attempt_id, kind, scope.params_of(&step.component_key))))
}

fn kind_of(rerun_for: Option<&str>, undo_for: Option<&str>) -> OfferKind {
    match (rerun_for, undo_for) {
        (_, Some(_)) => OfferKind::Undo,
        (Some(_), None) => OfferKind::Rerun,
        (None, None) => OfferKind::Run,
    }
}

fn offer(
    runbook: &Runbook,
    step: &Step,
    attempt_id: AttemptId,
    kind: OfferKind,
    params: BTreeMap<String, String>,
) -> Offer {
    Offer {
        attempt_id,
        bundle_digest: runbook.bundle_digest.clone(),
        component: step.component_key.clone(),
        step: step.step_key.clone(),
        kind,
        params,
        expires_in_ms: u64::try_from(OFFER_TTL.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Something arrived on the device or was decided: steps that waited may be ready.
pub async fn wake_waiting(app: &App, tx: &mut Tx, device_id: DeviceId) -> Result<(), Failure> {
    let Some(runbook) = store::of_device(tx, device_id).await? else { return Ok(()) };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await? else { return Ok(()) };
    Ok(advance(app, tx, &runbook, &catalog).await?)
}

async fn of_device_step(tx: &mut Tx, device_id: DeviceId, id: StepId) -> Result<Option<Step>, sqlx::Error> {
    let Some(runbook) = store::of_device(tx, device_id).await? else { return Ok(None) };
    Ok(store::steps(tx, runbook.id).await?.into_iter().find(|step| step.id == id))
}

async fn step_of(tx: &mut Tx, device_id: DeviceId, attempt_id: AttemptId) -> Result<StepId, ApplyError> {
    store::step_of_attempt(tx, device_id, attempt_id).await?.ok_or(ApplyError::UnknownAttempt)
}

pub async fn apply_started(
    app: &App,
    tx: &mut Tx,
    device_id: DeviceId,
    attempt_id: AttemptId,
) -> Result<(), ApplyError> {
    let step_id = step_of(tx, device_id, attempt_id).await?;
    let now = app.now();
    if store::start_attempt(tx, attempt_id, now).await? == 1 {
        store::move_step(tx, step_id, StepState::Offered, StepState::Running, None, now).await?;
    }
    Ok(())
}

pub async fn apply_output(tx: &mut Tx, device_id: DeviceId, chunk: &OutputChunk) -> Result<(), ApplyError> {
    step_of(tx, device_id, chunk.attempt_id).await?;
    let kept = u64::try_from(store::output_size(tx, chunk.attempt_id).await?).unwrap_or(u64::MAX);
    if kept > MAX_OUTPUT {
        return Err(ApplyError::TooMuchOutput);
    }
    store::insert_output(tx, chunk).await?;
    Ok(())
}

pub async fn apply_ended(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    ended: &AttemptEnded,
) -> Result<(), ApplyError> {
    let (attempt_state, step_state) = match ended.outcome {
        Outcome::Succeeded => (AttemptState::Succeeded, StepState::Succeeded),
        Outcome::AlreadySo => (AttemptState::AlreadySo, StepState::Succeeded),
        Outcome::Failed => (AttemptState::Failed, StepState::Failed),
        Outcome::Interrupted => (AttemptState::Interrupted, StepState::Interrupted),
        Outcome::Cancelled => (AttemptState::Cancelled, StepState::Cancelled),
        Outcome::Unknown => return Err(ApplyError::UnknownOutcome),
    };
    finish(app, tx, device, ended.attempt_id, attempt_state, step_state, Some(ended), &ended.found).await
}

pub async fn apply_offer_refused(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    attempt_id: AttemptId,
    reason: &str,
) -> Result<(), ApplyError> {
    let refused = (AttemptState::Refused, StepState::Failed);
    finish(app, tx, device, attempt_id, refused.0, refused.1, None, reason).await
}

#[expect(
    clippy::too_many_arguments,
    reason = "one private function for the two ways in which an attempt ends"
)]
async fn finish(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    attempt_id: AttemptId,
    attempt_state: AttemptState,
    step_state: StepState,
    ended: Option<&AttemptEnded>,
    found: &str,
) -> Result<(), ApplyError> {
    let step_id = step_of(tx, device.id, attempt_id).await?;
    let now = app.now();
    if store::finish_attempt(tx, attempt_id, attempt_state, now, ended, found).await? != 1 {
        return Ok(());
    }
    let step = of_device_step(tx, device.id, step_id).await?;
    match step.as_ref().and_then(|step| Some((step, step.undone_for.as_deref()?))) {
        Some((step, why)) => {
            undo::ended(app, tx, device, step, why, (attempt_state, step_state), found).await?
        }
        None => {
            for from in [StepState::Running, StepState::Offered] {
                store::move_step(tx, step_id, from, step_state, None, now).await?;
            }
        }
    }
    wake_waiting(app, tx, device.id).await?;
    let entry = Entry::new(now, Who::device(device.id, ""), Action::StepEnded)
        .client(device.client_id)
        .device(device.id)
        .reason(attempt_state.as_str())
        .detail("attempt", attempt_id);
    audit::append(tx, &entry).await?;
    Ok(())
}
