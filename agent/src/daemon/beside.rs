//! What runs beside the daemon's loop: fetching bundles, running steps, looking.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared::catalog::SignedBundle;
use shared::protocol::inventory::{ComponentReport, SlotReport};
use shared::protocol::link::ReportBody;
use shared::time::Clock;

use super::{Daemon, DaemonError, Happened};
use crate::bundles::{Catalog, Shelf};
use crate::engine::Refusal;
use crate::http::{self, HttpError};
use crate::inventory::{self, Inventory};
use crate::link::InUse;
use crate::steps::{self, Plan};
use crate::tls::Board;
use tokio::sync::watch;

const TRIES: u32 = 3;

impl Daemon {
    pub(super) fn fetch(&self, digest: String) {
        let (shelf, door) = (self.shelf.clone(), self.door());
        let (clock, happened) = (Arc::clone(&self.clock), self.happened.clone());
        let (seen, keys) = (self.engine.serial_seen(), self.key_changes);
        tokio::spawn(async move {
            let result = fetch(&shelf, &door, &digest, seen, &*clock).await.map(Arc::new);
            // Only a stopping daemon doesn't listen.
            let _ = happened.send(Happened::Bundle { digest, result, keys }).await;
        });
    }

    pub(super) fn door(&self) -> Door {
        Door { boards: self.board.subscribe(), in_use: Arc::clone(&self.in_use) }
    }

    pub(super) fn start(&mut self, plan: Plan) {
        self.write_wrappers(&plan.component, &plan.wrappers);
        self.steps_running += 1;
        let (context, chunks) = (self.context.clone(), self.chunks.clone());
        let (stop, happened) = (self.stop_steps.clone(), self.happened.clone());
        tokio::spawn(async move {
            let ended = steps::execute(&plan, &context, chunks, stop).await;
            let _ = happened.send(Happened::Ended(ended)).await;
        });
    }

    /// One look at a time; what comes meanwhile makes one more.
    pub(super) fn look(&mut self) {
        let catalog = self.current.read().unwrap_or_else(PoisonError::into_inner).catalog.clone();
        let Some(catalog) = catalog else { return };
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        let (context, clock) = (self.context.clone(), Arc::clone(&self.clock));
        let components = [self.scope.components.as_slice(), &self.scope.look_at].concat();
        let platform = self.platform;
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let looked = inventory::look(&context, &catalog, &components, platform, &*clock).await;
            let looked = looked.inspect_err(|error| tracing::error!(%error, "looking failed")).ok();
            let _ = happened.send(Happened::Looked(looked)).await;
        });
    }

    pub(super) fn looked(&mut self, components: Option<Vec<ComponentReport>>) -> Result<(), DaemonError> {
        self.looking = false;
        if let Some(components) = components {
            let slots = self.slots().unwrap_or_default();
            let inventory = Inventory { components, slots };
            let same = self.last_inventory.as_ref().is_some_and(|last| last.says_the_same_as(&inventory));
            if !same || std::mem::take(&mut self.report_anyway) {
                self.report_inventory(inventory)?;
            }
        }
        self.ask_what_is_due();
        if std::mem::take(&mut self.look_again) {
            self.look();
        }
        Ok(())
    }

    /// The last picture with the slots as they are; a look that is under way tells the rest.
    pub(super) fn report_slots(&mut self) -> Result<(), DaemonError> {
        let mut inventory = self.last_inventory.clone().unwrap_or_default();
        if let Some(slots) = self.slots() {
            inventory.slots = slots;
        }
        self.report_inventory(inventory)
    }

    pub(super) fn report_inventory(&mut self, inventory: Inventory) -> Result<(), DaemonError> {
        self.last_inventory = Some(inventory.clone());
        let Inventory { components, slots } = inventory;
        self.report(vec![ReportBody::Inventory { components, slots }])
    }

    /// Nothing before the first catalog is here.
    pub(super) fn slots(&self) -> Option<Vec<SlotReport>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let catalog = current.catalog.as_ref()?;
        let manifests = catalog.of_scope(&self.scope.components, self.platform);
        let (vault, now) = (&self.context.vault, self.clock.now());
        Some(inventory::slots(vault, &self.memory, &current.params, manifests, now))
    }
}

/// To the board, beside the link.
pub(super) struct Door {
    boards: watch::Receiver<Board>,
    in_use: InUse,
}

impl Door {
    async fn bundle(&self, digest: &str) -> Result<SignedBundle, HttpError> {
        let _using = self.in_use.read().await;
        let board = self.boards.borrow().clone();
        http::get_bundle(&board, digest).await
    }

    /// The program of a release, up to its first byte.
    pub(super) async fn program(&self, digest: &str) -> Result<http::Program, HttpError> {
        let _using = self.in_use.read().await;
        let board = self.boards.borrow().clone();
        http::get_program(&board, digest).await
    }
}

/// From disk when it was accepted before, else from the board.
async fn fetch(
    shelf: &Shelf,
    door: &Door,
    digest: &str,
    seen: u64,
    clock: &dyn Clock,
) -> Result<Catalog, Refusal> {
    match shelf.stored(digest) {
        Ok(Some(catalog)) => return Ok(catalog),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, digest, "the stored bundle is not believed; fetching it again"),
    }
    let mut tried = 0;
    let signed = loop {
        tried += 1;
        match door.bundle(digest).await {
            Ok(signed) => break signed,
            Err(error) if error.is_passing() && tried < TRIES => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(Refusal::passing(format!("the bundle can't be fetched: {error}"))),
        }
    };
    shelf
        .accept(digest, &signed, seen, clock.now())
        .map_err(|error| Refusal { reason: error.to_string(), passing: error.is_passing() })
}
