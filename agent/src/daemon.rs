//! The daemon: performs what the engine decides, one event after the other. Everything slow runs beside it.

mod beside;
mod checks;
mod deliveries;
mod effects;
mod joined;
mod linking;
mod opening;
mod planning;
mod releasing;
mod renewing;
mod tidying;
mod trusting;
mod wiping;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use shared::catalog::{Need, Platform};
use shared::protocol::enroll::Enrolled;
use shared::protocol::inventory::ComponentReport;
use shared::protocol::link::{FromBoard, ReportBody, Scope};
use shared::protocol::plan::{PlanEnded, PlannedStep};
use shared::protocol::steps::{AttemptEnded, Outcome, OutputChunk};
use shared::random::Random;
use shared::time::Clock;
use tokio::sync::{OwnedRwLockWriteGuard, mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::broker::{self, Current, LeaveAsked, Paste};
use crate::bundles::{Catalog, Shelf};
use crate::config::{ConfigError, Identity, Paths};
use crate::engine::{Engine, Event, Needs, Refusal};
use crate::inventory::Inventory;
use crate::journal::{Journal, JournalError};
use crate::keyring::Held;
use crate::link::{self, InUse, LinkEvent};
use crate::outbound::StandIn;
use crate::platform::{self, Met};
use crate::release::{NotReady, OnTrial, Ready};
use crate::renew::RenewError;
use crate::status::Live;
use crate::steps::Context;
use crate::steps::run::Launcher;
use crate::tls::{Board, TlsError};
use crate::trust::TrustError;
use crate::undos::Right;
use crate::vault::{DeviceKeys, StoreError};
use crate::verify::{Due, Finding, Memory};

pub use joined::joined;
use linking::LinkState;
use releasing::Releasing;
use renewing::Renewal;

const HOURLY: Duration = Duration::from_secs(3600);

pub struct Options {
    pub paths: Paths,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub launcher: Launcher,
    /// For tests: what plays the providers.
    pub stand_in: Option<StandIn>,
    /// This program is new and has to prove itself.
    pub on_trial: Option<OnTrial>,
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Broker(#[from] broker::BindError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the device's keys are missing from the store: remove the data folder and join again")]
    NoKeys,
    #[error("the receipt of a wipe can't be signed")]
    Sign,
    #[error("this operating system is not supported")]
    Platform,
    #[error("only root can run steps as {0}: start the agent as root, or as that user")]
    OtherUser(String),
    #[error("a stand-in for the outside is for agents that joined with --dev; this one did not")]
    StandIn,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What the things beside the loop come back with.
enum Happened {
    Bundle { digest: String, result: Result<Arc<Catalog>, Refusal>, keys: u64 },
    Prepared { digest: String, result: Result<Ready, NotReady> },
    Ended(AttemptEnded),
    Planned(PlannedStep),
    PlanEnded(PlanEnded),
    Looked(Option<Vec<ComponentReport>>),
    Asked { due: Due, finding: Option<Finding> },
    Renewed(Result<Enrolled, RenewError>, OwnedRwLockWriteGuard<()>),
}

struct Daemon {
    paths: Paths,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    identity: Arc<Identity>,
    keys: DeviceKeys,
    platform: Platform,
    machine: OnceLock<(String, String)>,
    /// Where the board is and what we show to it; the link follows its changes.
    board: watch::Sender<Board>,
    in_use: InUse,
    renewal: Renewal,
    shelf: Shelf,
    held: Held,
    /// How often the keys that are believed changed since the start.
    key_changes: u64,
    releasing: Releasing,
    journal: Arc<Journal>,
    context: Context,
    current: Arc<RwLock<Current>>,
    engine: Engine,
    scope: Scope,
    live: Live,
    link: Option<LinkState>,
    happened: mpsc::Sender<Happened>,
    chunks: mpsc::Sender<OutputChunk>,
    stop_steps: watch::Receiver<bool>,
    steps_running: usize,
    /// Ends the plan that is under way.
    planning: Option<watch::Sender<bool>>,
    looking: bool,
    look_again: bool,
    last_inventory: Option<Inventory>,
    report_anyway: bool,
    memory: Memory,
    /// Questions to providers that are under way.
    asking: BTreeSet<Due>,
    /// The device left its board: nothing is to be done any more.
    over: bool,
}

/// Runs until `stop` says so.
pub async fn run(options: Options, mut stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
    let (happened, happenings) = mpsc::channel(64);
    let (chunks, output) = mpsc::channel(256);
    let (pastes, pasted) = mpsc::channel(1);
    let (leaves, leaving) = mpsc::channel(1);
    let (link_events, from_link) = mpsc::channel(64);
    // Said when the loop ends, whether it was told to or failed.
    let (ending, ends) = watch::channel(false);
    let mut daemon = Daemon::open(options, happened, chunks, ends.clone())?;
    let mut inbox = Inbox { from_link, output, happenings, pasted, leaving };

    let broker = tokio::spawn(daemon.broker(pastes, leaves)?);
    let link = tokio::spawn(link::hold(
        daemon.board.subscribe(),
        Arc::clone(&daemon.in_use),
        link_events,
        Arc::clone(&daemon.random),
        ends,
    ));
    let worked = work(&mut daemon, &mut inbox, &mut stop).await;
    match &worked {
        Ok(()) => tracing::info!("stopping"),
        Err(error) => tracing::error!(%error, "the agent can't go on; stopping"),
    }
    ending.send_replace(true);
    daemon.wind_down(inbox).await;
    broker.abort();
    let _ = tokio::time::timeout(Duration::from_secs(3), link).await;
    let _ = std::fs::remove_file(daemon.paths.socket());
    worked
}

/// What comes to the loop.
struct Inbox {
    from_link: mpsc::Receiver<LinkEvent>,
    output: mpsc::Receiver<OutputChunk>,
    happenings: mpsc::Receiver<Happened>,
    pasted: mpsc::Receiver<Paste>,
    leaving: mpsc::Receiver<LeaveAsked>,
}

async fn work(
    daemon: &mut Daemon,
    inbox: &mut Inbox,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    let Inbox { from_link, output, happenings, pasted, leaving } = inbox;
    daemon.begin()?;

    let mut hourly = tokio::time::interval_at(tokio::time::Instant::now() + HOURLY, HOURLY);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backlog = tokio::time::interval(Duration::from_millis(100));
    backlog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewal = tokio::time::interval(renewing::LOOK);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut link_alive = true;
    let mut releasing = tokio::time::interval(releasing::LOOK);
    releasing.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() && !daemon.over {
        tokio::select! {
            event = from_link.recv(), if link_alive => match event {
                Some(event) => daemon.link_event(event)?,
                None => link_alive = false,
            },
            Some(chunk) = output.recv() => daemon.output(chunk, output)?,
            Some(what) = happenings.recv() => daemon.happened(what, output)?,
            Some(paste) = pasted.recv() => daemon.pasted(paste)?,
            Some(asked) = leaving.recv() => daemon.leave(asked),
            _ = hourly.tick() => {
                daemon.report_anyway = true;
                daemon.look();
            }
            _ = renewal.tick() => daemon.renew_in_time(),
            _ = releasing.tick(), if daemon.has_release() => if daemon.release()? { break },
            _ = backlog.tick(), if daemon.has_backlog() => daemon.pump()?,
            changed = stop.changed() => if changed.is_err() { break },
        }
    }
    Ok(())
}

impl Daemon {
    fn begin(&mut self) -> Result<(), DaemonError> {
        tracing::info!(device = %self.identity.device_id, board = %self.identity.board, "the agent runs");
        self.tell_of_failed()?;
        let effects = self.engine.start();
        self.perform_all(effects)?;
        self.go_on_wiping()?;
        for attempt in self.journal.attempts()?.into_iter().filter(|attempt| attempt.last.is_none()) {
            tracing::warn!(attempt = %attempt.offer.attempt_id, "an attempt was interrupted; finding out how far it got");
            self.engine_event(Event::Recover(attempt))?;
        }
        Ok(())
    }

    fn engine_event(&mut self, event: Event) -> Result<(), DaemonError> {
        if may_start_something(&event) {
            let needed = self.engine.needed_by(&event);
            let met = |need| match needed.contains(&need) {
                true => platform::met(need, &self.identity.managed_user),
                false => Met::Unknown("nobody has looked".to_owned()),
            };
            let undo = Right::now(&self.journal.undos()?, &self.paths, self.clock.now());
            let needs = Needs { fda: met(Need::Fda), gui: met(Need::Gui), undo };
            self.engine.on(Event::Needs(needs), Instant::now());
        }
        let effects = self.engine.on(event, Instant::now());
        self.perform_all(effects)
    }

    fn output(
        &mut self,
        first: OutputChunk,
        more: &mut mpsc::Receiver<OutputChunk>,
    ) -> Result<(), DaemonError> {
        let mut bodies = vec![ReportBody::Output(first)];
        while let Ok(chunk) = more.try_recv() {
            bodies.push(ReportBody::Output(chunk));
        }
        self.report(bodies)
    }

    fn happened(
        &mut self,
        what: Happened,
        output: &mut mpsc::Receiver<OutputChunk>,
    ) -> Result<(), DaemonError> {
        match what {
            // Verified by keys that may not be believed any more.
            Happened::Bundle { digest, keys, .. } if keys != self.key_changes => {
                self.fetch(digest);
                Ok(())
            }
            Happened::Bundle { digest, result, .. } => self.engine_event(Event::Bundle { digest, result }),
            Happened::Prepared { digest, result } => self.prepared(&digest, result),
            Happened::Ended(ended) => {
                self.steps_running -= 1;
                // Its output was sent before its end, and is reported before it.
                if let Ok(first) = output.try_recv() {
                    self.output(first, output)?;
                }
                if ended.outcome == Outcome::Interrupted && *self.stop_steps.borrow() {
                    // It stays unfinished in the journal: the next start goes on with it.
                    return Ok(());
                }
                tracing::info!(attempt = %ended.attempt_id, outcome = ?ended.outcome, "ended");
                self.engine_event(Event::AttemptEnded(ended))?;
                self.tidy()
            }
            Happened::Planned(planned) => self.engine_event(Event::Planned(planned)),
            Happened::PlanEnded(ended) => self.plan_ended(ended),
            Happened::Looked(components) => self.looked(components),
            Happened::Asked { due, finding } => self.asked(due, finding),
            Happened::Renewed(result, _guard) => self.renewed(result),
        }
    }

    /// Lets what must not be killed finish, and waits until the rest is ended. A journal that fails doesn't end it sooner:
    /// what it doesn't know is found out after the next start.
    async fn wind_down(&mut self, inbox: Inbox) {
        let Inbox { mut output, mut happenings, pasted, leaving, from_link } = inbox;
        // Whoever pastes is told at once that nothing was changed, and the link has nobody to wait for.
        drop((pasted, leaving, from_link));
        self.stop_plan();
        while self.steps_running > 0 || self.planning.is_some() {
            let done = tokio::select! {
                Some(chunk) = output.recv() => self.output(chunk, &mut output),
                Some(what) = happenings.recv() => match what {
                    Happened::Ended(_) => self.happened(what, &mut output),
                    // Nothing that waited for it starts any more.
                    Happened::PlanEnded(ended) => {
                        self.planning = None;
                        self.report(vec![ReportBody::PlanEnded(ended)])
                    }
                    Happened::Bundle { .. }
                    | Happened::Prepared { .. }
                    | Happened::Planned(_)
                    | Happened::Looked(_)
                    | Happened::Asked { .. }
                    | Happened::Renewed(..) => Ok(()),
                },
            };
            if let Err(error) = done {
                tracing::error!(%error, "a report is lost");
            }
        }
    }
}

/// Whether an offer may be judged because of it.
fn may_start_something(event: &Event) -> bool {
    match event {
        Event::Frame(FromBoard::Offer(_) | FromBoard::Plan(_))
        | Event::PlanEnded(_)
        | Event::Recover(_)
        | Event::Bundle { .. }
        | Event::AttemptEnded(_) => true,
        Event::Frame(
            FromBoard::Welcome(_)
            | FromBoard::Deliver(_)
            | FromBoard::Paste(_)
            | FromBoard::Ack { .. }
            | FromBoard::Scope(_)
            | FromBoard::Wipe(_)
            | FromBoard::Ca(_)
            | FromBoard::Head(_)
            | FromBoard::Keys { .. }
            | FromBoard::Release(_)
            | FromBoard::Unknown,
        )
        | Event::LinkDown
        | Event::Needs(_)
        | Event::Planned(_)
        | Event::Stored { .. }
        | Event::Pasted { .. } => false,
    }
}
