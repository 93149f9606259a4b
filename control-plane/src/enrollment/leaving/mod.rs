//! Devices that leave (`design/security.md` section 2.9): they get nothing but a wipe, until their signed receipt or the
//! purge ends them.

mod store;

use shared::crypto::verify_p256;
use shared::ids::{BoardId, ClientId, DeviceId, WipeId};
use shared::protocol::wipe::{Leave, Wipe, WipeReceipt};
use shared::time::Timestamp;

pub use store::tls_spki;

use super::{Device, DeviceState, devices_of, get_device};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::jobs::Wake;

/// A device was asked to remove what the board put there.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Asked {
    pub id: WipeId,
    pub device_id: DeviceId,
    pub pasted: bool,
    pub asked_at: Timestamp,
    pub asked_by: String,
    /// As the device signed it.
    pub receipt: Option<String>,
    /// Without one the wipe is not confirmed.
    pub confirmed_at: Option<Timestamp>,
}

impl Asked {
    pub fn receipt(&self) -> Option<WipeReceipt> {
        self.receipt.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }
}

/// Who leaves, and the audit entries for the caller to append last.
#[derive(Default)]
pub struct Leaving {
    /// Those that were asked to wipe.
    pub devices: Vec<Device>,
    pub entries: Vec<Entry>,
}

/// All devices of a client leave. One that never proved its key holds nothing: it is revoked at once.
pub async fn leave_all(
    app: &App,
    tx: &mut Tx,
    who: &Who,
    client_id: ClientId,
    pasted: bool,
) -> Result<Leaving, Failure> {
    store::end_codes(tx, client_id, app.now()).await?;
    let mut leaving = Leaving::default();
    for device in devices_of(tx, client_id).await? {
        match device.state {
            DeviceState::Enrolled | DeviceState::Quarantined => {
                if let Some(entry) = leave(app, tx, &device, who, pasted, "the engagement ended").await? {
                    leaving.entries.push(entry);
                    leaving.devices.push(device);
                }
            }
            DeviceState::Approved => {
                super::store::revoke_device(tx, device.id).await?;
                super::store::revoke_identities(tx, device.id).await?;
                let entry = Entry::new(app.now(), who.clone(), Action::DeviceRevoked)
                    .client(client_id)
                    .device(device.id)
                    .reason("the engagement ended before it was enrolled");
                leaving.entries.push(entry);
            }
            DeviceState::Leaving | DeviceState::Revoked => {}
        }
    }
    Ok(leaving)
}

/// Gives the audit entry for the caller to append last; none when the device is leaving already.
async fn leave(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    who: &Who,
    pasted: bool,
    reason: &str,
) -> Result<Option<Entry>, Failure> {
    if store::leave(tx, device.id, device.state).await? != 1 {
        return Ok(None);
    }
    let id = WipeId::new(&*app.clock, &*app.random);
    store::insert(tx, id, device.id, pasted, app.now(), &who.id).await?;
    let entry = Entry::new(app.now(), who.clone(), Action::DeviceLeaving)
        .client(device.client_id)
        .device(device.id)
        .reason(reason)
        .detail("wipe", id)
        .detail("pasted", pasted);
    Ok(Some(entry))
}

/// `board-agent leave`: a person on the device wants it. The same again changes nothing.
pub async fn ask_to_leave(
    app: &App,
    device_id: DeviceId,
    asked: &Leave,
    address: &str,
) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    let device = get_device(&mut tx, device_id).await?;
    if device.state != DeviceState::Enrolled {
        return Ok(());
    }
    let who = Who::device(device_id, address);
    if let Some(entry) = leave(app, &mut tx, &device, &who, asked.pasted, "asked by the device").await? {
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        app.jobs.wake(Wake::Device(device_id));
        app.jobs.wake(Wake::Client(device.client_id));
    }
    Ok(())
}

/// What a leaving device is to be sent.
pub async fn wipe_for(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Wipe>, sqlx::Error> {
    let open = store::newest(tx, device_id).await?.filter(|asked| asked.confirmed_at.is_none());
    Ok(open.map(|asked| Wipe { wipe_id: asked.id, pasted: asked.pasted }))
}

/// Every time a device of this client was asked, the newest of each device.
pub async fn wipes_of(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Asked>, sqlx::Error> {
    store::of_client(tx, client_id).await
}

#[derive(Debug, thiserror::Error)]
pub enum WipedError {
    #[error("this device wasn't asked for this wipe")]
    Unknown,
    #[error("the receipt's signature doesn't fit the device's key")]
    Signature,
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Takes a receipt: checks the device's signature, and revokes the device. The same receipt again changes nothing.
pub async fn apply_wiped(
    tx: &mut Tx,
    board_id: BoardId,
    device: &Device,
    receipt: &WipeReceipt,
    address: &str,
    now: Timestamp,
) -> Result<(), WipedError> {
    let asked = store::newest(tx, device.id).await?.filter(|asked| asked.id == receipt.wipe_id);
    let asked = asked.ok_or(WipedError::Unknown)?;
    let spki = tls_spki(tx, device.id).await?.ok_or(WipedError::Unknown)?;
    verify_p256(&spki, &receipt.signed_bytes(board_id, device.id), &receipt.signature)
        .map_err(|_| WipedError::Signature)?;
    let text = serde_json::to_string(receipt).map_err(AuditError::from)?;
    if store::confirm(tx, asked.id, &text, now).await? != 1 {
        return Ok(());
    }
    super::store::revoke_device(tx, device.id).await?;
    super::store::revoke_identities(tx, device.id).await?;
    let entry = Entry::new(now, Who::device(device.id, address), Action::DeviceWiped)
        .client(device.client_id)
        .device(device.id)
        .detail("wipe", asked.id)
        .detail("removed", receipt.removed.len())
        .detail("left", receipt.left.len())
        .detail("receipt", text);
    audit::append(tx, &entry).await?;
    Ok(())
}

/// At the purge nobody waits any longer: devices that never confirmed their wipe are revoked. Gives the audit entries for
/// the caller to append last.
pub async fn give_up(
    tx: &mut Tx,
    who: &Who,
    client_id: ClientId,
    now: Timestamp,
) -> Result<Vec<Entry>, sqlx::Error> {
    let mut entries = Vec::new();
    for device in devices_of(tx, client_id).await? {
        if device.state != DeviceState::Leaving {
            continue;
        }
        super::store::revoke_device(tx, device.id).await?;
        super::store::revoke_identities(tx, device.id).await?;
        let entry = Entry::new(now, who.clone(), Action::DeviceRevoked)
            .client(client_id)
            .device(device.id)
            .reason("its wipe was never confirmed");
        entries.push(entry);
    }
    Ok(entries)
}
