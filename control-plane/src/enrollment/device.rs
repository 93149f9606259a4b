//! Devices, and which certificate each may use.

use std::time::Duration;

use shared::crypto::hex;
use shared::ids::{ClientId, DeviceId};
use shared::text_enum;
use shared::time::Timestamp;

use super::store;
use crate::access::Throttle;
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;

/// A stale certificate is written into the audit log once an hour: who has one can come as often as they like.
const STALE: Throttle = Throttle {
    bucket: "stale-certificate",
    per_source: 1,
    in_total: i64::MAX,
    window: Duration::from_secs(3600),
};

text_enum! {
    pub enum DeviceState {
        /// Approved; its certificate isn't issued yet.
        Approved = "approved",
        Enrolled = "enrolled",
        Quarantined = "quarantined",
        Leaving = "leaving",
        Revoked = "revoked",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Device {
    pub id: DeviceId,
    pub client_id: ClientId,
    pub name: String,
    pub hardware_uuid: String,
    pub platform: shared::catalog::Platform,
    pub os_version: String,
    pub dev: bool,
    pub state: DeviceState,
    pub last_seen_at: Option<Timestamp>,
}

pub async fn get_device(tx: &mut Tx, id: DeviceId) -> Result<Device, Failure> {
    store::device(tx, id).await?.ok_or_else(|| Failure::not_found("device"))
}

/// Whose device it is.
pub async fn client_of(tx: &mut Tx, id: DeviceId) -> Result<ClientId, sqlx::Error> {
    store::device(tx, id).await?.map(|device| device.client_id).ok_or(sqlx::Error::RowNotFound)
}

/// Whether the device may be offered anything now.
pub async fn is_enrolled(tx: &mut Tx, id: DeviceId) -> Result<bool, sqlx::Error> {
    Ok(store::device(tx, id).await?.is_some_and(|device| device.state == DeviceState::Enrolled))
}

/// What a link that was opened with some certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The device is enrolled, under this identity.
    Enrolled,
    /// Only for its wipe.
    Leaving,
    /// The device joined again: this identity was revoked.
    Replaced,
    Ended(DeviceState),
}

pub async fn standing(tx: &mut Tx, id: DeviceId, serial: &[u8]) -> Result<Standing, sqlx::Error> {
    let state = store::device(tx, id).await?.map_or(DeviceState::Revoked, |device| device.state);
    let good = match state {
        DeviceState::Enrolled => Standing::Enrolled,
        DeviceState::Leaving => Standing::Leaving,
        DeviceState::Approved | DeviceState::Quarantined | DeviceState::Revoked => {
            return Ok(Standing::Ended(state));
        }
    };
    let is_its_own = store::serials(tx, id).await?.is_some_and(|(current, issued)| {
        current.as_deref() == Some(serial) || issued.as_deref() == Some(serial)
    });
    Ok(if is_its_own { good } else { Standing::Replaced })
}

pub async fn devices_of(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Device>, sqlx::Error> {
    store::devices_of(tx, client_id).await
}

/// Notes that the device was heard.
pub async fn seen(tx: &mut Tx, id: DeviceId, now: Timestamp) -> Result<(), sqlx::Error> {
    store::seen(tx, id, now).await
}

/// Ends a device's enrollment: its certificate is refused from now on, and its link is closed at once.
pub async fn revoke(app: &App, who: Who, id: DeviceId, reason: &str) -> Result<Device, Failure> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    let device = get_device(&mut tx, id).await?;
    if store::revoke_device(&mut tx, id).await? != 1 {
        let detail = "This device's enrollment ended before. Nothing was changed.";
        return Err(Failure::conflict("revoked", "Revoked already", detail));
    }
    store::revoke_identities(&mut tx, id).await?;
    let entry =
        Entry::new(app.now(), who, Action::DeviceRevoked).client(device.client_id).device(id).reason(reason);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Device(id));
    app.jobs.wake(Wake::Client(device.client_id));
    Ok(device)
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateRefused {
    #[error("this device is not enrolled here (any more)")]
    NotEnrolled,
    #[error("this certificate is not the device's latest: it was replaced, or it is a copy")]
    Stale,
    #[error(
        "this board was restored from a backup and doesn't know this certificate: the device renews it by its key, which happens by itself"
    )]
    Restored,
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// How a certificate's serial stands to the device's row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serial {
    InUse,
    /// Issued, and not seen yet.
    Issued,
    Stale,
}

async fn serial_of(
    tx: &mut Tx,
    device_id: DeviceId,
    serial: &[u8],
) -> Result<(Device, Serial), CertificateRefused> {
    let device = store::device(tx, device_id).await?.ok_or(CertificateRefused::NotEnrolled)?;
    if !matches!(device.state, DeviceState::Enrolled | DeviceState::Leaving) {
        return Err(CertificateRefused::NotEnrolled);
    }
    let (current, issued) = store::serials(tx, device_id).await?.ok_or(CertificateRefused::NotEnrolled)?;
    let found = if current.as_deref() == Some(serial) {
        Serial::InUse
    } else if issued.as_deref() == Some(serial) {
        Serial::Issued
    } else {
        Serial::Stale
    };
    Ok((device, found))
}

/// Checks a certificate's serial against the row of a device that is enrolled or leaving. The first use of a newly issued
/// one retires the one before; any other serial is refused and recorded, once an hour.
pub async fn check_certificate(
    app: &App,
    device_id: DeviceId,
    serial: &[u8],
    address: &str,
) -> Result<Device, CertificateRefused> {
    let mut tx = app.db.read().await?;
    let (device, found) = serial_of(&mut tx, device_id, serial).await?;
    drop(tx);
    if found == Serial::InUse {
        return Ok(device);
    }
    let mut tx = app.db.write().await?;
    if store::first_use(&mut tx, device_id, serial).await? == 1 {
        tx.commit().await?;
        return Ok(device);
    }
    // Another connection may have used it first, or another one was issued since the look.
    let (device, found) = serial_of(&mut tx, device_id, serial).await?;
    if found != Serial::Stale {
        return Ok(device);
    }
    // It may have been issued after the backup. Only the device's key tells, at `/renew`.
    if store::is_restored(&mut tx, device_id).await? {
        tracing::info!(%device_id, address, "a certificate that a restore doesn't know: the device has to renew");
        return Err(CertificateRefused::Restored);
    }
    tracing::warn!(%device_id, address, "a stale certificate was refused");
    let (now, serial) = (app.now(), hex(serial));
    let source = format!("{device_id} {serial}");
    if STALE.allows(&mut tx, &source, now).await? {
        STALE.record(&mut tx, &source, now).await?;
        let entry = Entry::new(now, Who::device(device_id, address), Action::DeviceRefused)
            .client(device.client_id)
            .device(device_id)
            .reason("a certificate with a serial that is not the device's latest")
            .detail("serial", serial);
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
    }
    Err(CertificateRefused::Stale)
}
