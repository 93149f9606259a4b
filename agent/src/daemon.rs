//! The daemon: performs what the engine decides, one event after the other. Everything slow runs beside it.

mod beside;
mod deliveries;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use shared::catalog::Platform;
use shared::ids::ReportId;
use shared::protocol::link::{FromAgent, Hello, Report, ReportBody, Scope, Welcome};
use shared::protocol::steps::{AttemptEnded, Offer, Outcome, OutputChunk};
use shared::random::Random;
use shared::time::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::broker::{self, Broker, Current};
use crate::bundles::{Catalog, Shelf};
use crate::config::{self, ConfigError, Identity, Paths};
use crate::engine::{Effect, Engine, Event, Known, Machine};
use crate::inventory::Inventory;
use crate::journal::{Attempt, Journal, JournalError};
use crate::link::{self, LinkEvent};
use crate::platform::{self, PlatformError};
use crate::status::Live;
use crate::steps::run::Launcher;
use crate::steps::{self, Context, environment};
use crate::tls::{Board, ClientIdentity, TlsError};
use crate::vault::{self, DeviceKeys, StoreError};
use crate::wrappers;

const HOURLY: Duration = Duration::from_secs(3600);
/// Clocks further apart than this are worth a warning.
const SKEW: Duration = Duration::from_secs(120);
/// Left free in the link's queue for refusals.
const SPARE: usize = 8;

pub struct Options {
    pub paths: Paths,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub launcher: Launcher,
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
    Machine(#[from] PlatformError),
    #[error(transparent)]
    Broker(#[from] broker::BindError),
    #[error("the device's keys are missing from the store: remove the data folder and join again")]
    NoKeys,
    #[error("this operating system is not supported")]
    Platform,
    #[error("only root can run steps as {0}: start the agent as root, or as that user")]
    OtherUser(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What the things beside the loop come back with.
enum Happened {
    Bundle { digest: String, result: Result<Arc<Catalog>, String> },
    Ended(AttemptEnded),
    Looked(Option<Inventory>),
}

struct Daemon {
    paths: Paths,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    identity: Arc<Identity>,
    keys: DeviceKeys,
    platform: Platform,
    board: Board,
    shelf: Shelf,
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
    looking: bool,
    look_again: bool,
    last_inventory: Option<Inventory>,
    report_anyway: bool,
}

struct LinkState {
    sender: mpsc::Sender<FromAgent>,
    welcomed: bool,
    /// Place in the journal of the last report that was sent on this link.
    sent: Option<u64>,
}

/// Runs until `stop` says so.
pub async fn run(options: Options, mut stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
    let (happened, mut happenings) = mpsc::channel(64);
    let (chunks, mut output) = mpsc::channel(256);
    let (link_events, mut from_link) = mpsc::channel(64);
    let mut daemon = Daemon::open(options, happened, chunks, stop.clone())?;

    let broker = tokio::spawn(daemon.broker()?);
    let link =
        tokio::spawn(link::hold(daemon.board.clone(), link_events, Arc::clone(&daemon.random), stop.clone()));
    daemon.begin()?;

    let mut hourly = tokio::time::interval_at(tokio::time::Instant::now() + HOURLY, HOURLY);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pump = tokio::time::interval(Duration::from_secs(1));
    pump.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut link_alive = true;
    while !*stop.borrow() {
        tokio::select! {
            event = from_link.recv(), if link_alive => match event {
                Some(event) => daemon.link_event(event)?,
                None => link_alive = false,
            },
            Some(chunk) = output.recv() => daemon.output(chunk, &mut output)?,
            Some(what) = happenings.recv() => daemon.happened(what, &mut output)?,
            _ = hourly.tick() => {
                daemon.report_anyway = true;
                daemon.look();
            }
            _ = pump.tick() => daemon.pump()?,
            changed = stop.changed() => if changed.is_err() { break },
        }
    }
    tracing::info!("stopping");
    daemon.wind_down(&mut happenings, &mut output).await?;
    broker.abort();
    let _ = tokio::time::timeout(Duration::from_secs(3), link).await;
    let _ = std::fs::remove_file(daemon.paths.socket());
    Ok(())
}

impl Daemon {
    fn open(
        options: Options,
        happened: mpsc::Sender<Happened>,
        chunks: mpsc::Sender<OutputChunk>,
        stop_steps: watch::Receiver<bool>,
    ) -> Result<Self, DaemonError> {
        let Options { paths, clock, random, launcher } = options;
        let identity = Arc::new(Identity::load(&paths)?);
        let platform = Platform::current().ok_or(DaemonError::Platform)?;
        let is_root = Uid::effective().is_root();
        if !is_root && Uid::effective().as_raw() != identity.managed_user.uid {
            return Err(DaemonError::OtherUser(identity.managed_user.name.clone()));
        }
        paths.create()?;
        let journal = Arc::new(Journal::open(&paths.journal())?);
        steps::sweep(&paths)?;
        environment::make_dev_home(&identity, &paths)?;
        let vault = Arc::new(vault::open(&paths, identity.dev)?);
        let keys = vault.keys()?.ok_or(DaemonError::NoKeys)?;
        let client =
            ClientIdentity { certificate: &identity.certificate, key_pkcs8: keys.tls.serialized_der() };
        let board = Board::new(&identity.board, identity.pin.parse()?, Some(client))?;
        let scope = config::load_scope(&paths)?;
        let known = Known {
            seen: journal.seen()?,
            scope: scope.clone(),
            ended: ended_attempts(&journal)?,
            answered: journal.deliveries()?,
            held: vault.held()?,
        };
        let current = Current { catalog: None, params: journal.params()? };
        let shelf = Shelf::new(&paths, config::load_publisher_keys(&paths)?);
        let context = Context { launcher, paths: paths.clone(), identity: Arc::clone(&identity), vault };
        Ok(Self {
            live: Live::load(&paths)?,
            engine: Engine::new(Machine { platform, is_root }, known),
            current: Arc::new(RwLock::new(current)),
            link: None,
            steps_running: 0,
            looking: false,
            look_again: false,
            last_inventory: None,
            report_anyway: false,
            paths,
            clock,
            random,
            identity,
            keys,
            platform,
            board,
            shelf,
            journal,
            context,
            scope,
            happened,
            chunks,
            stop_steps,
        })
    }

    fn broker(&self) -> Result<impl Future<Output = ()> + Send + use<>, DaemonError> {
        let broker = Arc::new(Broker {
            identity: Arc::clone(&self.identity),
            paths: self.paths.clone(),
            vault: Arc::clone(&self.context.vault),
            journal: Arc::clone(&self.journal),
            clock: Arc::clone(&self.clock),
            current: Arc::clone(&self.current),
        });
        let listener = broker::bind(&self.paths)?;
        Ok(broker.serve(listener))
    }

    fn begin(&mut self) -> Result<(), DaemonError> {
        tracing::info!(device = %self.identity.device_id, board = %self.identity.board, "the agent runs");
        let effects = self.engine.start();
        self.perform_all(effects)?;
        for attempt in self.journal.attempts()?.into_iter().filter(|attempt| attempt.last.is_none()) {
            tracing::warn!(attempt = %attempt.offer.attempt_id, "an attempt was interrupted; finding out how far it got");
            self.engine_event(Event::Recover(attempt))?;
        }
        Ok(())
    }

    fn link_event(&mut self, event: LinkEvent) -> Result<(), DaemonError> {
        match event {
            LinkEvent::Up(sender) => {
                let hello = FromAgent::Hello(self.hello()?);
                if sender.try_send(hello).is_ok() {
                    self.link = Some(LinkState { sender, welcomed: false, sent: None });
                }
                Ok(())
            }
            LinkEvent::Frame(frame) => self.engine_event(Event::Frame(frame)),
            LinkEvent::Down => {
                self.link = None;
                self.engine_event(Event::LinkDown)
            }
        }
    }

    fn hello(&self) -> Result<Hello, DaemonError> {
        let hardware_uuid = match &self.identity.hardware_uuid {
            Some(uuid) => uuid.clone(),
            None => platform::machine()?.hardware_uuid,
        };
        let attempts = self.journal.attempts()?;
        Ok(Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hardware_uuid,
            boot_session: platform::boot_session()?,
            clock: self.clock.now(),
            audit_head: self.journal.audit_head()?,
            bundle_serial: self.engine.serial_seen(),
            secrets: self.engine.held(),
            attempts: attempts
                .into_iter()
                .filter(|attempt| attempt.last.is_none())
                .map(|attempt| attempt.offer.attempt_id)
                .collect(),
        })
    }

    fn engine_event(&mut self, event: Event) -> Result<(), DaemonError> {
        let effects = self.engine.on(event, Instant::now());
        self.perform_all(effects)
    }

    fn perform_all(&mut self, effects: Vec<Effect>) -> Result<(), DaemonError> {
        effects.into_iter().try_for_each(|effect| self.perform(effect))
    }

    fn perform(&mut self, effect: Effect) -> Result<(), DaemonError> {
        match effect {
            Effect::Welcomed(welcome) => self.welcomed(&welcome)?,
            Effect::Fetch(digest) => self.fetch(digest),
            Effect::Remember(offer) => self.remember(offer)?,
            Effect::Start(plan) => self.start(*plan),
            Effect::Report(body) => self.report(vec![body])?,
            Effect::RepeatAttempt(id) => {
                let last = self.journal.attempt(id)?.and_then(|attempt| attempt.last);
                self.journal.record(last.as_slice())?;
                self.pump()?;
            }
            Effect::RepeatDelivery(id) => {
                let last = self.journal.delivery(id)?;
                self.journal.record(last.as_slice())?;
                self.pump()?;
            }
            Effect::Store { deliver, tag, pattern } => {
                let result = self.store(&deliver, tag, pattern.as_deref());
                self.engine_event(Event::Stored { deliver, result })?;
            }
            Effect::Acknowledged(reports) => {
                self.journal.acknowledged(&reports)?;
                self.pump()?;
            }
            Effect::Refuse(refused) => {
                tracing::warn!(what = %refused.what, reason = %refused.reason, "refused");
                if let Some(link) = &self.link {
                    // Only a courtesy: the board offers again what matters.
                    let _ = link.sender.try_send(FromAgent::Refused(refused));
                }
            }
            Effect::SaveScope(scope) => {
                config::save_scope(&self.paths, &scope)?;
                self.live.bundle_digest.clone_from(&scope.bundle_digest);
                self.scope = scope;
                self.live.save(&self.paths)?;
            }
            Effect::SaveSeen(seen) => {
                self.journal.set_seen(&seen)?;
                self.live.bundle_serial = seen.serial;
                self.live.save(&self.paths)?;
            }
            Effect::ScopeReady(catalog) => self.scope_ready(catalog),
            Effect::Probe => self.look(),
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), DaemonError> {
        if welcome.device_id != self.identity.device_id || welcome.client_id != self.identity.client_id {
            tracing::error!(device = %welcome.device_id, "the board takes this device for another one");
        }
        let now = self.clock.now();
        let skew = now.since(welcome.time).max(welcome.time.since(now));
        if skew > SKEW {
            tracing::warn!(seconds = skew.as_secs(), "this machine's clock and the board's are apart");
        }
        self.journal.set_audit_head(&welcome.audit_head)?;
        self.live.audit_head = Some(welcome.audit_head.clone());
        self.live.last_link = Some(now);
        self.live.save(&self.paths)?;
        if let Some(link) = &mut self.link {
            link.welcomed = true;
        }
        tracing::info!("the link is up");
        self.pump()
    }

    fn remember(&mut self, offer: Offer) -> Result<(), DaemonError> {
        tracing::info!(attempt = %offer.attempt_id, component = %offer.component, step = %offer.step, "offered");
        let (component, params) = (offer.component.clone(), offer.params.clone());
        let at = self.clock.now();
        self.journal.offered(&Attempt { offer, at, next_chunk: 0, last: None })?;
        if !params.is_empty() {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.params.get(&component) != Some(&params) {
                current.params.insert(component, params);
                self.journal.set_params(&current.params)?;
            }
        }
        Ok(())
    }

    fn scope_ready(&mut self, catalog: Arc<Catalog>) {
        for key in &self.scope.components {
            if let Some(manifest) = catalog.manifests.get(key) {
                self.write_wrappers(key, &manifest.wrappers);
            }
        }
        self.current.write().unwrap_or_else(PoisonError::into_inner).catalog = Some(catalog);
    }

    fn write_wrappers(&self, component: &str, list: &[shared::catalog::Wrapper]) {
        if let Err(error) = wrappers::write(&self.paths, self.context.launcher.program(), component, list) {
            tracing::error!(component, %error, "the wrappers can't be written");
        }
    }

    fn report(&mut self, bodies: Vec<ReportBody>) -> Result<(), DaemonError> {
        let at = self.clock.now();
        let reports: Vec<Report> = bodies
            .into_iter()
            .map(|body| Report { id: ReportId::new(&*self.clock, &*self.random), at, body })
            .collect();
        self.journal.record(&reports)?;
        self.pump()
    }

    /// Sends what waits in the journal, in order, as far as the link takes it.
    fn pump(&mut self) -> Result<(), DaemonError> {
        let Some(link) = self.link.as_mut().filter(|link| link.welcomed) else { return Ok(()) };
        let room = link.sender.capacity().saturating_sub(SPARE);
        if room == 0 {
            return Ok(());
        }
        for (place, report) in self.journal.waiting(link.sent, room)? {
            if link.sender.try_send(FromAgent::Report(report)).is_err() {
                break;
            }
            link.sent = Some(place);
        }
        Ok(())
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
            Happened::Bundle { digest, result } => self.engine_event(Event::Bundle { digest, result }),
            Happened::Ended(ended) => {
                self.steps_running -= 1;
                // Its output was sent before its end, and is reported before it.
                if let Ok(first) = output.try_recv() {
                    self.output(first, output)?;
                }
                tracing::info!(attempt = %ended.attempt_id, outcome = ?ended.outcome, "ended");
                self.engine_event(Event::AttemptEnded(ended))
            }
            Happened::Looked(inventory) => self.looked(inventory),
        }
    }

    /// Lets what must not be killed finish. What was killed stays unfinished in the journal: the next start goes on.
    async fn wind_down(
        &mut self,
        happenings: &mut mpsc::Receiver<Happened>,
        output: &mut mpsc::Receiver<OutputChunk>,
    ) -> Result<(), DaemonError> {
        while self.steps_running > 0 {
            tokio::select! {
                Some(chunk) = output.recv() => self.output(chunk, output)?,
                Some(what) = happenings.recv() => match what {
                    Happened::Ended(ended) if ended.outcome == Outcome::Interrupted => self.steps_running -= 1,
                    Happened::Ended(_) => self.happened(what, output)?,
                    Happened::Bundle { .. } | Happened::Looked(_) => {}
                },
            }
        }
        Ok(())
    }
}

fn ended_attempts(journal: &Journal) -> Result<Vec<shared::ids::AttemptId>, JournalError> {
    let attempts = journal.attempts()?;
    Ok(attempts.into_iter().filter(|a| a.last.is_some()).map(|a| a.offer.attempt_id).collect())
}
