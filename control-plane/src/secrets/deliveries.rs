//! Deliveries: one version of one secret on its way to one device, until the device's signed receipt is in the log.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::crypto::{DeliveryContext, SealingPublicKey, seal_delivery, verify_p256};
use shared::ids::{BoardId, ClientId, DeliveryId, DeviceId, SlotId};
use shared::protocol::link::{Deliver, HeldSecret, Receipt};
use shared::text_enum;
use shared::time::Timestamp;

use super::store::StoredSlot;
use super::{Place, SecretError, open, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog;
use crate::clients;
use crate::db::Tx;
use crate::enrollment;
use crate::freeze;

/// How long a sealed frame may be opened by the device.
const DELIVERY_TTL: Duration = Duration::from_secs(600);

text_enum! {
    pub enum DeliveryState {
        Pending = "pending",
        Sent = "sent",
        Receipted = "receipted",
        Refused = "refused",
        /// A newer version took its place before it arrived, or the client's scope doesn't want its slot.
        Superseded = "superseded",
    }
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Delivery {
    pub id: DeliveryId,
    pub device_id: DeviceId,
    pub client_id: ClientId,
    pub slot_id: SlotId,
    pub component_key: String,
    pub slot_key: String,
    pub display_name: String,
    pub version: i64,
    pub state: DeliveryState,
    pub reason: Option<String>,
    pub receipt_at: Option<Timestamp>,
}

/// Makes the deliveries that a device lacks, the latest version of every stored secret that its client's scope wants, and
/// withdraws those that it doesn't want any more.
pub async fn plan(app: &App, tx: &mut Tx, device_id: DeviceId) -> Result<(), SecretError> {
    let now = app.now();
    for (slot, is_wanted) in stored(tx, device_id).await? {
        if !is_wanted {
            store::withdraw(tx, device_id, slot.slot_id).await?;
            continue;
        }
        let id = DeliveryId::new(&*app.clock, &*app.random);
        store::insert_delivery(tx, id, device_id, slot.slot_id, slot.version, now).await?;
        store::supersede(tx, device_id, slot.slot_id, slot.version).await?;
    }
    Ok(())
}

/// [`plan`] for every enrolled device of a client: its scope changed.
pub async fn plan_all(app: &App, tx: &mut Tx, client_id: ClientId) -> Result<(), SecretError> {
    for device_id in store::devices_of(tx, client_id).await? {
        plan(app, tx, device_id).await?;
    }
    Ok(())
}

/// What is stored for a device's client, and whether the client's scope wants it.
async fn stored(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<(StoredSlot, bool)>, SecretError> {
    let stored = store::stored_for(tx, device_id).await?;
    let Some(first) = stored.first() else { return Ok(Vec::new()) };
    let scope = clients::scope(tx, first.client_id).await?;
    let catalog = catalog::current(tx).await?;
    let wants = |slot: &StoredSlot| {
        catalog.as_ref().is_some_and(|catalog| scope.wants(catalog, &slot.component_key, &slot.slot_key))
    };
    let judged = stored.into_iter().map(|slot| {
        let is_wanted = wants(&slot);
        (slot, is_wanted)
    });
    Ok(judged.collect())
}

/// The slots of ours that a device is to have.
async fn wanted(tx: &mut Tx, device_id: DeviceId) -> Result<BTreeSet<SlotId>, SecretError> {
    let stored = stored(tx, device_id).await?;
    Ok(stored.into_iter().filter(|(_, is_wanted)| *is_wanted).map(|(slot, _)| slot.slot_id).collect())
}

/// What is on its way to a device or there already: of each slot the newest version.
pub async fn for_device(tx: &mut Tx, device_id: DeviceId) -> Result<Vec<Delivery>, sqlx::Error> {
    let mut newest: Vec<Delivery> = Vec::new();
    for delivery in store::deliveries(tx, device_id).await? {
        match newest.last_mut() {
            Some(last) if last.slot_id == delivery.slot_id => *last = delivery,
            _ => newest.push(delivery),
        }
    }
    Ok(newest)
}

/// Compares with what a device says that it holds: what it lost (a new disk, a fresh agent) is delivered again, and so is
/// what it refused before; what its client's scope doesn't want waits until it does.
pub async fn reconcile(tx: &mut Tx, device_id: DeviceId, held: &[HeldSecret]) -> Result<(), SecretError> {
    let wanted = wanted(tx, device_id).await?;
    for delivery in for_device(tx, device_id).await? {
        let holds = held.iter().any(|secret| {
            secret.component == delivery.component_key
                && secret.slot == delivery.slot_key
                && i64::try_from(secret.version).is_ok_and(|version| version >= delivery.version)
        });
        let lacks = match delivery.state {
            DeliveryState::Receipted => !holds,
            DeliveryState::Refused => true,
            DeliveryState::Pending | DeliveryState::Sent | DeliveryState::Superseded => false,
        };
        if lacks {
            let is_wanted = wanted.contains(&delivery.slot_id);
            let to = if is_wanted { DeliveryState::Pending } else { DeliveryState::Superseded };
            store::reopen(tx, delivery.id, delivery.state, to).await?;
        }
    }
    Ok(())
}

/// Which of these slots of a component have no receipt for the latest stored version, as names for a person.
pub async fn missing(
    tx: &mut Tx,
    device_id: DeviceId,
    component: &str,
    slots: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    let receipted: Vec<Delivery> = for_device(tx, device_id)
        .await?
        .into_iter()
        .filter(|delivery| delivery.component_key == component && delivery.state == DeliveryState::Receipted)
        .collect();
    Ok(slots
        .iter()
        .filter(|slot| !receipted.iter().any(|delivery| delivery.slot_key == **slot))
        .map(|slot| format!("{component}/{slot}"))
        .collect())
}

/// Seals one delivery to its device, unless it was closed meanwhile or its client's scope doesn't want it any more. The
/// decrypt's entry is committed before the value is opened.
pub async fn seal(
    app: &App,
    delivery: &Delivery,
    bundle_digest: &str,
) -> Result<Option<Deliver>, SecretError> {
    let mut tx = app.db.write().await?;
    let Some(sealing_key) = store::sealing_key(&mut tx, delivery.device_id).await? else {
        return Ok(None);
    };
    if freeze::is_on(&mut tx).await? {
        return Err(SecretError::Frozen);
    }
    if !wanted(&mut tx, delivery.device_id).await?.contains(&delivery.slot_id) {
        return Ok(None);
    }
    let now = app.now();
    let expires = now.after(DELIVERY_TTL);
    if store::mark_sent(&mut tx, delivery.id, expires).await? != 1 {
        return Ok(None);
    }
    let version = u64::try_from(delivery.version).unwrap_or(0);
    let entry = Entry::new(now, Who::job("delivery"), Action::SecretDecrypted)
        .client(delivery.client_id)
        .slot(delivery.slot_id)
        .device(delivery.device_id)
        .reason("sealed to the device")
        .detail("delivery", delivery.id)
        .detail("version", version);
    let seq = audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    let mut tx = app.db.write().await?;
    store::set_decrypt(&mut tx, delivery.id, i64::try_from(seq).unwrap_or(0)).await?;
    tx.commit().await?;

    let mut tx = app.db.read().await?;
    let place = Place { client_id: delivery.client_id, slot_id: delivery.slot_id, version };
    let value = open(app, &mut tx, place).await?;
    let recipient = SealingPublicKey::from_bytes(&sealing_key).ok_or(SecretError::Seal)?;
    let context = DeliveryContext {
        client_id: delivery.client_id,
        device_id: delivery.device_id,
        component_key: &delivery.component_key,
        slot_key: &delivery.slot_key,
        tag: shared::catalog::Tag::OurManaged,
        version,
        delivery_id: delivery.id,
        expires,
    };
    let sealed = seal_delivery(&recipient, &context, &value).map_err(|_| SecretError::Seal)?;
    Ok(Some(Deliver {
        delivery_id: delivery.id,
        bundle_digest: bundle_digest.to_owned(),
        component: delivery.component_key.clone(),
        slot: delivery.slot_key.clone(),
        version,
        expires,
        sealed,
    }))
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("there is no such delivery for this device")]
    Unknown,
    #[error("the receipt names another secret or version than its delivery")]
    Mismatch,
    #[error("the receipt's signature doesn't fit the device's key")]
    Signature,
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<sqlx::Error> for ReceiptError {
    fn from(error: sqlx::Error) -> Self {
        Self::Secret(error.into())
    }
}

/// A receipt that was taken.
#[derive(Debug)]
pub struct Received {
    /// Points at the decrypt; for the caller to append last.
    pub entry: Entry,
    pub version: u64,
    /// The device has this version for the first time: what it had lost and got again is not new.
    pub is_new: bool,
}

/// Takes a receipt: checks the device's signature and closes the delivery. The same receipt again changes nothing.
pub async fn apply_receipt(
    tx: &mut Tx,
    board_id: BoardId,
    device_id: DeviceId,
    receipt: &Receipt,
    address: &str,
    now: Timestamp,
) -> Result<Option<Received>, ReceiptError> {
    let delivery = store::delivery(tx, device_id, receipt.delivery_id).await?.ok_or(ReceiptError::Unknown)?;
    if delivery.component_key != receipt.component
        || delivery.slot_key != receipt.slot
        || u64::try_from(delivery.version).ok() != Some(receipt.version)
    {
        return Err(ReceiptError::Mismatch);
    }
    let spki = enrollment::tls_spki(tx, device_id).await?.ok_or(ReceiptError::Unknown)?;
    verify_p256(&spki, &receipt.signed_bytes(board_id, device_id), &receipt.signature)
        .map_err(|_| ReceiptError::Signature)?;
    let text = serde_json::to_string(receipt).map_err(|error| SecretError::Audit(error.into()))?;
    let is_new = !store::was_receipted(tx, delivery.id).await?;
    if store::mark_receipted(tx, delivery.id, &text, now).await? != 1 {
        return Ok(None);
    }
    store::set_held(tx, device_id, delivery.slot_id, delivery.version, now).await?;
    let decrypt = store::decrypt_of(tx, delivery.id).await?.unwrap_or(0);
    let entry = Entry::new(now, Who::device(device_id, address), Action::DeliveryReceipt)
        .client(delivery.client_id)
        .slot(delivery.slot_id)
        .device(device_id)
        .detail("delivery", delivery.id)
        .detail("decrypt", decrypt)
        .detail("receipt", text);
    Ok(Some(Received { entry, version: receipt.version, is_new }))
}

/// The device refused a delivery and said why.
pub async fn apply_refusal(
    tx: &mut Tx,
    device_id: DeviceId,
    delivery_id: DeliveryId,
    reason: &str,
    address: &str,
    now: Timestamp,
) -> Result<(), ReceiptError> {
    let delivery = store::delivery(tx, device_id, delivery_id).await?.ok_or(ReceiptError::Unknown)?;
    if store::mark_refused(tx, delivery.id, reason).await? != 1 {
        return Ok(());
    }
    let entry = Entry::new(now, Who::device(device_id, address), Action::DeliveryRefused)
        .client(delivery.client_id)
        .slot(delivery.slot_id)
        .device(device_id)
        .reason(reason)
        .detail("delivery", delivery.id);
    audit::append(tx, &entry).await.map_err(SecretError::from)?;
    Ok(())
}
