//! Enrollment (`design/security.md` section 2): join codes, signed join requests, the typed fingerprint, the sealed
//! nonce, certificates.

pub mod api;
pub mod ca;
mod device;
mod join;
mod leaving;
mod quarantine;
mod renewal;
pub mod rotation;
mod store;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use std::time::Duration;

use shared::crypto::{Fingerprint, FingerprintParts, normalize_fingerprint};
use shared::ids::{ClientId, DeviceId, EnrollmentId, JoinCodeId, UserId};
use shared::protocol::enroll::{Facts, JOIN_CODE_ALPHABET, JOIN_CODE_LEN};
use shared::random::{self, Random};
use shared::text_enum;
use shared::time::Timestamp;

pub use device::{
    CertificateRefused, Device, DeviceState, Standing, check_certificate, client_of, devices_of, get_device,
    is_enrolled, revoke, seen, standing,
};
pub use join::{EnrollError, join, prove, status};
pub use leaving::{
    Asked, WipedError, apply_wiped, ask_to_leave, give_up, leave_all, tls_spki, wipe_for, wipes_of,
};
pub use quarantine::{Quarantined, Release, Stopped, quarantine, quarantined, release};
pub use renewal::{Channel, LateRenewal, RenewError, confirm_renewal, late_renewals, renew};

use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::clients;
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;
use crate::keys::Purpose;

const CODE_TTL: Duration = Duration::from_secs(3600);
/// A request that nobody decides is void after this.
const PENDING_TTL: Duration = Duration::from_secs(3600);

text_enum! {
    pub enum EnrollmentState {
        Pending = "pending",
        /// A consultant typed the fingerprint; the device still has to prove its sealing key.
        Approved = "approved",
        /// The certificate was issued.
        Enrolled = "enrolled",
        Rejected = "rejected",
        Expired = "expired",
        Revoked = "revoked",
    }
}

/// One identity of a device: its keys and what became of them.
#[derive(Clone, Debug)]
pub struct Enrollment {
    pub id: EnrollmentId,
    pub client_id: ClientId,
    pub device_id: Option<DeviceId>,
    pub state: EnrollmentState,
    pub tls_spki: Vec<u8>,
    pub sealing_public_key: [u8; 32],
    pub facts: Facts,
    pub source_address: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub decided_by: Option<String>,
    pub decided_at: Option<Timestamp>,
    pub reason: Option<String>,
    /// When the same join code came with other keys.
    pub code_reused_at: Option<Timestamp>,
    nonce: Option<[u8; 32]>,
    certificate: Option<(Vec<u8>, Timestamp)>,
    /// SubjectPublicKeyInfo of the authority that the device pinned, in DER.
    ca_spki: Vec<u8>,
}

impl Enrollment {
    fn fingerprint(&self, app: &App) -> Fingerprint {
        Fingerprint::of(&FingerprintParts {
            ca_spki: &self.ca_spki,
            board_id: app.board_id,
            client_id: self.client_id,
            enrollment_id: self.id,
            tls_spki: &self.tls_spki,
            sealing_public_key: &self.sealing_public_key,
        })
    }

    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == EnrollmentState::Pending && now < self.expires_at
    }
}

#[derive(Debug)]
pub struct JoinCode {
    pub code: String,
    pub expires: Timestamp,
}

/// A code for one device of one client. The database holds its HMAC only.
pub async fn make_join_code(
    app: &App,
    who: Who,
    by: UserId,
    client_id: ClientId,
) -> Result<JoinCode, Failure> {
    let mut tx = app.db.write().await?;
    clients::engagement::ensure_active(&mut tx, client_id).await?;
    let now = app.now();
    let code = join_code(&*app.random);
    let expires = now.after(CODE_TTL);
    let hmac = app.root.hash_token(Purpose::JoinCode, &code);
    let id = JoinCodeId::new(&*app.clock, &*app.random);
    store::insert_code(&mut tx, id, client_id, &hmac, by, now, expires).await?;
    audit::append(&mut tx, &Entry::new(now, who, Action::JoinCodeMade).client(client_id)).await?;
    tx.commit().await?;
    Ok(JoinCode { code, expires })
}

/// Letters drawn without bias: bytes beyond the last whole alphabet are thrown away.
fn join_code(random: &dyn Random) -> String {
    let mut code = String::new();
    while code.len() < JOIN_CODE_LEN {
        let [byte]: [u8; 1] = random::bytes(random);
        let whole = 256 / JOIN_CODE_ALPHABET.len() * JOIN_CODE_ALPHABET.len();
        if usize::from(byte) < whole {
            code.push(char::from(JOIN_CODE_ALPHABET[usize::from(byte) % JOIN_CODE_ALPHABET.len()]));
        }
    }
    code
}

#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error(
        "This is not the fingerprint of the device that asks here. Read all 16 characters on the Mac again. If they still differ, it is another device: reject it."
    )]
    Mismatch,
    #[error("Type all 16 characters that the Mac shows.")]
    Incomplete,
    #[error(
        "This request was decided already, or its hour is over. Make a new join code if the Mac should still join."
    )]
    NotOpen,
    #[error("This Mac belongs to another client of this board. Its enrollment there has to end first.")]
    OtherClient,
    #[error("{}", .0.public.detail)]
    Reason(Box<Failure>),
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<DecideError> for Failure {
    fn from(error: DecideError) -> Self {
        let text = error.to_string();
        match error {
            DecideError::Mismatch => {
                Self::conflict("fingerprint-mismatch", "The fingerprint does not match", text)
            }
            DecideError::Incomplete => {
                Self::invalid("fingerprint-incomplete", "The fingerprint is not complete", text)
            }
            DecideError::NotOpen => Self::conflict("not-open", "Nothing to decide any more", text),
            DecideError::OtherClient => {
                Self::conflict("other-client", "This Mac is enrolled elsewhere", text)
            }
            DecideError::Reason(failure) => *failure,
            DecideError::Audit(error) => error.into(),
            DecideError::Database(error) => error.into(),
        }
    }
}

/// Approves a pending device when the typed fingerprint is its own. A Mac that was enrolled before keeps its device,
/// history and runbook; its old identity ends.
pub async fn approve(
    app: &App,
    who: Who,
    by: UserId,
    id: EnrollmentId,
    typed: &str,
) -> Result<DeviceId, DecideError> {
    if normalize_fingerprint(typed).chars().count() != 16 {
        return Err(DecideError::Incomplete);
    }
    let now = app.now();
    let mut tx = app.db.write().await?;
    let enrollment = store::get(&mut tx, id).await?.ok_or(DecideError::NotOpen)?;
    if !enrollment.is_open(now) {
        return Err(DecideError::NotOpen);
    }
    if !enrollment.fingerprint(app).matches(typed) {
        let entry = Entry::new(now, who, Action::EnrollmentMismatch)
            .client(enrollment.client_id)
            .detail("enrollment", id);
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        return Err(DecideError::Mismatch);
    }
    clients::engagement::ensure_active(&mut tx, enrollment.client_id)
        .await
        .map_err(|failure| DecideError::Reason(Box::new(failure)))?;
    let device_id = match store::device_by_hardware(&mut tx, &enrollment.facts.hardware_uuid).await? {
        Some(device) if device.client_id != enrollment.client_id => return Err(DecideError::OtherClient),
        Some(device) => {
            store::revoke_identities(&mut tx, device.id).await?;
            store::update_device(&mut tx, device.id, &enrollment.facts).await?;
            device.id
        }
        None => {
            let device_id = DeviceId::new(&*app.clock, &*app.random);
            store::insert_device(&mut tx, device_id, enrollment.client_id, &enrollment.facts, now).await?;
            device_id
        }
    };
    let nonce: [u8; 32] = random::bytes(&*app.random);
    if store::approve(&mut tx, id, device_id, by, now, &nonce).await? != 1 {
        return Err(DecideError::NotOpen);
    }
    let entry = Entry::new(now, who, Action::EnrollmentApproved)
        .client(enrollment.client_id)
        .device(device_id)
        .detail("enrollment", id);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Enrollment(id));
    app.jobs.wake(Wake::Client(enrollment.client_id));
    app.jobs.wake(Wake::Device(device_id));
    Ok(device_id)
}

/// Rejects a pending device; the agent prints the reason.
pub async fn reject(
    app: &App,
    who: Who,
    by: UserId,
    id: EnrollmentId,
    reason: &str,
) -> Result<(), DecideError> {
    let reason = free_text::reason(reason).map_err(|failure| DecideError::Reason(Box::new(failure)))?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    let enrollment = store::get(&mut tx, id).await?.ok_or(DecideError::NotOpen)?;
    if store::reject(&mut tx, id, by, now, reason).await? != 1 {
        return Err(DecideError::NotOpen);
    }
    let entry = Entry::new(now, who, Action::EnrollmentRejected)
        .client(enrollment.client_id)
        .reason(reason)
        .detail("enrollment", id);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Enrollment(id));
    Ok(())
}

/// Requests that can be decided now, oldest first.
pub async fn pending(tx: &mut Tx, now: Timestamp) -> Result<Vec<Enrollment>, sqlx::Error> {
    store::pending(tx, now).await
}

/// How many decisions wait: requests to join, quarantined devices, renewals after a long silence.
pub async fn pending_count(tx: &mut Tx, now: Timestamp) -> Result<u32, sqlx::Error> {
    Ok(u32::try_from(store::pending_count(tx, now).await?).unwrap_or(0))
}

/// The latest decided requests, newest first.
pub async fn decided(tx: &mut Tx, limit: u32) -> Result<Vec<Enrollment>, sqlx::Error> {
    store::decided(tx, i64::from(limit)).await
}

/// Compares two byte strings in constant time.
fn same(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    a.ct_eq(b).into()
}

/// Whether a Mac with this hardware UUID is a device already, and what it is called.
pub async fn known_device(tx: &mut Tx, hardware_uuid: &str) -> Result<Option<Device>, sqlx::Error> {
    store::device_by_hardware(tx, hardware_uuid).await
}
