//! From one certificate authority to the next (`design/security.md` section 2.10). The new one is certified by the old one.
//! Both are believed until every living device has said that it keeps the new one's pin; only then the listener shows it.
//!
//! Everything is rows: killed anywhere, it goes on. The running board looks for a change every few seconds.

mod store;
#[cfg(test)]
mod tests;

use shared::crypto::{hex, sha256};
use shared::ids::DeviceId;
use shared::protocol::link::NewCa;
use shared::text_enum;
use shared::time::Timestamp;

use super::ca::{Authority, CaError, DEVICE_TTL, spki_of};
use super::{Device, DeviceState};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::keys::KeyError;

text_enum! {
    pub enum AuthorityState {
        /// It issues, and the listener shows it.
        Active = "active",
        /// Devices are told about it; those that keep its pin get certificates from it.
        Coming = "coming",
        Retired = "retired",
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(
        "a rotation is under way already: see `board ca status`, and end it with `board ca rotate --finish`"
    )]
    UnderWay,
    #[error("no rotation is under way: begin one with `board ca rotate`")]
    NotBegun,
    #[error(
        "not finished, nothing was changed: {0} would have to join again. Wait until they were on, revoke those that are gone, \
         or use --force"
    )]
    Waits(String),
    #[error("the authority changed at the same moment; look with `board ca status`")]
    Raced,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// How a living device stands to the authority that is coming.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Standing {
    pub device_id: DeviceId,
    pub device: String,
    pub client: String,
    pub state: DeviceState,
    pub last_seen_at: Option<Timestamp>,
    pub acknowledged: bool,
}

#[derive(Clone, Debug)]
pub struct Coming {
    pub pin: String,
    pub begun_at: Timestamp,
    pub devices: Vec<Standing>,
    /// Requests to join that nobody decided: their devices pinned the active authority.
    pub open_requests: u32,
}

#[derive(Clone, Debug)]
pub struct Status {
    /// Pin of the authority that the listener shows.
    pub pin: String,
    pub since: Timestamp,
    pub coming: Option<Coming>,
}

/// Makes the next authority, certified by the active one. Gives its pin.
pub async fn begin(app: &App, who: Who) -> Result<String, RotationError> {
    let (mut tx, root) = app.root.write(&app.db).await?;
    if store::coming(&mut tx).await?.is_some() {
        return Err(RotationError::UnderWay);
    }
    let active = Authority::load(&mut tx, &app.root, app.board_id).await?;
    let next = active.successor(&root, app.board_id, app.now(), &*app.random)?;
    let number = store::last_number(&mut tx).await? + 1;
    store::insert(&mut tx, number, &next, app.now()).await?;
    let pin = pin_of(&next.certificate)?;
    let entry = Entry::new(app.now(), who, Action::CaRotationBegun)
        .detail("from", pin_of(active.certificate())?)
        .detail("to", &pin);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(pin)
}

/// Makes the coming authority the one that is shown. Gives the devices that have to join again: none, unless forced.
pub async fn finish(app: &App, who: Who, force: bool) -> Result<Vec<Standing>, RotationError> {
    let now = app.now();
    let mut tx = app.db.write().await?;
    // Whoever joins at this moment is counted, or meets the next authority.
    store::hold_active(&mut tx).await?;
    let Status { pin: from, coming: Some(coming), .. } = status(&mut tx, now).await? else {
        return Err(RotationError::NotBegun);
    };
    let stranded: Vec<Standing> = coming.devices.into_iter().filter(|one| !one.acknowledged).collect();
    if !force && (!stranded.is_empty() || coming.open_requests > 0) {
        let mut waits: Vec<String> =
            stranded.iter().map(|one| format!("{} ({})", one.device, one.client)).collect();
        if coming.open_requests > 0 {
            let requests = crate::web::count(
                coming.open_requests,
                "device that asks to join",
                "devices that ask to join",
            );
            waits.push(requests);
        }
        return Err(RotationError::Waits(waits.join(", ")));
    }
    if store::retire_active(&mut tx, now).await? != 1 || store::activate_coming(&mut tx).await? != 1 {
        return Err(RotationError::Raced);
    }
    let names = stranded.iter().map(|one| one.device_id.to_string()).collect::<Vec<_>>().join(" ");
    let entry = Entry::new(now, who, Action::CaRotationFinished)
        .detail("from", from)
        .detail("to", coming.pin)
        .detail("stranded", names);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(stranded)
}

pub async fn status(tx: &mut Tx, now: Timestamp) -> Result<Status, RotationError> {
    let active = store::active(tx).await?.ok_or(CaError::Missing)?;
    let coming = match store::coming(tx).await? {
        Some(row) => Some(Coming {
            pin: pin_of(&row.certificate)?,
            begun_at: row.created_at,
            devices: store::standings(tx, row.number).await?,
            open_requests: u32::try_from(super::store::open_requests(tx, now).await?).unwrap_or(u32::MAX),
        }),
        None => None,
    };
    Ok(Status { pin: pin_of(&active.certificate)?, since: active.created_at, coming })
}

/// The number of the active authority, which stays active until the transaction ends.
pub async fn hold_active(tx: &mut Tx) -> Result<i64, CaError> {
    store::hold_active(tx).await?.ok_or(CaError::Missing)
}

/// What a device has to be told of the coming authority, and that one's number; nothing once it said that it keeps its pin.
pub async fn news(tx: &mut Tx, device_id: DeviceId) -> Result<Option<(i64, NewCa)>, sqlx::Error> {
    let found = store::news(tx, device_id).await?;
    Ok(found.map(|(number, certificate, proof, issuer)| (number, NewCa { certificate, issuer, proof })))
}

#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    #[error("the device pinned an authority that this board doesn't have")]
    Unknown,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// The device keeps this pin. Gives the audit entry when that is new, for the caller to append last.
pub async fn acknowledge(
    tx: &mut Tx,
    device: &Device,
    pin: &[u8],
    address: &str,
    now: Timestamp,
) -> Result<Option<Entry>, AcknowledgeError> {
    let known = store::all(tx).await?;
    let fits = |certificate: &[u8]| spki_of(certificate).is_ok_and(|spki| sha256(&spki) == pin);
    let number = known.into_iter().find(|(_, certificate)| fits(certificate)).map(|(number, _)| number);
    let number = number.ok_or(AcknowledgeError::Unknown)?;
    if store::acknowledge(tx, device.id, number).await? != 1 {
        return Ok(None);
    }
    let entry = Entry::new(now, Who::device(device.id, address), Action::CaAcknowledged)
        .client(device.client_id)
        .device(device.id)
        .detail("pin", hex(pin));
    Ok(Some(entry))
}

/// The authorities whose device certificates are taken: also one that was retired, until the last of them has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// The one that the listener shows.
    pub active: i64,
    pub certificates: Vec<Vec<u8>>,
}

pub async fn believed(tx: &mut Tx, now: Timestamp) -> Result<Believed, CaError> {
    let active = store::active(tx).await?.ok_or(CaError::Missing)?;
    let certificates = store::believed(tx, now.before(DEVICE_TTL)).await?;
    Ok(Believed { active: active.number, certificates })
}

/// Whether the device's next certificate comes from the coming authority.
pub async fn issuer_of(tx: &mut Tx, device_id: DeviceId) -> Result<AuthorityState, sqlx::Error> {
    let keeps = store::keeps_coming(tx, device_id).await?;
    Ok(if keeps { AuthorityState::Coming } else { AuthorityState::Active })
}

fn pin_of(certificate: &[u8]) -> Result<String, CaError> {
    Ok(hex(&sha256(&spki_of(certificate)?)))
}
