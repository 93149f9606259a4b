//! The end of an engagement (`design/security.md` section 11): devices leave, and on the due date our secrets and the
//! salt of the client's key are erased.
//!
//! [`crate::providers`] disables the client's keys at [`Wake::EngagementEnded`], and looks for clients that are not active
//! now and then: a wake-up may be lost.

mod purge;
mod store;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use std::time::Duration;

use shared::ids::ClientId;
use shared::random;

pub use purge::{Purged, Rewritten, due, job, purge_due, rewrite};

use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::clients::engagement::{self, EngagementState, MAX_DAYS};
use crate::clients::{self, Client};
use crate::db::Tx;
use crate::enrollment;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Day 0. `pasted`: devices remove what the client pasted on them, too.
pub async fn end(app: &App, who: Who, id: ClientId, pasted: bool) -> Result<(), Failure> {
    let now = app.now();
    let mut tx = app.db.write().await?;
    clients::take_turn(&mut tx, id).await?;
    let days = engagement::engagement(&mut tx, id).await?.purge_after_days;
    let due = now.after(DAY * u32::try_from(days).unwrap_or(0));
    if engagement::end(&mut tx, id, &who.id, now, due).await? != 1 {
        let detail = "The engagement with this client ended before. Nothing was changed.";
        return Err(Failure::conflict("engagement-ended", "It has ended already", detail));
    }
    let leaving = enrollment::leave_all(app, &mut tx, &who, id, pasted).await?;
    let entry = Entry::new(now, who, Action::EngagementEnded)
        .client(id)
        .detail("devices", leaving.devices.len())
        .detail("pasted", pasted)
        .detail("purge_due", due);
    for entry in leaving.entries.iter().chain([&entry]) {
        audit::append(&mut tx, entry).await?;
    }
    tx.commit().await?;
    for device in leaving.devices {
        app.jobs.wake(Wake::Device(device.id));
    }
    app.jobs.wake(Wake::EngagementEnded(id));
    app.jobs.wake(Wake::Client(id));
    app.jobs.wake(Wake::Decisions);
    Ok(())
}

/// Stops the purge until somebody releases it.
pub async fn hold(app: &App, who: Who, id: ClientId, reason: &str) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    clients::get(&mut tx, id).await?;
    let moved = engagement::hold(&mut tx, id, reason).await?;
    let entry = Entry::new(app.now(), who, Action::PurgeHeld).reason(reason);
    finish(app, tx, id, moved, entry, "Only a purge that is due to come can be held.").await
}

/// The purge is due again on the day that was fixed at the end; a day that is over means at once.
pub async fn release(app: &App, who: Who, id: ClientId) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    clients::get(&mut tx, id).await?;
    let moved = engagement::release(&mut tx, id).await?;
    let entry = Entry::new(app.now(), who, Action::PurgeReleased);
    finish(app, tx, id, moved, entry, "This client's purge isn't held.").await
}

/// The client is active again. Its devices join again; secrets that were not purged are still there, and a purged client
/// gets a new salt and has none.
pub async fn reactivate(app: &App, who: Who, id: ClientId) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    clients::take_turn(&mut tx, id).await?;
    let before = engagement::engagement(&mut tx, id).await?.state;
    let salt = random::bytes(&*app.random);
    let moved = engagement::reactivate(&mut tx, id, before, &salt).await?;
    let entry = Entry::new(app.now(), who, Action::EngagementReactivated).detail("from", before);
    finish(app, tx, id, moved, entry, "This client's engagement is active.").await
}

/// Days between the end and the purge, for the next end.
pub async fn set_days(app: &App, who: Who, id: ClientId, typed: &str) -> Result<(), Failure> {
    let days = typed.trim().parse().ok().filter(|days| (0..=MAX_DAYS).contains(days)).ok_or_else(|| {
        let detail = "Give a whole number of days from 0 to 365. Nothing was changed.";
        Failure::invalid("purge-after-days", "Not a number of days", detail)
    })?;
    let mut tx = app.db.write().await?;
    clients::take_turn(&mut tx, id).await?;
    let before = engagement::engagement(&mut tx, id).await?;
    if before.state == EngagementState::Active && before.purge_after_days == days {
        return Ok(());
    }
    let moved = engagement::set_days(&mut tx, id, days).await?;
    let entry = Entry::new(app.now(), who, Action::PurgeDaysChanged)
        .detail("from", before.purge_after_days)
        .detail("to", days);
    finish(app, tx, id, moved, entry, "The day of this client's purge is fixed since the engagement ended.")
        .await
}

async fn finish(
    app: &App,
    mut tx: Tx,
    id: ClientId,
    moved: u64,
    entry: Entry,
    otherwise: &str,
) -> Result<(), Failure> {
    if moved != 1 {
        let detail = format!("{otherwise} Nothing was changed; look at the client's page again.");
        return Err(Failure::conflict("engagement", "Not possible as it stands", detail));
    }
    audit::append(&mut tx, &entry.client(id)).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Client(id));
    Ok(())
}

/// Words for lists: none while the engagement is active.
pub async fn ended_word(tx: &mut Tx, client: &Client) -> Result<Option<&'static str>, Failure> {
    Ok(match engagement::engagement(tx, client.id).await?.state {
        EngagementState::Active => None,
        EngagementState::Ending => Some("The engagement has ended; the purge is to come"),
        EngagementState::Held => Some("The engagement has ended; the purge is held"),
        EngagementState::Purged => Some("The engagement has ended; purged"),
    })
}
