//! A changed scope shows what it does to the runbooks of the client's devices, before anything runs.
//!
//! One transaction proposes, compares and, once a person confirmed the very difference that it finds, saves the scope
//! and fits the runbooks. What is shown is computed by the function that is then applied.

mod basis;
mod difference;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use shared::ids::ClientId;
use shared::time::Timestamp;

pub use basis::{Basis, Moved};

use super::compose::{self, Fitting};
use crate::app::App;
use crate::audit::{self, Who};
use crate::clients::{self, Change, CreateError, Proposal};
use crate::db::Tx;
use crate::enrollment::{self, Device, DeviceState};
use crate::error::Failure;
use crate::jobs::Wake;
use crate::secrets;
use views::Difference;

/// What became of a proposal.
#[derive(Debug)]
pub enum Outcome {
    Saved,
    /// Nothing was saved: the package leaves choices and inputs open, and devices would begin without them.
    Open(Box<Change>),
    /// Nothing was saved: this is what it would change. `moved` says why what was confirmed doesn't hold any more.
    Differs {
        difference: Box<Difference>,
        basis: Basis,
        moved: Option<Moved>,
    },
}

/// Who asks for a change, and when.
#[derive(Clone, Debug)]
pub struct Asking {
    pub who: Who,
    pub now: Timestamp,
}

/// Saves what a page asks for, if it changes nothing on a device or `seen` names the difference that it makes.
pub async fn change(
    app: &App,
    asking: &Asking,
    client_id: ClientId,
    proposal: &Proposal,
    seen: Option<&str>,
) -> Result<Outcome, CreateError> {
    // A step that begins between the look and the write, as PostgreSQL allows, makes another difference to show.
    for _ in 0..2 {
        if let Some(outcome) = attempt(app, asking, client_id, proposal, seen).await? {
            return Ok(outcome);
        }
    }
    let detail = "Steps began in the very moment in which the scope was to change. Nothing was saved. Go back and save again.";
    Err(Failure::conflict("moved", "The runbook moved on", detail).into())
}

async fn attempt(
    app: &App,
    asking: &Asking,
    client_id: ClientId,
    proposal: &Proposal,
    seen: Option<&str>,
) -> Result<Option<Outcome>, CreateError> {
    let mut tx = app.db.write().await?;
    let change = clients::propose(&mut tx, client_id, proposal).await?;
    if change.is_none() {
        return Ok(Some(Outcome::Saved));
    }
    let fittings = fittings(&mut tx, &change).await?;
    let is_same = change.before.effective() == change.after.effective();
    if fittings.is_empty() || is_same {
        return save(app, tx, asking, &change, &[]).await;
    }
    if !change.missing.is_empty() {
        return Ok(Some(Outcome::Open(Box::new(change))));
    }
    let difference = difference::of(app, &mut tx, &change, &fittings, asking.now).await?;
    let basis = Basis::of(&change, &fittings);
    let confirmed = seen.is_some_and(|seen| basis.to_string() == seen);
    if confirmed || difference.is_empty() {
        return save(app, tx, asking, &change, &fittings).await;
    }
    let moved = seen.map(|seen| basis.moved(seen));
    Ok(Some(Outcome::Differs { difference: Box::new(difference), basis, moved }))
}

/// What the change does to each device that has a runbook, unless its enrollment ended.
async fn fittings(tx: &mut Tx, change: &Change) -> Result<Vec<(Device, Fitting)>, Failure> {
    let mut found = Vec::new();
    for device in enrollment::devices_of(tx, change.client.id).await? {
        if device.state == DeviceState::Revoked {
            continue;
        }
        if let Some(fitting) = compose::fitting(tx, &device, &change.before, &change.after).await? {
            found.push((device, fitting));
        }
    }
    Ok(found)
}

/// `None`, and nothing is saved, when a step moved on meanwhile.
async fn save(
    app: &App,
    mut tx: Tx,
    asking: &Asking,
    change: &Change,
    fittings: &[(Device, Fitting)],
) -> Result<Option<Outcome>, CreateError> {
    let mut entries = vec![change.write(&mut tx, asking.who.clone(), app.now()).await?];
    secrets::plan_all(app, &mut tx, change.client.id).await.map_err(Failure::from)?;
    for (device, fitting) in fittings.iter().filter(|(_, fitting)| !fitting.changes.is_empty()) {
        if !compose::apply(app, &mut tx, device, fitting).await? {
            return Ok(None);
        }
        entries.push(compose::entry(app, asking.who.clone(), device, fitting));
    }
    for entry in &entries {
        audit::append(&mut tx, entry).await?;
    }
    tx.commit().await?;
    app.jobs.wake(Wake::Client(change.client.id));
    for (device, _) in fittings {
        app.jobs.wake(Wake::Device(device.id));
    }
    Ok(Some(Outcome::Saved))
}
