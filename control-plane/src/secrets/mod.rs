//! Our-managed secrets: at rest as `BSE1` envelopes under the client's own key, on their way as `BSD1` sealed to one
//! device. Nothing here takes a value for a client-supplied slot: [`first`] wants an [`OurSlot`], and [`relay`] takes what
//! only the device can open, passes it on and forgets it.
//!
//! No decrypt without a committed audit entry before it.

pub mod api;
pub mod approvals;
mod board;
mod copy;
mod deliveries;
mod envelope;
mod pasting;
mod rekey;
mod rotate;
mod spread;
mod store;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use std::collections::BTreeSet;

use serde::Serialize;
use shared::catalog::Manifest;
use shared::crypto::{hex, sha256};
use shared::ids::{ClientId, DeviceId, SlotId};
use shared::secret::{MAX_LEN, Secret};
use shared::time::Timestamp;

pub use board::{
    BoardSecret, StoredBoardSecret, open_board, open_board_to_end, put_board, remove_board, stored_board,
};
pub use copy::{CopyError, ask_for_copy, copy, copy_approved, copy_form, decide};
pub use deliveries::{
    Delivery, DeliveryState, ReceiptError, Received, apply_receipt, apply_refusal, for_device, missing, plan,
    plan_all, reconcile, seal,
};
pub use envelope::{EnvelopeError, Place};
pub use pasting::{PasteError, Way, recipient, relay, sealing_key};
pub use rekey::{Moved, move_board_to, move_to, name_of, unmoved, unmoved_board};
pub use rotate::{RotateError, Rotated, rotate};
pub use spread::{Spread, note_held, spread};

use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::catalog::{CatalogError, OurSlot};
use crate::clients::{self, Client};
use crate::db::Tx;
use crate::error::Failure;
use crate::freeze;
use crate::jobs::Wake;
use crate::keys::{KeyError, RootKey};

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("The value is empty.")]
    Empty,
    #[error("The value is longer than {} bytes.", MAX_LEN)]
    TooLong,
    #[error(
        "The value doesn't have the form that this slot wants. Check that all of it was pasted, and nothing else."
    )]
    Form,
    #[error("This client's key was erased with its purge: secrets can't be stored or opened any more.")]
    Purged,
    #[error("{}", .0.public.detail)]
    Ended(Box<Failure>),
    #[error("the secret in the database is not the latest one written: {0}")]
    NotLatest(&'static str),
    #[error("The board is frozen because of an incident, so no secret is opened.")]
    Frozen,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("Somebody else stored a value for this slot at the same moment. Look at the page and try again.")]
    Raced,
    #[error("the value can't be sealed to this device's key")]
    Seal,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the catalog can't be read: {0}")]
    Catalog(CatalogError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl SecretError {
    fn ended(failure: Failure) -> Self {
        Self::Ended(Box::new(failure))
    }
}

impl From<CatalogError> for SecretError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Database(error) => Self::Database(error),
            CatalogError::Audit(error) => Self::Audit(error),
            other @ (CatalogError::Bundle(_)
            | CatalogError::NotNewer { .. }
            | CatalogError::TagChanged { .. }
            | CatalogError::Check(_)) => Self::Catalog(other),
        }
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Ended(failure) => *failure,
            SecretError::Empty | SecretError::TooLong | SecretError::Form => {
                Self::invalid("secret", "The secret was not saved", error.to_string())
            }
            SecretError::Purged => Self::conflict("purged", "This client was purged", error.to_string()),
            SecretError::Frozen => freeze::refused(),
            SecretError::Raced => Self::conflict("raced", "Stored at the same moment", error.to_string()),
            SecretError::Database(error) => error.into(),
            SecretError::Key(error) => error.into(),
            SecretError::Audit(error) => error.into(),
            SecretError::Catalog(error) => error.into(),
            SecretError::NotLatest(_) | SecretError::Envelope(_) | SecretError::Seal => Self::internal(error),
        }
    }
}

/// What is known of a stored secret without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredSecret {
    pub slot_id: SlotId,
    pub version: i64,
    pub last_rotated_at: Timestamp,
}

/// Checks a value against its slot's manifest. Errors never repeat it.
pub fn check_value(manifest: &Manifest, slot_key: &str, value: &Secret<String>) -> Result<(), SecretError> {
    if value.expose().is_empty() {
        return Err(SecretError::Empty);
    }
    if value.expose().len() > MAX_LEN {
        return Err(SecretError::TooLong);
    }
    let pattern = manifest.slot(slot_key).and_then(|slot| slot.pattern.as_deref());
    match pattern.map(regex::Regex::new) {
        Some(Ok(pattern)) if !pattern.is_match(value.expose()) => Err(SecretError::Form),
        Some(Err(_)) => Err(SecretError::Form),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Stores the first value of a slot; [`SecretError::Raced`] when there is one. Devices get it by deliveries.
pub async fn first(
    app: &App,
    who: Who,
    client: &Client,
    slot: &OurSlot,
    value: &Secret<String>,
) -> Result<u64, SecretError> {
    Ok(put_after(app, who, client, slot, value, None, "").await?.version)
}

/// For tests: stores a value, whatever was stored before.
#[cfg(test)]
pub async fn put(
    app: &App,
    who: Who,
    client: &Client,
    slot: &OurSlot,
    value: &Secret<String>,
) -> Result<u64, SecretError> {
    let mut tx = app.db.read().await?;
    let last = store::version(&mut tx, client.id, slot.id).await?;
    drop(tx);
    Ok(put_after(app, who, client, slot, value, last, "").await?.version)
}

/// Stores a value in place of version `last`, unless somebody else did.
async fn put_after(
    app: &App,
    who: Who,
    client: &Client,
    slot: &OurSlot,
    value: &Secret<String>,
    last: Option<i64>,
    reason: &str,
) -> Result<Rotated, SecretError> {
    let (mut tx, _) = app.root.write(&app.db).await?;
    let mut put = write(app, &mut tx, who, client, slot, value, last).await?;
    put.entry = put.entry.reason(reason);
    put.commit(app, tx).await
}

/// Stores a value as a part of the caller's transaction, which began with [`crate::keys::RootKey::write`] and ends with
/// [`Put::commit`].
pub async fn put_within(
    app: &App,
    tx: &mut Tx,
    who: Who,
    client: &Client,
    slot: &OurSlot,
    value: &Secret<String>,
) -> Result<Put, SecretError> {
    let last = store::version(tx, client.id, slot.id).await?;
    write(app, tx, who, client, slot, value, last).await
}

/// A value that is stored as soon as its transaction is.
#[must_use = "without its entry the value can't be opened"]
#[derive(Debug)]
pub struct Put {
    pub version: u64,
    client_id: ClientId,
    devices: Vec<DeviceId>,
    entry: Entry,
}

impl Put {
    /// Appends the entry, commits, and wakes whom the value concerns.
    pub async fn commit(self, app: &App, mut tx: Tx) -> Result<Rotated, SecretError> {
        audit::append(&mut tx, &self.entry).await?;
        tx.commit().await?;
        app.jobs.wake(Wake::Client(self.client_id));
        for device in &self.devices {
            app.jobs.wake(Wake::Device(*device));
        }
        Ok(Rotated { version: self.version, devices: self.devices.len() })
    }
}

/// Its version is above the last, and above all that devices say they hold: after a restore they may be ahead of the board.
async fn write(
    app: &App,
    tx: &mut Tx,
    who: Who,
    client: &Client,
    slot: &OurSlot,
    value: &Secret<String>,
    last: Option<i64>,
) -> Result<Put, SecretError> {
    clients::engagement::ensure_active(tx, client.id).await.map_err(SecretError::ended)?;
    // A purge in between erased the salt, and a reactivation made another.
    let client = clients::get(tx, client.id).await.map_err(SecretError::ended)?;
    let salt = client.salt.ok_or(SecretError::Purged)?;
    let held = store::highest_held(tx, client.id, slot.id).await?;
    let version = u64::try_from(last.unwrap_or(0).max(held.unwrap_or(0))).unwrap_or(0) + 1;
    let place = Place { client_id: client.id, slot_id: slot.id, version };
    let root = app.root.for_writing(tx).await?;
    let key = root.client_key(&salt, client.id);
    let sealed = envelope::seal(&key, root.version, place, value.expose().as_bytes(), &*app.random)?;
    if store::upsert(tx, place, last.unwrap_or(0), &sealed, app.now()).await? != 1 {
        return Err(SecretError::Raced);
    }
    let devices = store::devices_of(tx, client.id).await?;
    for device in &devices {
        plan(app, tx, *device).await?;
    }
    let entry = Entry::new(app.now(), who, Action::SecretStored)
        .client(client.id)
        .slot(slot.id)
        .detail("slot", format!("{}/{}", slot.component_key, slot.slot_key))
        .detail("version", version)
        .detail("envelope_sha256", hex(&sha256(&sealed)));
    Ok(Put { version, client_id: client.id, devices, entry })
}

/// Deletes what is stored for a client whose salt is erased in the same transaction, and closes its deliveries. Gives how
/// many secrets there were.
pub async fn purge(tx: &mut Tx, client_id: ClientId) -> Result<u64, sqlx::Error> {
    store::close_deliveries(tx, client_id).await?;
    store::delete_credentials(tx, client_id).await
}

/// What is stored for a client, without values.
pub async fn stored(tx: &mut Tx, client_id: ClientId) -> Result<Vec<StoredSecret>, sqlx::Error> {
    store::stored(tx, client_id).await
}

/// A stored secret of ours, without its value: what somebody who has the board and its root key could read.
#[derive(Clone, Debug, Serialize)]
pub struct Exposed {
    pub client_id: ClientId,
    pub client: String,
    pub slot_id: SlotId,
    pub component_key: String,
    pub slot_key: String,
    pub version: i64,
    pub last_rotated_at: Timestamp,
    /// The engagement has ended: it gets no new value here, and is ended at its provider.
    pub ended: bool,
    /// Names of the devices that said they hold it.
    pub devices: Vec<String>,
}

/// Every stored secret of ours.
pub async fn exposed(tx: &mut Tx) -> Result<Vec<Exposed>, sqlx::Error> {
    let mut found: Vec<Exposed> = Vec::new();
    for row in store::exposed(tx).await? {
        match found.last_mut() {
            Some(last) if (last.client_id, last.slot_id) == (row.client_id, row.slot_id) => {
                last.devices.extend(row.device);
            }
            Some(_) | None => found.push(Exposed {
                client_id: row.client_id,
                client: row.client,
                slot_id: row.slot_id,
                component_key: row.component_key,
                slot_key: row.slot_key,
                version: row.version,
                last_rotated_at: row.last_rotated_at,
                ended: row.ended,
                devices: row.device.into_iter().collect(),
            }),
        }
    }
    Ok(found)
}

/// (component, slot) of everything that is stored for a client.
pub async fn stored_slots(
    tx: &mut Tx,
    client_id: ClientId,
) -> Result<BTreeSet<(String, String)>, sqlx::Error> {
    Ok(store::stored_slots(tx, client_id).await?.into_iter().collect())
}

/// Secrets under one version of the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Under {
    /// None: what is stored is no envelope.
    pub root_version: Option<u32>,
    pub secrets: u64,
    pub clients: u64,
}

/// How many secrets are under which version of the root key. Nothing is opened.
pub async fn under(tx: &mut Tx) -> Result<Vec<Under>, sqlx::Error> {
    let count = |stored| u64::try_from(stored).unwrap_or(0);
    let rows = store::under(tx).await?;
    Ok(rows
        .into_iter()
        .map(|(version, secrets, clients)| Under {
            root_version: <[u8; 4]>::try_from(version).ok().map(u32::from_be_bytes),
            secrets: count(secrets),
            clients: count(clients),
        })
        .collect())
}

/// How many secrets are left of clients whose key was erased: none of them opens.
pub async fn without_salt(tx: &mut Tx) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(store::without_salt(tx).await?).unwrap_or(0))
}

/// Opens the latest version. The caller has committed the audit entry for it already.
async fn open(app: &App, tx: &mut Tx, place: Place) -> Result<Secret<Vec<u8>>, SecretError> {
    let sealed = store::envelope(tx, place)
        .await?
        .ok_or(SecretError::NotLatest("this version is not there any more"))?;
    if freeze::is_on(tx).await? {
        return Err(SecretError::Frozen);
    }
    let (_, value) = open_sealed(&app.root, tx, place, &sealed).await?;
    Ok(value)
}

/// The client's salt and the value, frozen or not: for [`open`], and for a rekey.
async fn open_sealed(
    root: &RootKey,
    tx: &mut Tx,
    place: Place,
    sealed: &[u8],
) -> Result<([u8; 32], Secret<Vec<u8>>), SecretError> {
    let client = clients::find(tx, place.client_id).await?.ok_or(SecretError::NotLatest("no such client"))?;
    let salt = client.salt.ok_or(SecretError::Purged)?;
    let written = audit::latest_envelope(tx, place.client_id, place.slot_id).await?;
    if written.as_deref() != Some(hex(&sha256(sealed)).as_str()) {
        return Err(SecretError::NotLatest("the audit log holds another hash for it"));
    }
    let root = root.at(tx, envelope::root_version(sealed)?).await?;
    let value = envelope::open(&root.client_key(&salt, place.client_id), place, sealed)?;
    Ok((salt, value))
}
