//! Everything that the daemon needs, made or read at its start.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, RwLock};

use nix::unistd::Uid;
use shared::catalog::Platform;
use shared::protocol::steps::OutputChunk;
use tokio::sync::{mpsc, watch};

use super::releasing::Releasing;
use super::renewing::Renewal;
use super::{Daemon, DaemonError, Happened, Options, tidying};
use crate::authority::Trust;
use crate::broker::{self, Broker, Current, LeaveAsked, Paste};
use crate::bundles::Shelf;
use crate::config::{self, Identity};
use crate::engine::{Engine, Known, Machine};
use crate::journal::{Journal, JournalError};
use crate::keyring;
use crate::link::InUse;
use crate::outbound::Outbound;
use crate::renew;
use crate::status::{self, Live};
use crate::steps::{self, Context, environment};
use crate::trust;
use crate::vault;
use crate::verify::Memory;

impl Daemon {
    pub(super) fn open(
        options: Options,
        happened: mpsc::Sender<Happened>,
        chunks: mpsc::Sender<OutputChunk>,
        stop_steps: watch::Receiver<bool>,
    ) -> Result<Self, DaemonError> {
        let Options { paths, clock, random, launcher, stand_in, on_trial } = options;
        let is_root = Uid::effective().is_root();
        if is_root {
            trust::check_folder(&paths, trust::ROOT, "/".as_ref())?;
        }
        let identity = Arc::new(Identity::load(&paths)?);
        let outbound = match stand_in {
            None => Outbound::public(),
            Some(stand_in) if identity.dev => Outbound::through(stand_in),
            Some(_) => return Err(DaemonError::StandIn),
        };
        let platform = Platform::current().ok_or(DaemonError::Platform)?;
        if !is_root && Uid::effective().as_raw() != identity.managed_user.uid {
            return Err(DaemonError::OtherUser(identity.managed_user.name.clone()));
        }
        paths.create()?;
        let journal = Arc::new(Journal::open(&paths.journal())?);
        steps::sweep(&paths);
        tidying::remove_unfinished(&paths);
        if let Err(error) = environment::make_dev_home(&identity, &paths) {
            tracing::error!(%error, "the home of development can't be made");
        }
        let vault = Arc::new(vault::open(&paths, identity.dev)?);
        // One that can't be written still gives the programs what it holds; each delivery says why it fails.
        if let Err(error) = vault.sweep_trials().and_then(|()| vault.try_out(&*random)) {
            tracing::error!(%error, "the store of secrets does not work as it should: see `board-agent doctor`");
        }
        let keys = vault.keys()?.ok_or(DaemonError::NoKeys)?;
        let board = watch::Sender::new(renew::board(&identity, &keys)?);
        let renewal = Renewal::new(&identity, &*random);
        let scope = config::load_scope(&paths).unwrap_or_else(|error| {
            tracing::error!(%error, "the scope of before can't be read; it must come from the board");
            config::no_scope()
        });
        let known = Known {
            seen: journal.seen()?,
            scope: scope.clone(),
            ended: ended_attempts(&journal)?,
            received: journal.receipts()?,
            held: vault.readable()?,
        };
        let current = Current { params: journal.params()?, ..Current::default() };
        let held = keyring::load(&paths)?;
        let shelf = Shelf::new(&paths, held.ring.publishers());
        let releasing = Releasing::new(&paths, on_trial);
        let mut engine = Engine::new(Machine { platform, is_root }, known);
        engine.trust(Trust::of(&identity));
        let context =
            Context { launcher, outbound, paths: paths.clone(), identity: Arc::clone(&identity), vault };
        let mut live = Live::load_or_begin(&paths);
        live.fingerprint = Some(status::fingerprint(&identity, &keys)?.to_string());
        if let Err(error) = live.save(&paths) {
            tracing::error!(%error, "the status can't be written");
        }
        Ok(Self {
            live,
            engine,
            current: Arc::new(RwLock::new(current)),
            link: None,
            steps_running: 0,
            planning: None,
            looking: false,
            look_again: false,
            last_inventory: None,
            report_anyway: false,
            memory: Memory::load(&paths),
            asking: BTreeSet::new(),
            over: false,
            paths,
            clock,
            random,
            identity,
            keys,
            platform,
            machine: OnceLock::new(),
            board,
            in_use: InUse::default(),
            renewal,
            shelf,
            held,
            key_changes: 0,
            releasing,
            journal,
            context,
            scope,
            happened,
            chunks,
            stop_steps,
        })
    }

    pub(super) fn broker(
        &self,
        pastes: mpsc::Sender<Paste>,
        leaves: mpsc::Sender<LeaveAsked>,
    ) -> Result<impl Future<Output = ()> + Send + use<>, DaemonError> {
        let broker = Arc::new(Broker {
            identity: Arc::clone(&self.identity),
            paths: self.paths.clone(),
            vault: Arc::clone(&self.context.vault),
            journal: Arc::clone(&self.journal),
            clock: Arc::clone(&self.clock),
            current: Arc::clone(&self.current),
            platform: self.platform,
            pastes,
            leaves,
        });
        let listener = broker::bind(&self.paths)?;
        Ok(broker.serve(listener))
    }
}

fn ended_attempts(journal: &Journal) -> Result<Vec<shared::ids::AttemptId>, JournalError> {
    let attempts = journal.attempts()?;
    Ok(attempts.into_iter().filter(|a| a.last.is_some()).map(|a| a.offer.attempt_id).collect())
}
