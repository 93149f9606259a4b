//! Undo: a person asks for what a step did to be taken back. The device does it with the manifest's own script, looks
//! whether it is gone, and wants a word from somebody at it for more than one an hour.

#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use shared::catalog::{Manifest, Step as ManifestStep, StepKind};
use shared::ids::StepId;

use super::{AttemptState, Step, StepState, compose, decide, store};
use crate::app::App;
use crate::audit::{Action, Entry, Who};
use crate::catalog::{self, Catalog};
use crate::clients::{self, engagement};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::free_text;

/// A step that was tried and came to an end: something of it may be there.
const ENDED: [StepState; 4] =
    [StepState::Succeeded, StepState::Failed, StepState::Interrupted, StepState::Cancelled];

/// Whether it was undone, and can be set up again.
pub fn is_undone(step: &Step) -> bool {
    step.state == StepState::Skipped
        && step.undone_for.is_some()
        && matches!(step.attempt_state, Some(AttemptState::Succeeded | AttemptState::AlreadySo))
}

/// Whether a person may ask for it: the step's manifest has a way back, and it isn't under way.
pub fn may_be_asked(step: &Step, catalog: Option<&Catalog>) -> bool {
    let script = written(step, catalog).and_then(|(_, written)| written.undo.as_ref());
    script.is_some()
        && step.kind == StepKind::Auto
        && step.attempt_id.is_some()
        && ENDED.contains(&step.state)
}

fn written<'c>(step: &Step, catalog: Option<&'c Catalog>) -> Option<(&'c Manifest, &'c ManifestStep)> {
    let manifest = catalog?.manifests.get(&step.component_key)?;
    Some((manifest, manifest.step(&step.step_key)?))
}

/// A person wants what a step did taken back, and says why. The device is offered it as its next step.
pub async fn undo(
    app: &App,
    who: Who,
    device: &Device,
    step_id: StepId,
    reason: &str,
) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    let step = own_step(&mut tx, device, step_id).await?;
    let catalog = catalog_of(&mut tx, device).await?;
    let why = format!("{}: {reason}", who.id);
    let asked = may_be_asked(&step, catalog.as_ref())
        && store::ask_undo(&mut tx, device.id, step.id, step.state, &why, app.now()).await? == 1;
    if !asked {
        return Err(moved_on());
    }
    let entry = Entry::new(app.now(), who, Action::StepUndoAsked).reason(reason);
    decide::finish(app, tx, device, step_id, entry).await
}

/// A person doesn't want it any more, and it wasn't offered yet: the step is what it was.
pub async fn keep(app: &App, who: Who, device: &Device, step_id: StepId) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    let step = own_step(&mut tx, device, step_id).await?;
    let before = step.undo_from.filter(|_| step.undo_for.is_some()).ok_or_else(moved_on)?;
    decide::move_from(app, &mut tx, device.id, step_id, &[StepState::Ready], before, None).await?;
    let entry = Entry::new(app.now(), who, Action::StepUndoDropped);
    decide::finish(app, tx, device, step_id, entry).await
}

/// An attempt to undo it ended. What the device refused changed nothing; what is gone is out of the runbook until a person
/// wants it again or, when its component left the client's scope, until that comes back.
pub(super) async fn ended(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    step: &Step,
    why: &str,
    (attempt, other): (AttemptState, StepState),
    found: &str,
) -> Result<(), Failure> {
    let (to, note) = match attempt {
        AttemptState::Succeeded | AttemptState::AlreadySo => {
            let scope = clients::scope(tx, device.client_id).await?;
            let note = match scope.components.contains(&step.component_key) {
                true => format!("undone; {why}"),
                false => compose::LEFT.to_owned(),
            };
            (StepState::Skipped, Some(note))
        }
        AttemptState::Refused => {
            let before = step.undo_from.unwrap_or(StepState::Failed);
            (before, Some(format!("not undone, the device refused: {found}")))
        }
        AttemptState::Failed
        | AttemptState::Interrupted
        | AttemptState::Cancelled
        | AttemptState::Offered
        | AttemptState::Running => (other, None),
    };
    for from in [StepState::Running, StepState::Offered] {
        store::move_own_step(tx, device.id, step.id, from, to, note.as_deref(), app.now()).await?;
    }
    Ok(())
}

async fn own_step(tx: &mut Tx, device: &Device, id: StepId) -> Result<Step, Failure> {
    let steps = decide::own_steps(tx, device.id).await?;
    steps.into_iter().find(|step| step.id == id).ok_or_else(|| Failure::not_found("step"))
}

async fn catalog_of(tx: &mut Tx, device: &Device) -> Result<Option<Catalog>, Failure> {
    let Some(runbook) = store::of_device(tx, device.id).await? else { return Ok(None) };
    Ok(catalog::by_digest(tx, &runbook.bundle_digest).await?)
}

fn moved_on() -> Failure {
    Failure::conflict(
        "step-moved",
        "The step has moved on",
        "It is not in a state in which it can be undone: it may run, be undone already, or somebody else decided \
         something else. The runbook shows how it stands.",
    )
}
