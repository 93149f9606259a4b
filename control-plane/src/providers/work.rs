//! Who does it: a task of every replica that looks when something changed, and now and then by itself. The database says
//! which of them acts.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::ids::ClientId;

use super::ending::Ending;
use super::make::{Maker, job};
use super::{COMPONENT, ClientKey, DEFAULT_LIMIT_MICROS, KeyState, ProviderError, SLOT, api, read, store};
use crate::app::App;
use crate::error::Failure;
use crate::freeze;
use crate::jobs::Wake;
use crate::runbook::{self, BoardStep, StepState};
use crate::secrets::{self, BoardSecret};

const LOOK: Duration = Duration::from_secs(15);

/// Works until it is dropped. Whatever it was at then goes on after [`super::make::held`].
pub async fn serve(app: App) {
    let mut changes = app.jobs.listen();
    let mut ending = Ending::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = changes.next(|wake| {
                matches!(wake, Wake::Client(_) | Wake::Device(_) | Wake::EngagementEnded(_))
            }) => {}
            _ = look.tick() => {
                if let Err(error) = read::due(&app).await {
                    log("the numbers of OpenRouter's keys can't be read", &error);
                }
            }
        }
        if let Err(error) = ending.look(&app).await {
            log("keys that are to end can't be looked for", &error);
        }
        if let Err(error) = work(&app).await {
            log("clients' keys at OpenRouter can't be looked after", &error);
        }
    }
}

/// What a provider or a missing key has to say stands where people look, too.
fn log(what: &str, error: &ProviderError) {
    match error {
        ProviderError::Failure(failure) => {
            tracing::error!(kind = failure.public.kind, error = ?failure.internal, "{what}");
        }
        ProviderError::NoManagementKey
        | ProviderError::Api(_)
        | ProviderError::Lost
        | ProviderError::NoSlot
        | ProviderError::NoKey
        | ProviderError::Secret(_) => tracing::error!(%error, "{what}"),
    }
}

/// One look: steps whose turn it is, keys that are to be made, steps that are over by it.
pub(super) async fn work(app: &App) -> Result<(), ProviderError> {
    let mut tx = app.db.read().await?;
    if freeze::is_on(&mut tx).await? {
        return Ok(());
    }
    let steps = own(runbook::boards_steps(&mut tx).await?);
    let unfinished = store::unfinished(&mut tx, app.now()).await?;
    drop(tx);
    for step in &steps {
        turn(app, step).await?;
    }
    if steps.is_empty() && unfinished.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.read().await?;
    let unfinished = store::unfinished(&mut tx, app.now()).await?;
    drop(tx);
    for client_id in unfinished {
        if let Some(maker) = Maker::claim(app, client_id).await? {
            finish(&maker).await?;
            app.jobs.wake(Wake::Client(client_id));
        }
    }
    let mut tx = app.db.read().await?;
    let steps = own(runbook::boards_steps(&mut tx).await?);
    drop(tx);
    for step in &steps {
        turn(app, step).await?;
    }
    Ok(())
}

fn own(mut steps: Vec<BoardStep>) -> Vec<BoardStep> {
    steps.retain(|step| step.component_key == COMPONENT);
    steps
}

async fn finish(maker: &Maker<'_>) -> Result<(), ProviderError> {
    let done = match api(maker.app, job(), "a client's key is made").await {
        Ok(api) => maker.make(&api).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) | Err(ProviderError::Lost) => Ok(()),
        // The database is in trouble: what was asked for is found when the hold is over.
        Err(error @ (ProviderError::Secret(_) | ProviderError::Failure(_))) => Err(error),
        Err(
            error @ (ProviderError::NoManagementKey
            | ProviderError::Api(_)
            | ProviderError::NoSlot
            | ProviderError::NoKey),
        ) => {
            tracing::warn!(client_id = %maker.client_id, %error, "a client's key at OpenRouter was not made");
            Ok(maker.fail(&error).await?)
        }
    }
}

/// How a client's slot and key stand, for its steps.
struct Standing {
    filled: bool,
    managed: bool,
    key: Option<ClientKey>,
}

impl Standing {
    async fn of(tx: &mut crate::db::Tx, client_id: ClientId) -> Result<Self, sqlx::Error> {
        let stored: BTreeSet<(String, String)> = secrets::stored_slots(tx, client_id).await?;
        Ok(Self {
            filled: stored.contains(&(COMPONENT.to_owned(), SLOT.to_owned())),
            managed: secrets::stored_board(tx, BoardSecret::OpenRouterManagement).await?.is_some(),
            key: store::key(tx, client_id).await?,
        })
    }
}

/// Moves one step as far as it can go now.
async fn turn(app: &App, step: &BoardStep) -> Result<(), ProviderError> {
    let mut tx = app.db.write().await?;
    let standing = Standing::of(&mut tx, step.client_id).await?;
    let state = standing.key.as_ref().map(|key| key.state);
    let making = matches!(state, Some(KeyState::Planned | KeyState::Asked | KeyState::Made));
    match step.state {
        StepState::Waiting if standing.filled || standing.managed => {
            runbook::wake_waiting(app, &mut tx, step.device_id).await?;
            let steps = runbook::boards_steps(&mut tx).await?;
            if steps.iter().any(|one| one.id == step.id && one.state == StepState::Waiting) {
                return Ok(());
            }
            if !standing.filled {
                begin(app, &mut tx, step).await?;
            }
            tx.commit().await?;
        }
        StepState::Ready | StepState::Running if standing.filled && !making => {
            runbook::end_boards(app, &mut tx, job(), step, Ok(())).await?;
            tx.commit().await?;
        }
        StepState::Ready if standing.managed => {
            begin(app, &mut tx, step).await?;
            tx.commit().await?;
        }
        StepState::Ready => {
            runbook::rest_boards(app, &mut tx, step).await?;
            tx.commit().await?;
        }
        StepState::Running if !making => {
            let trouble = standing.key.and_then(|key| key.trouble);
            let found =
                trouble.unwrap_or_else(|| "The key was called off. Try again to make one.".to_owned());
            runbook::end_boards(app, &mut tx, job(), step, Err(&found)).await?;
            tx.commit().await?;
        }
        StepState::Waiting
        | StepState::Running
        | StepState::Blocked
        | StepState::Offered
        | StepState::Succeeded
        | StepState::Failed
        | StepState::Interrupted
        | StepState::Cancelled
        | StepState::Skipped => return Ok(()),
    }
    app.jobs.wake(Wake::Device(step.device_id));
    app.jobs.wake(Wake::Client(step.client_id));
    Ok(())
}

/// The key is planned and the step runs, in one transaction.
async fn begin(app: &App, tx: &mut crate::db::Tx, step: &BoardStep) -> Result<(), Failure> {
    if runbook::begin_boards(app, tx, step).await? {
        store::plan(tx, step.client_id, DEFAULT_LIMIT_MICROS, app.now()).await?;
    }
    Ok(())
}
