//! Pausing a runbook: no step is offered any more until somebody resumes it. The device isn't told: what it runs already
//! is let finish, and what it was not offered it doesn't know.

mod store;
#[cfg(test)]
mod tests;

use shared::ids::{DeviceId, RunbookId};
use shared::time::Timestamp;

use super::{Runbook, of_device};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::clients::engagement;
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Pause {
    pub paused_at: Timestamp,
    pub paused_by: String,
    pub reason: String,
}

/// The pause that a runbook is in.
pub async fn pause_of(tx: &mut Tx, runbook_id: RunbookId) -> Result<Option<Pause>, sqlx::Error> {
    store::pause_of(tx, runbook_id).await
}

pub async fn is_paused(tx: &mut Tx, device_id: DeviceId) -> Result<bool, sqlx::Error> {
    match of_device(tx, device_id).await? {
        Some(runbook) => Ok(store::pause_of(tx, runbook.id).await?.is_some()),
        None => Ok(false),
    }
}

/// A person holds the automatic steps back, and says why.
pub async fn pause(app: &App, who: Who, device: &Device, reason: &str) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    let runbook = runbook_of(&mut tx, device).await?;
    let pause = Pause { paused_at: app.now(), paused_by: who.id.clone(), reason: reason.to_owned() };
    if store::pause(&mut tx, runbook.id, &pause).await? != 1 {
        return Err(Failure::conflict(
            "paused-already",
            "The runbook is paused already",
            "Somebody else was faster. Nothing was changed; the runbook shows who paused it, and why.",
        ));
    }
    let entry = Entry::new(app.now(), who, Action::RunbookPaused).reason(reason);
    finish(app, tx, device, entry).await
}

/// The steps go on.
pub async fn resume(app: &App, who: Who, device: &Device) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, device.client_id).await?;
    let runbook = runbook_of(&mut tx, device).await?;
    if store::resume(&mut tx, runbook.id).await? != 1 {
        return Err(Failure::conflict(
            "not-paused",
            "The runbook is not paused",
            "Somebody else resumed it already. Nothing was changed; its steps go on.",
        ));
    }
    let entry = Entry::new(app.now(), who, Action::RunbookResumed);
    finish(app, tx, device, entry).await
}

async fn runbook_of(tx: &mut Tx, device: &Device) -> Result<Runbook, Failure> {
    of_device(tx, device.id).await?.ok_or_else(|| Failure::not_found("runbook"))
}

async fn finish(app: &App, mut tx: Tx, device: &Device, entry: Entry) -> Result<(), Failure> {
    audit::append(&mut tx, &entry.client(device.client_id).device(device.id)).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Device(device.id));
    app.jobs.wake(Wake::Client(device.client_id));
    Ok(())
}
