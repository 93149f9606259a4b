//! `restart_on_secret`: what read a secret runs again when the device has another value of it, one that was delivered or one
//! that a person pasted.

use shared::ids::DeviceId;

use super::{AttemptState, Step, StepState, store};
use crate::catalog;
use crate::db::Tx;
use crate::error::Failure;

/// The device has another value of a slot: notes `reason` on every step that is marked, reads the slot and was tried before,
/// and gives their names. A step that is under way ends first; one that wasn't tried yet reads the new value anyway.
pub async fn restart(
    tx: &mut Tx,
    device_id: DeviceId,
    (component, slot): (&str, &str),
    reason: &str,
) -> Result<Vec<String>, Failure> {
    let Some(runbook) = store::of_device(tx, device_id).await? else { return Ok(Vec::new()) };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await? else { return Ok(Vec::new()) };
    let Some(manifest) = catalog.manifests.get(component) else { return Ok(Vec::new()) };
    let mut again = Vec::new();
    for step in store::steps(tx, runbook.id).await? {
        let reads = manifest.step(&step.step_key).is_some_and(|written| {
            written.restart_on_secret && manifest.slots_read_by(written).contains(slot)
        });
        if step.component_key == component && reads && store::set_rerun(tx, step.id, Some(reason)).await? == 1
        {
            again.push(format!("{}/{}", step.component_key, step.step_key));
        }
    }
    Ok(again)
}

/// Whether a step that ended is to run again. What was interrupted or cancelled waits for a person's word.
pub fn is_due(step: &Step) -> bool {
    step.rerun_for.is_some() && matches!(step.state, StepState::Succeeded | StepState::Failed)
}

/// Why its next attempt runs again, whatever `check` says: also when the last one was to do so and didn't come to its end.
pub fn reason_of(step: &Step) -> Option<&str> {
    let ended_well = matches!(step.attempt_state, Some(AttemptState::Succeeded | AttemptState::AlreadySo));
    step.rerun_for.as_deref().or_else(|| step.reran_for.as_deref().filter(|_| !ended_well))
}
