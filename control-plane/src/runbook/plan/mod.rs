//! Plans: the device runs the `check` of every automatic step, nothing else, and the page shows what would change.
//!
//! A plan is rows here; the link carries it to the device once. Whatever the device says of it counts, however late;
//! what a killed agent forgot ends as not answered.

mod lines;
mod store;
#[cfg(test)]
mod tests;
pub mod views;

use std::time::Duration;

use shared::ids::{PlanId, RunbookId, StepId};
use shared::protocol::plan::{PlanEnded, PlanRequest, Planned, PlannedStep, StepName};
use shared::text_enum;
use shared::time::Timestamp;

use super::run::ApplyError;
use super::{Step, of_device, steps};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::clients::{self, engagement};
use crate::db::Tx;
use crate::enrollment::{Device, DeviceState};
use crate::error::Failure;
use crate::freeze;
use crate::jobs::Wake;

pub use lines::shown;

/// A device that says nothing of its plan for this long doesn't answer. One check takes two minutes at most.
pub const SILENCE: Duration = Duration::from_secs(300);
/// A plan that couldn't be sent for this long isn't wanted any more.
pub const UNSENT: Duration = Duration::from_secs(3600);
/// Plans of a runbook that are kept when another is asked for.
const KEPT: i64 = 9;

text_enum! {
    pub enum PlanState {
        /// It waits until it can be sent: until no step runs.
        Asked = "asked",
        Sent = "sent",
        /// Every step was looked at.
        Done = "done",
        /// The device ended it early, and said why.
        Stopped = "stopped",
        /// The device forgot it, or says nothing.
        Unanswered = "unanswered",
        /// The device's agent is too old.
        TooOld = "too-old",
    }
}

impl PlanState {
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Asked | Self::Sent)
    }
}

text_enum! {
    pub enum Answer {
        AlreadySo = "already-so",
        WouldRun = "would-run",
        NoCheck = "no-check",
        NotYet = "not-yet",
        Unknown = "unknown",
    }
}

impl From<Planned> for Answer {
    fn from(planned: Planned) -> Self {
        match planned {
            Planned::AlreadySo => Self::AlreadySo,
            Planned::WouldRun => Self::WouldRun,
            Planned::NoCheck => Self::NoCheck,
            Planned::NotYet => Self::NotYet,
            Planned::Unknown => Self::Unknown,
        }
    }
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Plan {
    pub id: PlanId,
    pub runbook_id: RunbookId,
    pub state: PlanState,
    pub asked_by: String,
    pub asked_at: Timestamp,
    pub heard_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub reason: Option<String>,
}

impl Plan {
    /// Open for longer than anybody waits.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        match self.state {
            PlanState::Asked => now.since(self.asked_at) >= UNSENT,
            PlanState::Sent => now.since(self.heard_at) >= SILENCE,
            PlanState::Done | PlanState::Stopped | PlanState::Unanswered | PlanState::TooOld => false,
        }
    }

    /// Why a plan that was only asked for has no answer.
    fn unsent(&self) -> Option<&'static str> {
        (self.state == PlanState::Asked).then_some("it was never sent, as the device was busy or off")
    }

    /// Why it has no answer, as far as anybody knows.
    fn silence(&self) -> &str {
        self.reason.as_deref().or_else(|| self.unsent()).unwrap_or("it says nothing")
    }

    /// The state, as it will be written when somebody next looks after the plan.
    pub fn standing(&self, now: Timestamp) -> PlanState {
        if self.is_overdue(now) { PlanState::Unanswered } else { self.state }
    }
}

/// A step that a plan asked for.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PlanStep {
    pub step_id: StepId,
    pub component_key: String,
    pub step_key: String,
    /// `None` when it was not looked at.
    pub answer: Option<Answer>,
    pub found: String,
}

/// The latest plan of a runbook, and its steps in order.
pub async fn latest(
    tx: &mut Tx,
    runbook_id: RunbookId,
) -> Result<Option<(Plan, Vec<PlanStep>)>, sqlx::Error> {
    let Some(plan) = store::latest(tx, runbook_id).await? else { return Ok(None) };
    let steps = store::steps(tx, plan.id).await?;
    Ok(Some((plan, steps)))
}

/// A person asks what would change. Steps that are done are looked at, too: what drifted shows.
pub async fn ask_plan(app: &App, who: Who, device: &Device) -> Result<PlanId, Failure> {
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    if freeze::is_on(&mut tx).await? {
        return Err(freeze::refused());
    }
    let runbook = of_device(&mut tx, device.id).await?.ok_or_else(|| Failure::not_found("runbook"))?;
    if device.state != DeviceState::Enrolled || app.links.since(device.id).is_none() {
        let detail = "Only the Mac itself can look. Nothing was asked; plan when it is on again.";
        return Err(Failure::conflict("device-off", "The device is off", detail));
    }
    let now = app.now();
    if let Some(open) = store::open(&mut tx, runbook.id).await?
        && open.is_overdue(now)
    {
        store::end(&mut tx, open.id, open.state, PlanState::Unanswered, open.unsent(), now).await?;
    }
    store::forget(&mut tx, runbook.id, KEPT).await?;
    let id = PlanId::new(&*app.clock, &*app.random);
    let plan = Plan {
        id,
        runbook_id: runbook.id,
        state: PlanState::Asked,
        asked_by: who.id.clone(),
        asked_at: now,
        heard_at: now,
        ended_at: None,
        reason: None,
    };
    if store::insert(&mut tx, &plan).await? != 1 {
        let detail = "Its answers come to the runbook's page by themselves. Nothing more was asked.";
        return Err(Failure::conflict("planning-already", "A plan is under way already", detail));
    }
    if store::insert_steps(&mut tx, id, runbook.id).await? == 0 {
        let detail = "None of its steps is automatic, so there is nothing that the agent could look at.";
        return Err(Failure::conflict("nothing-to-plan", "There is nothing to plan", detail));
    }
    let entry =
        Entry::new(now, who, Action::PlanAsked).client(device.client_id).device(device.id).detail("plan", id);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Device(device.id));
    Ok(id)
}

/// A device's hello says which plans it knows of. One that was sent and isn't among them was forgotten: it is asked for again
/// when nothing was said of it, or never arrived; one with answers ends, as the rest may have changed since.
pub async fn reconcile(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    known: Option<&[PlanId]>,
) -> Result<(), sqlx::Error> {
    let Some(runbook) = of_device(tx, device.id).await? else { return Ok(()) };
    let Some(open) = store::open(tx, runbook.id).await? else { return Ok(()) };
    let forgotten = open.state == PlanState::Sent && !known.unwrap_or_default().contains(&open.id);
    if !forgotten {
        return Ok(());
    }
    if store::steps(tx, open.id).await?.iter().all(|step| step.answer.is_none()) {
        store::unsend(tx, open.id).await?;
    } else {
        let reason = Some("the device doesn't know of it, as after a restart or a cut; ask again");
        store::end(tx, open.id, PlanState::Sent, PlanState::Unanswered, reason, app.now()).await?;
    }
    Ok(())
}

/// What to do about the open plan on a link where nothing is to be offered.
#[derive(Debug)]
pub enum Due {
    Send(PlanRequest),
    /// It ended without being sent; pages have to show it.
    Ended,
}

/// The plan to push now, once, when no attempt runs. `knows_plans`: the device's agent said that it does.
pub async fn next_plan(app: &App, device: &Device, knows_plans: bool) -> Result<Option<Due>, Failure> {
    let mut tx = app.db.read().await?;
    let Some(runbook) = of_device(&mut tx, device.id).await? else { return Ok(None) };
    let open = store::open(&mut tx, runbook.id).await?;
    let now = app.now();
    if open.is_none_or(|open| open.state == PlanState::Sent && !open.is_overdue(now)) {
        return Ok(None);
    }
    drop(tx);
    let mut tx = app.db.write().await?;
    let Some(open) = store::open(&mut tx, runbook.id).await? else { return Ok(None) };
    let ends_as = match (open.is_overdue(now), knows_plans) {
        (true, _) => Some(PlanState::Unanswered),
        (false, false) => Some(PlanState::TooOld),
        (false, true) => None,
    };
    if let Some(state) = ends_as {
        let reason = open.unsent().filter(|_| state == PlanState::Unanswered);
        store::end(&mut tx, open.id, open.state, state, reason, now).await?;
        tx.commit().await?;
        return Ok(Some(Due::Ended));
    }
    let running = steps(&mut tx, runbook.id).await?.iter().any(Step::runs_on_device);
    if running || store::send(&mut tx, open.id, now).await? != 1 {
        return Ok(None);
    }
    let name = |step: PlanStep| StepName { component: step.component_key, step: step.step_key };
    let asked = store::steps(&mut tx, open.id).await?.into_iter().map(name).collect();
    let params = clients::scope(&mut tx, device.client_id).await?.all_params();
    tx.commit().await?;
    Ok(Some(Due::Send(PlanRequest {
        plan_id: open.id,
        bundle_digest: runbook.bundle_digest,
        steps: asked,
        params,
    })))
}

/// The device looked at one step. The first word about a step counts.
pub async fn apply_step(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    planned: &PlannedStep,
) -> Result<(), ApplyError> {
    let plan = store::of_device(tx, device.id, planned.plan_id).await?.ok_or(ApplyError::UnknownPlan)?;
    let steps = store::steps(tx, plan.id).await?;
    let is_it = |step: &&PlanStep| step.component_key == planned.component && step.step_key == planned.step;
    let step = steps.iter().find(is_it).ok_or(ApplyError::UnknownPlan)?;
    store::answer(tx, plan.id, step.step_id, planned.answer.into(), &planned.found).await?;
    store::heard(tx, plan.id, app.now()).await?;
    Ok(())
}

pub async fn apply_plan_ended(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    ended: &PlanEnded,
) -> Result<(), ApplyError> {
    let plan = store::of_device(tx, device.id, ended.plan_id).await?.ok_or(ApplyError::UnknownPlan)?;
    let state = if ended.stopped.is_some() { PlanState::Stopped } else { PlanState::Done };
    // A device that was given up, or is to be asked again, may come back with the whole answer.
    for from in [PlanState::Asked, PlanState::Sent, PlanState::Unanswered] {
        store::end(tx, plan.id, from, state, ended.stopped.as_deref(), app.now()).await?;
    }
    Ok(())
}
