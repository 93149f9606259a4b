//! `restart_on_secret`: what read a secret runs again when the device has another value of it, one that was delivered or one
//! that a person pasted.

use shared::ids::{ClientId, DeviceId};

use super::compose::Wants;
use super::{AttemptState, Step, StepState, pause_of, store};
use crate::catalog::{self, Catalog};
use crate::db::Tx;
use crate::enrollment::{self, DeviceState};
use crate::error::Failure;
use crate::secrets::views::RunsAgain;

/// The device has another value of a slot: notes `reason` on every step that is marked, reads the slot and was tried before,
/// and gives the names of those that run again by themselves. A step that is under way ends first; one that wasn't tried yet
/// reads the new value anyway; one whose component left the scope runs again when it comes back.
pub async fn restart(
    tx: &mut Tx,
    device_id: DeviceId,
    (component, slot): (&str, &str),
    reason: &str,
) -> Result<Vec<String>, Failure> {
    let Some(runbook) = store::of_device(tx, device_id).await? else { return Ok(Vec::new()) };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await? else { return Ok(Vec::new()) };
    let client_id = enrollment::client_of(tx, device_id).await?;
    let wants = Wants::of(tx, client_id).await?;
    let mut again = Vec::new();
    for step in store::steps(tx, runbook.id).await? {
        let noted = reads(&catalog, &step, (component, slot))
            && store::set_rerun(tx, step.id, Some(reason)).await? == 1;
        if noted && runs_by_itself(&wants, &catalog, &step) {
            again.push(format!("{}/{}", step.component_key, step.step_key));
        }
    }
    Ok(again)
}

/// What another value of a slot would make run again on each of a client's enrolled devices, by the bundle of its runbook.
pub async fn would_restart(
    tx: &mut Tx,
    client_id: ClientId,
    (component, slot): (&str, &str),
) -> Result<Vec<RunsAgain>, Failure> {
    let wants = Wants::of(tx, client_id).await?;
    let mut found = Vec::new();
    for device in enrollment::devices_of(tx, client_id).await? {
        let Some(runbook) = store::of_device(tx, device.id).await? else { continue };
        let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await? else { continue };
        let again = |step: &Step| {
            let tried = step.attempt_id.is_some() && step.state != StepState::Skipped;
            tried && reads(&catalog, step, (component, slot)) && runs_by_itself(&wants, &catalog, step)
        };
        let steps = store::steps(tx, runbook.id).await?;
        let titles: Vec<String> = steps.into_iter().filter(again).map(|step| step.title).collect();
        if device.state == DeviceState::Enrolled && !titles.is_empty() {
            let is_paused = pause_of(tx, runbook.id).await?.is_some();
            found.push(RunsAgain { device: device.name, titles, is_paused });
        }
    }
    Ok(found)
}

fn reads(catalog: &Catalog, step: &Step, (component, slot): (&str, &str)) -> bool {
    let manifest = catalog.manifests.get(component).filter(|_| step.component_key == component);
    manifest.and_then(|manifest| Some((manifest, manifest.step(&step.step_key)?))).is_some_and(
        |(manifest, written)| written.restart_on_secret && manifest.slots_read_by(written).contains(slot),
    )
}

fn runs_by_itself(wants: &Wants, catalog: &Catalog, step: &Step) -> bool {
    !waits_for_a_person(step) && wants.step(catalog, step)
}

/// Whether it runs again only after somebody's word.
pub fn waits_for_a_person(step: &Step) -> bool {
    matches!(step.state, StepState::Interrupted | StepState::Cancelled)
}

/// Whether a step that ended is to run again. What was interrupted or cancelled waits for a person's word, and so does one
/// that a person wanted undone and that could not be.
pub fn is_due(step: &Step) -> bool {
    let failed = step.state == StepState::Failed && step.undone_for.is_none();
    step.rerun_for.is_some() && (failed || step.state == StepState::Succeeded)
}

/// Why its next attempt runs again, whatever `check` says: also when the last one was to do so and didn't come to its end.
pub fn reason_of(step: &Step) -> Option<&str> {
    let ended_well = matches!(step.attempt_state, Some(AttemptState::Succeeded | AttemptState::AlreadySo));
    step.rerun_for.as_deref().or_else(|| step.reran_for.as_deref().filter(|_| !ended_well))
}

/// What the page says about it. `wanted`: the client's scope wants the step.
pub fn in_words(step: &Step, wanted: bool) -> Option<String> {
    match (&step.rerun_for, &step.reran_for) {
        (Some(_), _) if step.state == StepState::Skipped => None,
        (Some(why), _) if !wanted => Some(format!("runs again for {why} when it is back in scope")),
        (Some(why), _) if waits_for_a_person(step) => {
            Some(format!("runs again for {why} when it is retried"))
        }
        (Some(why), _) => Some(format!("runs again for {why}")),
        (None, Some(why)) => Some(format!("ran again for {why}")),
        (None, None) => None,
    }
}
