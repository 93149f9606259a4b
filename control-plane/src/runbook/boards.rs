//! Steps that the board executes itself (`as = "board"`): each fills one of our slots. Who executes them is above; here
//! is when one's turn has come, and how it moves.

use shared::catalog::Manifest;
use shared::ids::{AttemptId, ClientId, DeviceId, StepId};

use super::{AttemptState, Runbook, Step, StepState, is_paused, run, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::Catalog;
use crate::db::Tx;
use crate::enrollment;
use crate::error::Failure;
use crate::secrets::{self, BoardSecret};

/// A step that the board executes itself and that isn't over.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct BoardStep {
    pub id: StepId,
    pub device_id: DeviceId,
    pub client_id: ClientId,
    pub component_key: String,
    pub step_key: String,
    pub state: StepState,
}

/// What a waiting step waits for when the board can't do it.
const BY_HAND: &str =
    "its value on the client's secrets page; with a management key of the provider the board makes it";

/// Done when the slot is filled, whoever filled it; a consultant's turn while the board has nothing to do it with.
pub(super) async fn next_state(
    tx: &mut Tx,
    runbook: &Runbook,
    step: &Step,
    catalog: &Catalog,
) -> Result<(StepState, Option<String>), sqlx::Error> {
    let client_id = enrollment::client_of(tx, runbook.device_id).await?;
    let stored = secrets::stored_slots(tx, client_id).await?;
    let manifest = catalog.manifests.get(&step.component_key);
    let filled = filled_by(manifest, &step.step_key)
        .is_some_and(|slot| stored.contains(&(step.component_key.clone(), slot.to_owned())));
    if filled {
        return Ok((StepState::Succeeded, None));
    }
    Ok(match secrets::stored_board(tx, BoardSecret::OpenRouterManagement).await? {
        Some(_) => (StepState::Ready, None),
        None => (StepState::Waiting, Some(BY_HAND.to_owned())),
    })
}

/// The slot that such a step fills.
fn filled_by<'m>(manifest: Option<&'m Manifest>, step: &str) -> Option<&'m str> {
    manifest?.step(step)?.slots.first().map(String::as_str)
}

impl BoardStep {
    pub fn name(&self) -> String {
        format!("{}/{}", self.component_key, self.step_key)
    }
}

/// All of them, on all devices that are enrolled.
pub async fn boards_steps(tx: &mut Tx) -> Result<Vec<BoardStep>, sqlx::Error> {
    store::boards_steps(tx).await
}

/// Ready becomes running, with an attempt, unless somebody paused the runbook. Says whether it did.
pub async fn begin_boards(app: &App, tx: &mut Tx, step: &BoardStep) -> Result<bool, sqlx::Error> {
    if is_paused(tx, step.device_id).await? {
        return Ok(false);
    }
    let now = app.now();
    if store::move_step(tx, step.id, StepState::Ready, StepState::Running, None, now).await? != 1 {
        return Ok(false);
    }
    let attempt = AttemptId::new(&*app.clock, &*app.random);
    store::insert_attempt(tx, attempt, step.id, now, now, (None, None)).await?;
    store::start_attempt(tx, attempt, now).await?;
    Ok(true)
}

/// Ends a step with what came of it; `Err` says why it failed and what to do. What depends on it may go on then.
pub async fn end_boards(
    app: &App,
    tx: &mut Tx,
    who: Who,
    step: &BoardStep,
    outcome: Result<(), &str>,
) -> Result<(), Failure> {
    let now = app.now();
    let (attempt_state, state) = match outcome {
        Ok(()) => (AttemptState::Succeeded, StepState::Succeeded),
        Err(_) => (AttemptState::Failed, StepState::Failed),
    };
    let attempt = store::open_attempt(tx, step.id).await?;
    if let Some(attempt) = attempt {
        store::finish_attempt(tx, attempt, attempt_state, now, None, outcome.err().unwrap_or_default())
            .await?;
    }
    let mut moved = 0;
    for from in [StepState::Running, StepState::Ready] {
        moved += store::move_step(tx, step.id, from, state, None, now).await?;
    }
    if moved == 0 {
        return Ok(());
    }
    run::wake_waiting(app, tx, step.device_id).await?;
    let mut entry = Entry::new(now, who, Action::StepEnded)
        .client(step.client_id)
        .device(step.device_id)
        .reason(attempt_state.as_str())
        .detail("step", step.name());
    if let Some(attempt) = attempt {
        entry = entry.detail("attempt", attempt);
    }
    audit::append(tx, &entry).await?;
    Ok(())
}

/// The board has nothing to do it with any more: it waits for a consultant.
pub async fn rest_boards(app: &App, tx: &mut Tx, step: &BoardStep) -> Result<(), Failure> {
    store::move_step(tx, step.id, StepState::Ready, StepState::Blocked, None, app.now()).await?;
    run::wake_waiting(app, tx, step.device_id).await
}
