//! What to do about a plan: run the checks that can be run now, and say of the others why not. An attempt comes first:
//! a plan never starts while there is one, and ends when one has to start.

use std::time::Instant;

use shared::catalog::{Manifest, Step};
use shared::ids::PlanId;
use shared::protocol::link::ReportBody;
use shared::protocol::plan::{PlanEnded, PlanRequest, Planned, StepName};

use super::offers::{Verdict, bad_params};
use super::{Effect, Engine};
use crate::bundles::Catalog;
use crate::steps::Look;

/// One step of a plan that begins.
#[derive(Clone, Debug)]
pub struct Looking {
    pub component: String,
    pub step: String,
    pub todo: Todo,
}

#[derive(Clone, Debug)]
pub enum Todo {
    Look(Box<Look>),
    /// Known without looking.
    Say(Planned, String),
}

impl Engine {
    pub(super) fn plan(&mut self, request: PlanRequest, now: Instant, effects: &mut Vec<Effect>) {
        let id = request.plan_id;
        let waiting = self.waiting_plan.as_ref().map(|waiting| waiting.plan_id);
        if self.planning == Some(id) || waiting == Some(id) {
            return;
        }
        if self.planning.is_some() || waiting.is_some() {
            plan_stopped(id, "another plan is under way", effects);
        } else if self.running.is_some() || !self.recovering.is_empty() {
            plan_stopped(id, "a step was running, and it comes first", effects);
        } else if let Some(catalog) = self.catalogs.get(&request.bundle_digest) {
            let catalog = std::sync::Arc::clone(catalog);
            let looking = request.steps.iter().map(|name| self.looking(&catalog, &request, name, now));
            let steps = looking.collect();
            self.planning = Some(id);
            effects.push(Effect::StartPlan { plan_id: id, steps });
        } else {
            self.fetch(&request.bundle_digest, effects);
            self.waiting_plan = Some(request);
        }
    }

    /// The bundle that a plan waited for is here, or can't be had.
    pub(super) fn plan_bundle(
        &mut self,
        digest: &str,
        failed: Option<&str>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(request) = self.waiting_plan.take_if(|request| request.bundle_digest == digest) else {
            return;
        };
        match failed {
            Some(reason) => plan_stopped(request.plan_id, reason, effects),
            None => self.plan(request, now, effects),
        }
    }

    /// An attempt has to start. Whether it must wait until the plan has ended.
    pub(super) fn plan_gives_way(&mut self, effects: &mut Vec<Effect>) -> bool {
        if let Some(request) = self.waiting_plan.take() {
            plan_stopped(request.plan_id, GAVE_WAY, effects);
        }
        if self.planning.is_some() {
            effects.push(Effect::StopPlan);
        }
        self.planning.is_some()
    }

    pub(super) fn plan_ended(&mut self, ended: PlanEnded, now: Instant, effects: &mut Vec<Effect>) {
        if self.planning == Some(ended.plan_id) {
            self.planning = None;
        }
        effects.push(Effect::Report(ReportBody::PlanEnded(ended)));
        for waiting in std::mem::take(&mut self.waiting) {
            self.offer(waiting, now, effects);
        }
    }

    /// For the hello: what is under way, or waits for its bundle.
    pub fn plans(&self) -> Vec<PlanId> {
        let waiting = self.waiting_plan.as_ref().map(|waiting| waiting.plan_id);
        self.planning.into_iter().chain(waiting).collect()
    }

    fn looking(&self, catalog: &Catalog, request: &PlanRequest, name: &StepName, now: Instant) -> Looking {
        let StepName { component, step } = name.clone();
        let say = |answer, reason| Todo::Say(answer, reason);
        let todo = match self.find(catalog, &component, &step, now) {
            Err(reason) => say(Planned::Unknown, reason),
            Ok((manifest, written)) => self.todo(manifest, written, request),
        };
        Looking { component, step, todo }
    }

    fn todo(&self, manifest: &Manifest, step: &Step, request: &PlanRequest) -> Todo {
        let params = request.params.get(&manifest.key).cloned().unwrap_or_default();
        if let Some(reason) = self.unfit(manifest, step).or_else(|| bad_params(manifest, &params)) {
            return Todo::Say(Planned::Unknown, reason);
        }
        let Some(check) = &step.check else { return Todo::Say(Planned::NoCheck, String::new()) };
        if let Some(reason) = reads_a_secret(step, check) {
            return Todo::Say(Planned::NotYet, reason);
        }
        match self.unmet(step) {
            Some(Verdict::NotYet(reason)) => Todo::Say(Planned::NotYet, reason),
            Some(Verdict::Refused(reason)) => Todo::Say(Planned::Unknown, reason),
            Some(Verdict::NeedsBundle | Verdict::Fits(_)) | None => {
                let downloads = self.downloads(manifest);
                Todo::Look(Box::new(Look::new(&manifest.key, step, check, downloads, params)))
            }
        }
    }
}

pub const GAVE_WAY: &str = "a step had to run, and it comes first";

fn plan_stopped(plan_id: PlanId, reason: &str, effects: &mut Vec<Effect>) {
    let ended = PlanEnded { plan_id, stopped: Some(reason.to_owned()) };
    effects.push(Effect::Report(ReportBody::PlanEnded(ended)));
}

/// Without the secret the check would say something, but nothing true. Wrappers are there to hand out secrets.
fn reads_a_secret(step: &Step, check: &str) -> Option<String> {
    if let Some(secret) = step.secrets.first() {
        return Some(format!("its check may read {}, and a plan opens no secret", secret.slot));
    }
    let wrapped = check.contains("BOARD_WRAPPERS");
    wrapped.then(|| "its check names a program that reads a secret, and a plan opens none".to_owned())
}
