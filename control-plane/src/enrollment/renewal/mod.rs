//! A new certificate for the same keys (`design/security.md` section 2.6). Whether the old one is still valid doesn't
//! matter: the device's signature over the board's nonce and this TLS connection decides, and the device's row.

mod store;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::crypto::{hex, verify_p256};
use shared::ids::{ClientId, DeviceId};
use shared::protocol::enroll::{Enrolled, RenewRequest, renewal_bytes};
use shared::random::{self, Random};
use shared::time::Timestamp;

use super::api::Peer;
use super::ca::{Authority, CaError, DEVICE_TTL};
use super::device::{CertificateRefused, Device, DeviceState, check_certificate};
use super::{Enrollment, EnrollmentState};
use crate::access::Throttle;
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::jobs::Wake;

/// A device that was not heard for longer than this renews only after a consultant confirmed it.
pub const SILENCE: Duration = Duration::from_secs(90 * 24 * 3600);
/// A certificate with more of its life left than this is given again. Agents ask at half life, give or take a tenth.
const YOUNG: Duration = Duration::from_secs(DEVICE_TTL.as_secs() / 3 * 2);
/// Counts tries that no device of ours signed, per address.
const REFUSED: Throttle =
    Throttle { bucket: "renew", per_source: 30, in_total: i64::MAX, window: Duration::from_secs(3600) };

/// What one TLS connection brings to a renewal: its exporter value, and the nonce that it was given.
#[derive(Debug)]
pub struct Channel {
    exporter: [u8; 32],
    nonce: Mutex<Option<[u8; 32]>>,
}

impl Channel {
    pub fn new(exporter: [u8; 32]) -> Self {
        Self { exporter, nonce: Mutex::new(None) }
    }

    /// A fresh nonce; an earlier one of this connection is void.
    pub fn challenge(&self, random: &dyn Random) -> [u8; 32] {
        let nonce = random::bytes(random);
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(nonce);
        nonce
    }

    /// The nonce, once.
    fn take(&self) -> Option<[u8; 32]> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A device that asks to renew after more than [`SILENCE`].
#[derive(Clone, Debug)]
pub struct LateRenewal {
    pub device_id: DeviceId,
    pub client_id: ClientId,
    pub name: String,
    pub last_seen_at: Option<Timestamp>,
    pub asked_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("Ask for a challenge on this connection first; each is good for one try.")]
    NoChallenge,
    #[error("Too many refused renewals came from this address. Wait an hour.")]
    TooMany,
    #[error(
        "There is no such enrollment: this board may have been restored from a backup of before this Mac joined. Join again with a new code."
    )]
    Unknown,
    #[error("The signature doesn't fit the device's key, the challenge and this connection.")]
    Signature,
    #[error("This device is not enrolled here (any more). A consultant can see why in the board's page.")]
    NotEnrolled,
    #[error(
        "This Mac was silent for {0} days: a consultant has to confirm on the board's enrollments page that it goes on."
    )]
    Waits(u64),
    #[error("Another renewal of this device came in between. Try again.")]
    Raced,
    #[error(transparent)]
    Certificate(#[from] CertificateRefused),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<RenewError> for Failure {
    fn from(error: RenewError) -> Self {
        let text = error.to_string();
        match error {
            RenewError::NoChallenge => Self::conflict("challenge", "No challenge", text),
            RenewError::TooMany => Self::new(429, "too-many-tries", "Wait a little", text),
            RenewError::Unknown => Self::new(404, "enrollment", "No such enrollment", text),
            RenewError::Signature => Self::new(401, "signature", "The signature was refused", text),
            RenewError::NotEnrolled
            | RenewError::Certificate(
                CertificateRefused::NotEnrolled | CertificateRefused::Stale | CertificateRefused::Restored,
            ) => Self::new(403, "device-refused", "This device is refused", text),
            RenewError::Waits(_) => Self::conflict("renewal-waits", "A consultant has to confirm", text),
            RenewError::Raced => Self::new(503, "raced", "Try again", text),
            RenewError::Certificate(CertificateRefused::Audit(error)) | RenewError::Audit(error) => {
                error.into()
            }
            RenewError::Certificate(CertificateRefused::Database(error)) | RenewError::Database(error) => {
                error.into()
            }
            RenewError::Ca(error) => Self::internal(error),
        }
    }
}

/// Gives the device a new certificate. One that was issued and not seen yet, or that is young, is given again: so a lost
/// answer costs nothing, and asking over and over makes nothing. The one in use stays good until the new one is used.
pub async fn renew(app: &App, request: &RenewRequest, peer: &Peer) -> Result<Enrolled, RenewError> {
    let nonce = peer.channel.take().ok_or(RenewError::NoChallenge)?;
    let now = app.now();
    let device_id = signer(app, request, peer, &nonce).await?;
    if let Some(certificate) = &peer.certificate {
        if certificate.device_id != device_id {
            return Err(RenewError::NotEnrolled);
        }
        match check_certificate(app, device_id, &certificate.serial, &peer.address).await {
            // The signature has shown that it is the device.
            Ok(_) | Err(CertificateRefused::Restored) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    // One moment of the database; what is written is compared with it.
    let mut tx = app.db.read().await?;
    let found = super::store::get(&mut tx, request.enrollment_id).await?;
    let enrollment = found.ok_or(RenewError::Unknown)?;
    let device = super::store::device(&mut tx, device_id).await?.ok_or(RenewError::NotEnrolled)?;
    // A leaving one has to come back for its wipe, however long it was away.
    let leaving = device.state == DeviceState::Leaving;
    if enrollment.state != EnrollmentState::Enrolled || (device.state != DeviceState::Enrolled && !leaving) {
        return Err(RenewError::NotEnrolled);
    }
    let serials = super::store::serials(&mut tx, device_id).await?.ok_or(RenewError::NotEnrolled)?;
    let restored = super::store::is_restored(&mut tx, device_id).await?;
    let confirmed = store::confirmed(&mut tx, enrollment.id).await?;
    let authority = Authority::load_for(&mut tx, &app.root, app.board_id, device_id).await?;
    drop(tx);
    if !leaving && let Some(days) = silent_days(&enrollment, &device, confirmed, now) {
        ask(app, &enrollment, &device, &peer.address).await?;
        return Err(RenewError::Waits(days));
    }
    if let Some((certificate, not_after)) = &enrollment.certificate {
        let left = not_after.since(now);
        // After a restore the first use of a new one ends the doubt about which certificates are out there.
        let in_use = left > YOUNG && !restored;
        let young = in_use || (serials.1.is_some() && left > DEVICE_TTL / 2);
        // One of the authority before is exchanged early.
        if young && authority.issued(certificate) {
            return Ok(Enrolled { device_id, certificate: certificate.clone(), not_after: *not_after });
        }
    }
    let mut tx = app.db.write().await?;
    let issued = authority.issue_device(app.board_id, device_id, &enrollment.tls_spki, now, &*app.random)?;
    if store::issue(&mut tx, enrollment.id, &issued, &serials).await? != 1 {
        return Err(RenewError::Raced);
    }
    let entry = Entry::new(now, Who::device(device_id, &peer.address), Action::CertificateRenewed)
        .client(enrollment.client_id)
        .device(device_id)
        .detail("serial", hex(&issued.serial));
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Enrolled { device_id, certificate: issued.der, not_after: issued.not_after })
}

/// Whose request this is, by its signature. Only what isn't signed by a device of ours is counted and held up: a stranger
/// keeps nobody behind the same address from renewing, and writes nothing more once there were too many.
async fn signer(
    app: &App,
    request: &RenewRequest,
    peer: &Peer,
    nonce: &[u8; 32],
) -> Result<DeviceId, RenewError> {
    let mut tx = app.db.read().await?;
    let refused = match super::store::get(&mut tx, request.enrollment_id).await? {
        Some(enrollment) => {
            let signed = renewal_bytes(app.board_id, enrollment.id, nonce, &peer.channel.exporter);
            match verify_p256(&enrollment.tls_spki, &signed, &request.signature) {
                Ok(()) => return enrollment.device_id.ok_or(RenewError::NotEnrolled),
                Err(_) => RenewError::Signature,
            }
        }
        None => RenewError::Unknown,
    };
    let now = app.now();
    if !REFUSED.allows(&mut tx, &peer.address, now).await? {
        return Err(RenewError::TooMany);
    }
    drop(tx);
    let mut tx = app.db.write().await?;
    REFUSED.record(&mut tx, &peer.address, now).await?;
    tx.commit().await?;
    Err(refused)
}

/// How long the device was silent, when that is longer than [`SILENCE`]: since it was heard, or since a consultant let
/// it in or let it go on.
fn silent_days(
    enrollment: &Enrollment,
    device: &Device,
    confirmed: Option<Timestamp>,
    now: Timestamp,
) -> Option<u64> {
    let heard = [device.last_seen_at, enrollment.decided_at, confirmed].into_iter().flatten().max();
    let silent = now.since(heard.unwrap_or(enrollment.created_at));
    (silent > SILENCE).then_some(silent.as_secs() / (24 * 3600))
}

async fn ask(app: &App, enrollment: &Enrollment, device: &Device, address: &str) -> Result<(), RenewError> {
    let mut tx = app.db.write().await?;
    if store::ask(&mut tx, enrollment.id, app.now()).await? == 1 {
        let entry = Entry::new(app.now(), Who::device(device.id, address), Action::RenewalAsked)
            .client(enrollment.client_id)
            .device(device.id);
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        app.jobs.wake(Wake::Decisions);
    }
    Ok(())
}

/// Devices that wait for a consultant's word, oldest first.
pub async fn late_renewals(tx: &mut Tx) -> Result<Vec<LateRenewal>, sqlx::Error> {
    store::late(tx).await
}

/// Lets a device that was silent for long renew; it asks again by itself.
pub async fn confirm_renewal(app: &App, who: Who, device_id: DeviceId) -> Result<Device, Failure> {
    let mut tx = app.db.write().await?;
    let device = super::get_device(&mut tx, device_id).await?;
    if store::confirm(&mut tx, device_id, app.now()).await? != 1 {
        let detail = "This device doesn't wait for a renewal, or somebody confirmed it before.";
        return Err(Failure::conflict("not-open", "Nothing to confirm", detail));
    }
    let entry =
        Entry::new(app.now(), who, Action::RenewalConfirmed).client(device.client_id).device(device_id);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Decisions);
    Ok(device)
}
