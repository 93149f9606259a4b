//! A device that comes with another hardware UUID than the enrolled one: a cloned disk, a new logic board, Migration
//! Assistant. It gets nothing until a consultant decides (`design/security.md` section 2.8).

mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use shared::ids::{ClientId, DeviceId};
use shared::text_enum;

use super::{Device, get_device, known_device};
use crate::access::Throttle;
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::jobs::Wake;

const MAX_UUID: usize = 255;

/// A device that waits for a decision.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Quarantined {
    pub device_id: DeviceId,
    pub client_id: ClientId,
    pub name: String,
    pub hardware_uuid: String,
    pub other_hardware_uuid: String,
}

text_enum! {
    pub enum Release {
        /// It is the same Mac with other hardware: it goes on as that.
        Other = "other",
        /// The enrolled Mac goes on; the other one is turned away, and stays so when it comes back.
        Enrolled = "enrolled",
    }
}

/// Why a link whose hello names another Mac goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A consultant has to decide, or has not yet.
    Quarantined,
    /// A consultant decided that this Mac is not the device.
    TurnedAway,
    /// What it says is no hardware UUID.
    Unreadable,
}

/// Each Mac that was turned away is written into the audit log once an hour, however often it comes.
const TURNED_AWAY: Throttle =
    Throttle { bucket: "turned-away", per_source: 1, in_total: i64::MAX, window: Duration::from_secs(3600) };

/// Stops a device whose hello names another Mac: it is quarantined, unless a consultant turned that Mac away before.
pub async fn quarantine(
    app: &App,
    device: &Device,
    hardware_uuid: &str,
    address: &str,
) -> Result<Stopped, Failure> {
    if hardware_uuid.is_empty()
        || hardware_uuid.chars().count() > MAX_UUID
        || hardware_uuid.chars().any(char::is_control)
    {
        tracing::warn!(device_id = %device.id, "a hello without a hardware UUID that can be read");
        return Ok(Stopped::Unreadable);
    }
    let now = app.now();
    let mut tx = app.db.write().await?;
    let entry = |action| {
        Entry::new(now, Who::device(device.id, address), action)
            .client(device.client_id)
            .device(device.id)
            .detail("enrolled", &device.hardware_uuid)
            .detail("came", hardware_uuid)
    };
    if store::is_turned_away(&mut tx, device.id, hardware_uuid).await? {
        tracing::warn!(device_id = %device.id, address, "a Mac that was turned away came again");
        let source = format!("{} {hardware_uuid}", device.id);
        if TURNED_AWAY.allows(&mut tx, &source, now).await? {
            TURNED_AWAY.record(&mut tx, &source, now).await?;
            let entry = entry(Action::DeviceRefused).reason("a Mac that was turned away");
            audit::append(&mut tx, &entry).await?;
            tx.commit().await?;
        }
        return Ok(Stopped::TurnedAway);
    }
    if store::quarantine(&mut tx, device.id, hardware_uuid).await? == 1 {
        audit::append(&mut tx, &entry(Action::DeviceQuarantined)).await?;
        tx.commit().await?;
        tracing::warn!(device_id = %device.id, "another hardware UUID than the enrolled one: quarantined");
        wake(app, device);
    }
    Ok(Stopped::Quarantined)
}

/// Devices that wait for a decision, by name.
pub async fn quarantined(tx: &mut Tx) -> Result<Vec<Quarantined>, sqlx::Error> {
    store::quarantined(tx).await
}

/// Ends a quarantine. `seen` is the other hardware UUID that whoever decides was shown.
pub async fn release(
    app: &App,
    who: Who,
    id: DeviceId,
    seen: &str,
    release: Release,
) -> Result<Device, Failure> {
    let mut tx = app.db.write().await?;
    let device = get_device(&mut tx, id).await?;
    let goes_on_as = match release {
        Release::Other => seen,
        Release::Enrolled => device.hardware_uuid.as_str(),
    };
    if release == Release::Other
        && let Some(other) = known_device(&mut tx, seen).await?
    {
        let detail = format!(
            "That Mac is enrolled here already, as {}. Revoke one of the two, or let the enrolled Mac go on.",
            other.name
        );
        return Err(Failure::conflict("known-hardware", "That Mac is another device", detail));
    }
    if store::release(&mut tx, id, seen, goes_on_as).await? != 1 {
        let detail =
            "This device isn't quarantined any more, or for another Mac than this page showed. Look again.";
        return Err(Failure::conflict("not-open", "Nothing to decide any more", detail));
    }
    match release {
        Release::Other => store::let_in(&mut tx, id, seen).await?,
        Release::Enrolled => store::turn_away(&mut tx, id, seen, app.now()).await?,
    }
    let entry = Entry::new(app.now(), who, Action::DeviceReleased)
        .client(device.client_id)
        .device(id)
        .detail("goes_on_as", goes_on_as);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    wake(app, &device);
    Ok(device)
}

fn wake(app: &App, device: &Device) {
    app.jobs.wake(Wake::Decisions);
    app.jobs.wake(Wake::Device(device.id));
    app.jobs.wake(Wake::Client(device.client_id));
}
