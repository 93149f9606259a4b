//! The look of a plan: the `check` of one step, and nothing else of it. It opens no secret, fetches nothing and leaves
//! nothing behind.

use std::collections::BTreeMap;

use shared::catalog::{Download, Platform, Step, cached_names};
use shared::ids::AttemptId;
use shared::protocol::plan::Planned;
use tokio::sync::watch;

use super::mask::Masks;
use super::{Attempt, Context, Plan, StepError};
use crate::downloads::{self, Downloads};
use crate::platform::Mark;

/// A step without everything that could change something.
#[derive(Clone, Debug)]
pub struct Look {
    component: String,
    step: Step,
    check: String,
    downloads: Vec<Download>,
    params: BTreeMap<String, String>,
}

impl Look {
    pub fn new(
        component: &str,
        step: &Step,
        check: &str,
        downloads: Vec<Download>,
        params: BTreeMap<String, String>,
    ) -> Self {
        let mut step = step.clone();
        step.run = None;
        step.verify = None;
        step.undo = None;
        step.secrets.clear();
        // What only looks can be ended at any time.
        step.cancellable = true;
        Self { component: component.to_owned(), step, check: check.to_owned(), downloads, params }
    }
}

/// What the step's `check` says; `None` when it was stopped. `id` marks its processes.
pub async fn look(
    look: &Look,
    id: AttemptId,
    context: &Context,
    stop: watch::Receiver<bool>,
) -> Option<(Planned, String)> {
    let plan = Plan {
        attempt_id: id,
        component: look.component.clone(),
        step: look.step.clone(),
        wrappers: Vec::new(),
        downloads: Vec::new(),
        params: look.params.clone(),
        rerun: false,
        undo: false,
        resume: false,
        next_chunk: 0,
    };
    let mark = Mark::of(&context.paths, id);
    let mut attempt = Attempt { plan: &plan, context, mark, stop, exit_code: None, left: None };
    let looked = attempt.check_only(look).await;
    attempt.mark.remove();
    match looked {
        Ok(answer) => Some(answer),
        Err(StepError::Stopping) => None,
        Err(error) => Some((Planned::Unknown, error.to_string())),
    }
}

impl Attempt<'_> {
    async fn check_only(&mut self, look: &Look) -> Result<(Planned, String), StepError> {
        if *self.stop.borrow() {
            return Err(StepError::Stopping);
        }
        if let Some(name) = self.not_fetched(look).await? {
            let reason = format!("its check needs {name}, which is fetched when the step runs");
            return Ok((Planned::NotYet, reason));
        }
        let (environment, _no_files) = self.environment()?;
        let masks = Masks::new(&self.context.vault.values()?);
        self.mark.make().map_err(StepError::Mark)?;
        let looked = self.look("check", &look.check, &environment, &masks).await?;
        let answer = match (looked.so, looked.answered) {
            (true, _) => Planned::AlreadySo,
            (false, true) => Planned::WouldRun,
            (false, false) => Planned::Unknown,
        };
        Ok((answer, looked.found))
    }

    /// The first file that the check names and that isn't here as the publisher signed for it.
    async fn not_fetched<'l>(&self, look: &'l Look) -> Result<Option<&'l str>, StepError> {
        let Context { outbound, paths, .. } = self.context;
        let downloads = Downloads {
            outbound,
            folder: &paths.cache(),
            platform: Platform::current().unwrap_or(Platform::Linux),
            largest: downloads::LARGEST,
        };
        for name in cached_names(&look.check) {
            let declared = look.downloads.iter().find(|download| download.name == name);
            match declared {
                Some(download) if downloads.is_there(download).await? => {}
                Some(_) | None => return Ok(Some(name)),
            }
        }
        Ok(None)
    }
}
