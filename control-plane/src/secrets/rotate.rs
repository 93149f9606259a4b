//! A new value for what is stored already, with a reason. Devices get it by deliveries as they got the first one; until its
//! receipt each goes on with the version that it holds.

use shared::ids::{ClientId, SlotId};
use shared::secret::Secret;
use subtle::ConstantTimeEq as _;

use super::{EnvelopeError, Place, SecretError, check_value, open, put_after, store};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::catalog::{self, AnySlot, OurSlot};
use crate::clients::{self, Client, engagement};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::freeze;
use crate::keys::KeyError;

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("This client has no such secret of ours.")]
    NotOurs,
    #[error(
        "Nothing is stored here yet, so there is nothing to rotate. Enter the first value on the client's secrets page."
    )]
    Empty,
    #[error(
        "This is the value that is stored already. Nothing was changed: make a new one at the provider and enter that."
    )]
    Same,
    #[error("{}", .0.public.detail)]
    Refused(Box<Failure>),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<sqlx::Error> for RotateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Secret(error.into())
    }
}

impl From<AuditError> for RotateError {
    fn from(error: AuditError) -> Self {
        Self::Secret(error.into())
    }
}

impl From<Failure> for RotateError {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

impl From<RotateError> for Failure {
    fn from(error: RotateError) -> Self {
        let text = error.to_string();
        match error {
            RotateError::NotOurs => Self::new(404, "not-found", "Not rotated", text),
            RotateError::Empty => Self::conflict("empty", "Not rotated", text),
            RotateError::Same => Self::conflict("same-value", "Not rotated", text),
            RotateError::Refused(failure) => *failure,
            RotateError::Secret(error) => error.into(),
        }
    }
}

/// What a rotation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    pub version: u64,
    /// Enrolled devices of the client that are to get it.
    pub devices: usize,
}

/// Stores a new value and plans its deliveries. The stored one is opened once, to see that the new one differs; one that
/// doesn't open any more is replaced like any other, or nothing could end it.
pub async fn rotate(
    app: &App,
    who: Who,
    client_id: ClientId,
    slot_id: SlotId,
    value: &Secret<String>,
    reason: &str,
) -> Result<Rotated, RotateError> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    engagement::ensure_active(&mut tx, client_id).await?;
    let (client, slot) = ours(&mut tx, client_id, slot_id).await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    if let Some(manifest) = catalog.as_ref().and_then(|catalog| catalog.manifests.get(&slot.component_key)) {
        check_value(manifest, &slot.slot_key, value)?;
    }
    let last = store::version(&mut tx, client_id, slot_id).await?.ok_or(RotateError::Empty)?;
    // Frozen, nothing is opened; new values are what it waits for.
    if freeze::is_on(&mut tx).await? {
        drop(tx);
        return Ok(put_after(app, who, &client, &slot, value, Some(last), reason).await?);
    }
    let place = Place { client_id, slot_id, version: u64::try_from(last).unwrap_or(0) };
    let entry = Entry::new(app.now(), who.clone(), Action::SecretDecrypted)
        .client(client_id)
        .slot(slot_id)
        .reason("compared with its new value")
        .detail("slot", format!("{}/{}", slot.component_key, slot.slot_key))
        .detail("version", place.version);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;

    let mut tx = app.db.read().await?;
    let same = match open(app, &mut tx, place).await {
        Ok(stored) => bool::from(stored.expose().as_slice().ct_eq(value.expose().as_bytes())),
        Err(error) if never_opens(&error) => {
            tracing::warn!(%client_id, %slot_id, "the value that is replaced doesn't open: {error}");
            false
        }
        Err(error) => return Err(error.into()),
    };
    drop(tx);
    if same {
        return Err(RotateError::Same);
    }
    Ok(put_after(app, who, &client, &slot, value, Some(last), reason).await?)
}

/// Whether what is stored won't open at another time either.
fn never_opens(error: &SecretError) -> bool {
    match error {
        SecretError::NotLatest(_)
        | SecretError::Envelope(EnvelopeError::Format | EnvelopeError::Closed)
        | SecretError::Key(KeyError::NoVersion(_)) => true,
        SecretError::Empty
        | SecretError::TooLong
        | SecretError::Form
        | SecretError::Purged
        | SecretError::Ended(_)
        | SecretError::Frozen
        | SecretError::Raced
        | SecretError::Seal
        | SecretError::Catalog(_)
        | SecretError::Key(_)
        | SecretError::Audit(_)
        | SecretError::Database(_) => false,
    }
}

/// The client and its our-managed slot.
pub async fn ours(
    tx: &mut Tx,
    client_id: ClientId,
    slot_id: SlotId,
) -> Result<(Client, OurSlot), RotateError> {
    let client = clients::get(tx, client_id).await?;
    let slot = clients::slots(tx, client_id).await?.into_iter().find_map(|slot| match slot {
        AnySlot::Ours(slot) if slot.id == slot_id => Some(slot),
        AnySlot::Ours(_) | AnySlot::Theirs(_) => None,
    });
    Ok((client, slot.ok_or(RotateError::NotOurs)?))
}
