//! One attempt of one step: `check`, `run`, `verify`, as the managed user.
//!
//! The exit code of `run` proves nothing; `verify` decides. What may run at all was decided by the engine before.

pub mod environment;
mod leftovers;
mod look;
pub mod mask;
pub mod output;
pub mod run;
pub mod run_as;
mod secret_files;
mod undo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::catalog::{As, Download, Need, Output, Platform, SecretForm, Step, Wrapper, cached_names};
use shared::ids::AttemptId;
use shared::protocol::steps::{AttemptEnded, Outcome, OutputChunk};
use shared::random::SystemRandom;
use tokio::sync::{mpsc, watch};

use crate::config::{Identity, ManagedUser, Paths};
use crate::downloads::{self, DownloadError, Downloads, Provided};
use crate::outbound::Outbound;
use crate::platform::{self, Mark};
use crate::vault::{StoreError, Vault};
use environment::Environment;
use leftovers::Settled;
use mask::Masks;
use output::{ChunkSink, Sink, Tail};
use run::{Ended, Launcher, RunError};
use run_as::RunSpec;

pub use look::{Look, look};
pub use secret_files::sweep;

/// How long a `check` or `verify` may take: they only look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// What an attempt is to do. Nothing in it comes from the board but the parameters, and those fit the manifest.
#[derive(Clone, Debug)]
pub struct Plan {
    pub attempt_id: AttemptId,
    pub component: String,
    pub step: Step,
    /// The component's wrappers: they are written before it starts.
    pub wrappers: Vec<Wrapper>,
    /// The component's, for this platform: those that a script names are fetched before it starts.
    pub downloads: Vec<Download>,
    pub params: BTreeMap<String, String>,
    /// Its effect was there before: only running it again brings the secret's new version into it.
    pub rerun: bool,
    /// Its effect is to be taken back.
    pub undo: bool,
    /// The agent was killed while it ran: find out what is so first.
    pub resume: bool,
    pub next_chunk: u64,
}

/// Everything that running needs and that doesn't change between attempts.
#[derive(Clone)]
pub struct Context {
    pub launcher: Launcher,
    pub outbound: Outbound,
    pub paths: Paths,
    pub identity: Arc<Identity>,
    pub vault: Arc<Vault>,
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Download(#[from] DownloadError),
    #[error("the secrets can't be put into files: {0}")]
    Files(#[from] std::io::Error),
    #[error("the mark of the attempt's processes can't be made: {0}")]
    Mark(#[source] std::io::Error),
    #[error("the value of {0} can't be given to a program as an environment variable; it is not text")]
    NotText(String),
    #[error("the agent is stopping")]
    Stopping,
}

/// Runs it to its end. Dropping `chunks`' receiver loses output, not the attempt.
pub async fn execute(
    plan: &Plan,
    context: &Context,
    chunks: mpsc::Sender<OutputChunk>,
    stop: watch::Receiver<bool>,
) -> AttemptEnded {
    let started = Instant::now();
    // Held until the attempt is over.
    let _awake = platform::stay_awake()
        .inspect_err(|error| tracing::debug!(%error, "the machine may fall asleep while this runs"));
    let mark = Mark::of(&context.paths, plan.attempt_id);
    let mut attempt = Attempt { plan, context, mark, stop, exit_code: None, left: None };
    let ended = if plan.undo { attempt.undo(chunks).await } else { attempt.go(chunks).await };
    let (outcome, found) = match ended {
        Ok(end) => end,
        Err(StepError::Stopping) => (Outcome::Interrupted, "the agent was stopped".to_owned()),
        Err(error) => (Outcome::Failed, error.to_string()),
    };
    if outcome != Outcome::Interrupted {
        attempt.mark.remove();
    }
    AttemptEnded {
        attempt_id: plan.attempt_id,
        outcome,
        exit_code: attempt.exit_code,
        found,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

struct Attempt<'a> {
    plan: &'a Plan,
    context: &'a Context,
    mark: Mark,
    stop: watch::Receiver<bool>,
    exit_code: Option<i32>,
    /// What became of the processes of a script that was ended.
    left: Option<Settled>,
}

/// What a `check` or `verify` said.
struct Looked {
    so: bool,
    /// It ended by itself: what it said is an answer.
    answered: bool,
    found: String,
}

impl Attempt<'_> {
    async fn go(&mut self, chunks: mpsc::Sender<OutputChunk>) -> Result<(Outcome, String), StepError> {
        let step = &self.plan.step;
        self.mark.make().map_err(StepError::Mark)?;
        // Before anything is made for it: what still runs could reach into that.
        let settled = if self.plan.resume { self.settle().await? } else { Settled::Gone };
        let (environment, _files) = self.environment()?;
        let masks = Masks::new(&self.context.vault.values()?);

        if self.plan.resume {
            // What an earlier attempt left looks the same.
            if let Some((name, script)) = look_of(step).filter(|_| !self.plan.rerun) {
                self.provide(&[Some(script)]).await?;
                let look = self.look(name, script, &environment, &masks).await?;
                if look.so {
                    return Ok((Outcome::Succeeded, look.found));
                }
            }
            if let Some(reason) = settled.in_the_way() {
                return Ok((
                    Outcome::Interrupted,
                    format!("the agent was stopped while this ran, the effect is not there, and {reason}"),
                ));
            }
            if !step.repeatable {
                return Ok((
                    Outcome::Interrupted,
                    match self.plan.rerun {
                        true => {
                            "the agent was stopped while this ran again, and how far it got can't be told"
                        }
                        false => "the agent was stopped while this ran, and the effect is not there",
                    }
                    .to_owned(),
                ));
            }
        } else if let Some(check) = step.check.as_ref().filter(|_| !self.plan.rerun) {
            self.provide(&[Some(check)]).await?;
            let look = self.look("check", check, &environment, &masks).await?;
            if look.so {
                return Ok((Outcome::AlreadySo, look.found));
            }
        }

        let fetched = self.provide(&[step.run.as_deref(), look_of(step).map(|(_, script)| script)]).await?;
        let mut ran = String::new();
        if let Some(script) = &step.run {
            let mut sink = ChunkSink::new(self.plan.attempt_id, self.plan.next_chunk, chunks);
            sink.push(&fetched).await;
            let sink: Option<&mut dyn Sink> = match step.output {
                Output::Shown => Some(&mut sink),
                Output::None => None,
            };
            let timeout = step.cancellable.then(|| step.timeout());
            let ended = self.run(script, &environment, timeout, &masks, sink).await?;
            ran = self.judge_run("run", ended)?;
            if let Ended::TimedOut = ended {
                let left = self.left.as_ref().and_then(Settled::in_the_way);
                return Ok((Outcome::Failed, left.map_or(ran.clone(), |left| format!("{ran}; {left}"))));
            }
        }

        let Some((name, script)) = look_of(step) else {
            return Ok((Outcome::Failed, "the manifest has no way to verify it".to_owned()));
        };
        let look = self.look(name, script, &environment, &masks).await?;
        if look.so {
            Ok((Outcome::Succeeded, look.found))
        } else {
            let found = if ran.is_empty() { look.found } else { format!("{}; {ran}", look.found) };
            Ok((Outcome::Failed, found))
        }
    }

    /// Fetches what these scripts name in the cache folder; says what it fetched.
    async fn provide(&self, scripts: &[Option<&str>]) -> Result<String, StepError> {
        let Context { outbound, paths, .. } = self.context;
        let named = |name: &str| {
            scripts.iter().flatten().any(|script| cached_names(script).any(|cached| cached == name))
        };
        let downloads = Downloads {
            outbound,
            folder: &paths.cache(),
            platform: Platform::current().unwrap_or(Platform::Linux),
            largest: downloads::LARGEST,
        };
        let mut said = String::new();
        for download in self.plan.downloads.iter().filter(|download| named(&download.name)) {
            let mut stop = self.stop.clone();
            let provided = tokio::select! {
                provided = downloads.provide(download) => provided?,
                Ok(_) = stop.wait_for(|stop| *stop) => return Err(StepError::Stopping),
            };
            if let Provided::Fetched(size) = provided {
                let Download { name, sha256, .. } = download;
                said.push_str(&format!("[fetched {name}: {size} bytes, SHA-256 {sha256}]\n"));
            }
        }
        Ok(said)
    }

    /// What `run` or `undo` came to, in words, unless it came to nothing worth saying.
    fn judge_run(&mut self, name: &str, ended: Ended) -> Result<String, StepError> {
        match ended {
            Ended::Exited(code) => {
                self.exit_code = Some(code);
                Ok(if code == 0 { String::new() } else { format!("{name} ended with exit code {code}") })
            }
            Ended::Signalled(signal) => Ok(format!("{name} was ended by signal {signal}")),
            Ended::TimedOut => Ok(format!(
                "{name} was not done after {} seconds and was ended",
                self.plan.step.timeout().as_secs()
            )),
            Ended::Stopped => Err(StepError::Stopping),
        }
    }

    async fn look(
        &mut self,
        name: &str,
        script: &str,
        environment: &Environment,
        masks: &Masks,
    ) -> Result<Looked, StepError> {
        let mut tail = Tail::new();
        let ended = self.run(script, environment, Some(LOOK_TIMEOUT), masks, Some(&mut tail)).await?;
        let how = match ended {
            Ended::Exited(0) => format!("{name} says that it is so"),
            Ended::Exited(code) => format!("{name} says that it is not so (exit code {code})"),
            Ended::Signalled(signal) => format!("{name} was ended by signal {signal}"),
            Ended::TimedOut => format!("{name} was not done after {} seconds", LOOK_TIMEOUT.as_secs()),
            Ended::Stopped => return Err(StepError::Stopping),
        };
        let saw = match self.plan.step.output {
            Output::Shown => tail.finish(),
            Output::None => String::new(),
        };
        let found = if saw.is_empty() { how } else { format!("{how}: {saw}") };
        let (so, answered) = (matches!(ended, Ended::Exited(0)), matches!(ended, Ended::Exited(_)));
        Ok(Looked { so, answered, found })
    }

    async fn run(
        &mut self,
        script: &str,
        environment: &Environment,
        timeout: Option<Duration>,
        masks: &Masks,
        sink: Option<&mut dyn Sink>,
    ) -> Result<Ended, StepError> {
        let mut spec = RunSpec::for_user(&self.user(), environment.clone(), script).marked(&self.mark);
        if self.plan.step.needs.contains(&Need::Gui) {
            spec = spec.in_session();
        }
        // A step that must not be killed is let finish, also when the agent stops.
        let stop = timeout.is_some().then(|| self.stop.clone());
        let ended = run::run(&self.context.launcher, spec, timeout, masks, sink, stop).await?;
        // What made a session of its own is not in the group that was ended. Of a step that must not be killed there
        // may be something left that its `run` started.
        let Step { cancellable, .. } = self.plan.step;
        if cancellable && matches!(ended, Ended::TimedOut | Ended::Stopped) {
            self.left = Some(leftovers::settle(&self.mark, cancellable, self.plan.step.timeout()).await);
        }
        Ok(ended)
    }

    /// What must not be killed is waited for only as long as the agent isn't to stop.
    async fn settle(&self) -> Result<Settled, StepError> {
        let Step { cancellable, .. } = self.plan.step;
        let settling = leftovers::settle(&self.mark, cancellable, self.plan.step.timeout());
        let mut stop = self.stop.clone();
        tokio::select! {
            settled = settling => Ok(settled),
            Ok(_) = stop.wait_for(|stop| *stop), if !cancellable => Err(StepError::Stopping),
        }
    }

    fn user(&self) -> ManagedUser {
        match self.plan.step.run_as {
            Some(As::Root) => environment::root(),
            Some(As::User | As::Board) | None => self.context.identity.managed_user.clone(),
        }
    }

    fn environment(&self) -> Result<(Environment, secret_files::Folder), StepError> {
        let Context { identity, paths, vault, .. } = self.context;
        let mut environment = Environment::from(match self.plan.step.run_as {
            Some(As::Root) => environment::of_root(paths),
            Some(As::User | As::Board) | None => environment::base(identity, paths),
        });
        environment.insert(run_as::ATTEMPT.to_owned(), self.plan.attempt_id.to_string());
        for (key, value) in &self.plan.params {
            environment.insert(format!("BOARD_PARAM_{key}"), value.clone());
        }
        let mut folder = secret_files::Folder::new(paths, &self.user(), &SystemRandom);
        for secret in &self.plan.step.secrets {
            let Some(held) = vault.read(&self.plan.component, &secret.slot)? else { continue };
            match secret.form {
                SecretForm::Env => {
                    let text = std::str::from_utf8(held.value.expose())
                        .ok()
                        .filter(|text| !text.contains('\0'))
                        .ok_or_else(|| StepError::NotText(secret.slot.clone()))?;
                    environment.insert(secret.slot.clone(), text.to_owned());
                }
                SecretForm::File => {
                    let path = folder.add(&secret.slot, &held.value)?;
                    environment
                        .insert(format!("BOARD_SECRET_FILE_{}", secret.slot), path.display().to_string());
                }
            }
        }
        folder.hand_over()?;
        Ok((environment, folder))
    }
}

/// What decides whether the step's effect is there: `verify`, else `check`.
fn look_of(step: &Step) -> Option<(&'static str, &str)> {
    match (&step.verify, &step.check) {
        (Some(verify), _) => Some(("verify", verify)),
        (None, Some(check)) => Some(("check", check)),
        (None, None) => None,
    }
}
