//! `GET /api/v1/devices/{id}/runbook`: how a device's runbook stands, for programs.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use shared::ids::{AttemptId, DeviceId, StepId};

use super::plan::{self, Answer, PlanState};
use super::{AttemptState, StepState, of_device, pause_of, steps};
use crate::app::App;
use crate::enrollment::get_device;
use crate::error::Failure;
use crate::secrets::{self, DeliveryState};

#[derive(Serialize)]
pub struct RunbookJson {
    device_id: DeviceId,
    name: String,
    on: bool,
    /// Whether every step is done and every delivery has its receipt.
    done: bool,
    /// The pause that it is in; `null` while its steps go on.
    paused: Option<PauseJson>,
    /// The latest plan.
    plan: Option<PlanJson>,
    steps: Vec<StepJson>,
    deliveries: Vec<DeliveryJson>,
}

#[derive(Serialize)]
struct PauseJson {
    by: String,
    /// RFC 3339.
    at: String,
    reason: String,
}

#[derive(Serialize)]
struct PlanJson {
    state: PlanState,
    by: String,
    asked_at: String,
    ended_at: Option<String>,
    reason: Option<String>,
    steps: Vec<PlanStepJson>,
}

#[derive(Serialize)]
struct PlanStepJson {
    id: StepId,
    component: String,
    step: String,
    /// `null` when it was not looked at.
    answer: Option<Answer>,
    found: String,
}

#[derive(Serialize)]
struct StepJson {
    id: StepId,
    component: String,
    step: String,
    title: String,
    state: StepState,
    attempt: Option<AttemptId>,
    attempt_state: Option<AttemptState>,
    /// RFC 3339.
    offered_at: Option<String>,
    running_at: Option<String>,
    ended_at: Option<String>,
    duration_ms: Option<i64>,
    /// From the offer's row to the device's word that the attempt started, in milliseconds.
    push_to_run_ms: Option<u128>,
    exit_code: Option<i64>,
    found: Option<String>,
}

#[derive(Serialize)]
struct DeliveryJson {
    component: String,
    slot: String,
    version: i64,
    state: DeliveryState,
    reason: Option<String>,
    receipt_at: Option<String>,
}

impl From<plan::PlanStep> for PlanStepJson {
    fn from(step: plan::PlanStep) -> Self {
        let plan::PlanStep { step_id, component_key, step_key, answer, found } = step;
        Self { id: step_id, component: component_key, step: step_key, answer, found }
    }
}

pub async fn get_runbook(
    State(app): State<App>,
    Path(id): Path<DeviceId>,
) -> Result<Json<RunbookJson>, Failure> {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, id).await?;
    let runbook = of_device(&mut tx, id).await?;
    let all = match &runbook {
        Some(runbook) => steps(&mut tx, runbook.id).await?,
        None => Vec::new(),
    };
    let (paused, plan) = match &runbook {
        Some(runbook) => (pause_of(&mut tx, runbook.id).await?, plan::latest(&mut tx, runbook.id).await?),
        None => (None, None),
    };
    let deliveries = secrets::for_device(&mut tx, id).await?;
    let done = runbook.is_some()
        && all.iter().all(|step| step.state.is_done())
        && deliveries.iter().all(|delivery| delivery.state == DeliveryState::Receipted);
    Ok(Json(RunbookJson {
        device_id: id,
        name: device.name,
        on: app.links.since(id).is_some(),
        done,
        paused: paused.map(|pause| PauseJson {
            by: pause.paused_by,
            at: pause.paused_at.rfc3339(),
            reason: pause.reason,
        }),
        plan: plan.map(|(plan, steps)| PlanJson {
            state: plan.standing(app.now()),
            by: plan.asked_by,
            asked_at: plan.asked_at.rfc3339(),
            ended_at: plan.ended_at.map(|at| at.rfc3339()),
            reason: plan.reason,
            steps: steps.into_iter().map(PlanStepJson::from).collect(),
        }),
        steps: all
            .into_iter()
            .map(|step| StepJson {
                id: step.id,
                component: step.component_key,
                step: step.step_key,
                title: step.title,
                state: step.state,
                attempt: step.attempt_id,
                attempt_state: step.attempt_state,
                offered_at: step.offered_at.map(|at| at.rfc3339()),
                running_at: step.running_at.map(|at| at.rfc3339()),
                ended_at: step.ended_at.map(|at| at.rfc3339()),
                duration_ms: step.duration_ms,
                push_to_run_ms: step
                    .offered_at
                    .zip(step.running_at)
                    .map(|(offered, running)| running.since(offered).as_millis()),
                exit_code: step.exit_code,
                found: step.found,
            })
            .collect(),
        deliveries: deliveries
            .into_iter()
            .map(|delivery| DeliveryJson {
                component: delivery.component_key,
                slot: delivery.slot_key,
                version: delivery.version,
                state: delivery.state,
                reason: delivery.reason,
                receipt_at: delivery.receipt_at.map(|at| at.rfc3339()),
            })
            .collect(),
    }))
}
