//! What the board sends by itself: news of keys, authorities and releases, the scope, deliveries, one offer, a plan, or a wipe.

use shared::protocol::link::{FromBoard, Scope};
use shared::signing::SignedSuccession;
use tokio::time::Instant;

use super::{DELIVERY_RETRY, End, Session};
use crate::catalog;
use crate::clients;
use crate::enrollment::{self, Device, Standing, rotation};
use crate::error::Failure;
use crate::freeze;
use crate::inventory;
use crate::jobs::Wake;
use crate::releases;
use crate::runbook;
use crate::runbook::plan::{self, Due};
use crate::secrets::{self, DeliveryState, SecretError};

impl Session {
    /// Looks at the device's row, and sends what it is to get.
    pub(super) async fn look(&mut self) -> Result<(), End> {
        match self.standing().await? {
            Standing::Leaving => {
                // Else it couldn't come back for its wipe once the board shows its next authority.
                self.tell_of_ca().await?;
                self.push_wipe().await
            }
            Standing::Enrolled | Standing::Replaced | Standing::Ended(_) => self.push().await,
        }
    }

    /// A leaving device gets its wipe, once on each link, and nothing else.
    async fn push_wipe(&mut self) -> Result<(), End> {
        let mut tx = self.app.db.read().await?;
        let wipe = enrollment::wipe_for(&mut tx, self.device.id).await?;
        drop(tx);
        match wipe {
            Some(wipe) if self.wiping != Some(wipe.wipe_id) => {
                self.wiping = Some(wipe.wipe_id);
                self.send(&FromBoard::Wipe(wipe)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Sends whatever is due and wasn't sent on this link: the scope, deliveries, then one offer, else a plan.
    pub(super) async fn push(&mut self) -> Result<(), End> {
        let mut tx = self.app.db.read().await?;
        let wanted = clients::scope(&mut tx, self.device.client_id).await?;
        let composed = runbook::of_device(&mut tx, self.device.id).await?.is_some();
        drop(tx);
        if !composed || self.wanted.as_ref() != Some(&wanted) {
            let mut tx = self.app.db.write().await?;
            runbook::ensure(&self.app, &mut tx, &self.device).await?;
            tx.commit().await?;
            let mut tx = self.app.db.write().await?;
            secrets::plan(&self.app, &mut tx, self.device.id).await?;
            tx.commit().await?;
            self.wanted = Some(wanted);
        }
        self.tell_of_keys().await?;
        let mut tx = self.app.db.read().await?;
        let scope = scope(&mut tx, &self.device).await?;
        drop(tx);
        if self.scope.as_ref() != Some(&scope) {
            self.send(&FromBoard::Scope(scope.clone())).await?;
            self.scope = Some(scope.clone());
        }
        self.tell_of_ca().await?;
        let mut tx = self.app.db.read().await?;
        if freeze::is_on(&mut tx).await? {
            return Ok(());
        }
        drop(tx);
        self.tell_of_release().await?;
        let Some(digest) = scope.bundle_digest else { return Ok(()) };
        let mut tx = self.app.db.read().await?;
        let deliveries = secrets::for_device(&mut tx, self.device.id).await?;
        drop(tx);
        for delivery in deliveries {
            let open = matches!(delivery.state, DeliveryState::Pending | DeliveryState::Sent);
            let waits = self.deliveries.get(&delivery.id).is_some_and(|again| Instant::now() < *again);
            if !open || waits {
                continue;
            }
            let sealed = secrets::seal(&self.app, &delivery, &digest).await;
            if let Err(error @ (SecretError::Database(_) | SecretError::Audit(_))) = sealed {
                return Err(Failure::from(error).into());
            }
            self.deliveries.insert(delivery.id, Instant::now() + DELIVERY_RETRY);
            match sealed {
                Ok(Some(frame)) => self.send(&FromBoard::Deliver(frame)).await?,
                Ok(None) => {}
                // One secret that can't be opened must not stop the runbook.
                Err(error) => {
                    tracing::error!(delivery_id = %delivery.id, %error, "a delivery can't be sealed");
                }
            }
        }
        if let Some(offer) = runbook::next_offer(&self.app, &self.device, &self.carried).await? {
            self.carried.sent.insert(offer.attempt_id);
            return self.send(&FromBoard::Offer(offer)).await;
        }
        if let Some(due) = plan::next_plan(&self.app, &self.device, self.knows_plans).await? {
            if let Due::Send(request) = due {
                self.send(&FromBoard::Plan(request)).await?;
            }
            self.app.jobs.wake(Wake::Device(self.device.id));
        }
        Ok(())
    }

    /// Of an authority that is coming, once on each link until the device keeps its pin.
    pub(super) async fn tell_of_ca(&mut self) -> Result<(), End> {
        let mut tx = self.app.db.read().await?;
        let news = rotation::news(&mut tx, self.device.id).await?;
        drop(tx);
        if let Some((number, ca)) = news.filter(|(number, _)| self.told_of_ca != Some(*number)) {
            self.told_of_ca = Some(number);
            self.send(&FromBoard::Ca(ca)).await?;
        }
        Ok(())
    }

    /// Of statements of succession that it doesn't hold, each once on a link.
    pub(super) async fn tell_of_keys(&mut self) -> Result<(), End> {
        let Some(program) = &mut self.program else { return Ok(()) };
        let mut tx = self.app.db.read().await?;
        let successions = catalog::successions_beyond(&mut tx, &program.successions).await?;
        drop(tx);
        if successions.is_empty() {
            return Ok(());
        }
        program.successions.extend(successions.iter().map(SignedSuccession::digest));
        self.send(&FromBoard::Keys { successions }).await
    }

    /// Of the release that it is in the stage of, once on each link.
    async fn tell_of_release(&mut self) -> Result<(), End> {
        let Some(program) = &self.program else { return Ok(()) };
        let mut tx = self.app.db.read().await?;
        let due = releases::due(&mut tx, &self.device, &self.agent_version, program).await?;
        drop(tx);
        let Some(release) = due else { return Ok(()) };
        let digest = release.digest();
        if self.told_of_release.as_ref() == Some(&digest) {
            return Ok(());
        }
        self.told_of_release = Some(digest);
        self.send(&FromBoard::Release(release)).await
    }
}

/// What a device is told of its client's scope.
pub(in crate::link) async fn scope(tx: &mut crate::db::Tx, device: &Device) -> Result<Scope, Failure> {
    let runbook = runbook::of_device(tx, device.id).await?;
    let bundle_digest = match runbook {
        Some(runbook) => Some(runbook.bundle_digest),
        None => catalog::current(tx).await?.map(|catalog| catalog.digest),
    };
    let params = clients::scope(tx, device.client_id).await?.all_params();
    let components = clients::components(tx, device.client_id).await?;
    let mut look_at = inventory::not_absent(tx, device.id).await?;
    look_at.retain(|key| !components.contains(key));
    Ok(Scope { bundle_digest, components, params, look_at })
}
