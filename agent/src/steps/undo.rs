//! Taking a step's effect back: its `undo`, and then what looks for the effect must not find it any more.

use shared::catalog::Output;
use shared::protocol::steps::{Outcome, OutputChunk};
use tokio::sync::mpsc;

use super::leftovers::Settled;
use super::mask::Masks;
use super::output::{ChunkSink, Sink};
use super::run::Ended;
use super::{Attempt, StepError};

impl Attempt<'_> {
    /// Finds out by `check` (`verify` where there is none) whether there is anything to take back, before and after: the exit
    /// code of `undo` proves as little as that of `run`.
    pub(super) async fn undo(
        &mut self,
        chunks: mpsc::Sender<OutputChunk>,
    ) -> Result<(Outcome, String), StepError> {
        let step = &self.plan.step;
        let by_check = step.check.as_deref().map(|script| ("check", script));
        let by_verify = step.verify.as_deref().map(|script| ("verify", script));
        let (Some(script), Some((name, look))) = (step.undo.as_deref(), by_check.or(by_verify)) else {
            return Ok((Outcome::Failed, "the manifest has no way to undo it".to_owned()));
        };
        self.mark.make().map_err(StepError::Mark)?;
        let settled = if self.plan.resume { self.settle().await? } else { Settled::Gone };
        let (environment, _no_files) = self.environment()?;
        let masks = Masks::new(&self.context.vault.values()?);
        let fetched = self.provide(&[Some(script), Some(look)]).await?;

        let before = self.look(name, look, &environment, &masks).await?;
        if before.answered && !before.so {
            // What a killed attempt took back was taken back by it.
            let outcome = if self.plan.resume { Outcome::Succeeded } else { Outcome::AlreadySo };
            return Ok((outcome, before.found));
        }
        if self.plan.resume {
            let in_the_way = settled.in_the_way();
            if let Some(reason) = in_the_way
                .or_else(|| (!step.repeatable).then(|| "the step is not one that may run twice".to_owned()))
            {
                let found = format!(
                    "the agent was stopped while this was undone, the effect is still there, and {reason}"
                );
                return Ok((Outcome::Interrupted, found));
            }
        }

        let mut sink = ChunkSink::new(self.plan.attempt_id, self.plan.next_chunk, chunks);
        sink.push(&fetched).await;
        let sink: Option<&mut dyn Sink> = match step.output {
            Output::Shown => Some(&mut sink),
            Output::None => None,
        };
        let timeout = step.cancellable.then(|| step.timeout());
        let ended = self.run(script, &environment, timeout, &masks, sink).await?;
        let ran = self.judge_run("undo", ended)?;
        if let Ended::TimedOut = ended {
            let left = self.left.as_ref().and_then(Settled::in_the_way);
            return Ok((Outcome::Failed, left.map_or(ran.clone(), |left| format!("{ran}; {left}"))));
        }
        let after = self.look(name, look, &environment, &masks).await?;
        if after.answered && !after.so {
            return Ok((Outcome::Succeeded, after.found));
        }
        let found = if ran.is_empty() { after.found } else { format!("{}; {ran}", after.found) };
        Ok((Outcome::Failed, found))
    }
}
