//! A plan, beside the daemon's loop: one look after the other, until all were made or an attempt has to start.

use shared::ids::{AttemptId, PlanId};
use shared::protocol::plan::{PlanEnded, PlannedStep};
use tokio::sync::watch;

use super::{Daemon, DaemonError, Happened};
use crate::engine::{Event, GAVE_WAY, Looking, Todo};
use crate::steps;

impl Daemon {
    pub(super) fn start_plan(&mut self, plan_id: PlanId, looking: Vec<Looking>) {
        tracing::info!(plan = %plan_id, steps = looking.len(), "planning");
        let (stop, stopped) = watch::channel(false);
        self.planning = Some(stop);
        let mark = AttemptId::new(&*self.clock, &*self.random);
        let (context, stopping) = (self.context.clone(), self.stop_steps.clone());
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let mut ended = PlanEnded { plan_id, stopped: None };
            for Looking { component, step, todo } in looking {
                let said = match todo {
                    Todo::Say(answer, reason) => Some((answer, reason)),
                    Todo::Look(look) => steps::look(&look, mark, &context, stopped.clone()).await,
                };
                let Some((answer, found)) = said else {
                    let by_agent = *stopping.borrow();
                    let why = if by_agent { "the agent was stopped" } else { GAVE_WAY };
                    ended.stopped = Some(why.to_owned());
                    break;
                };
                let planned = PlannedStep { plan_id, component, step, answer, found };
                // Only a stopping daemon doesn't listen.
                let _ = happened.send(Happened::Planned(planned)).await;
            }
            let _ = happened.send(Happened::PlanEnded(ended)).await;
        });
    }

    pub(super) fn stop_plan(&self) {
        if let Some(stop) = &self.planning {
            stop.send_replace(true);
        }
    }

    pub(super) fn plan_ended(&mut self, ended: PlanEnded) -> Result<(), DaemonError> {
        self.planning = None;
        tracing::info!(plan = %ended.plan_id, stopped = ended.stopped, "the plan ended");
        self.engine_event(Event::PlanEnded(ended))
    }
}
