//! Copying a secret of ours into a consultant's clipboard, for when there is no other way (`design/security.md`
//! section 6). Who asks has given their password within five minutes; the router's gate sees to that, and lets no API
//! token near it.

use std::time::Duration;

use shared::ids::{ClientId, SlotId, UserId};
use shared::secret::Secret;

use super::views::CopyForm;
use super::{Place, SecretError, open, store};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::catalog::{self, AnySlot, Catalog};
use crate::clients;
use crate::error::Failure;
use crate::free_text;
use crate::freeze;

/// Copies that a user may make within [`WINDOW`].
pub const LIMIT: i64 = 10;
const WINDOW: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("This client has no such secret of ours.")]
    NotOurs,
    #[error(
        "The catalog forbids copying this secret. The device gets it sealed; there is no other way to it."
    )]
    Forbidden,
    #[error(
        "Nothing is stored here yet, so there is nothing to copy. Enter the value on the client's secrets page."
    )]
    Empty,
    #[error(
        "You copied {LIMIT} secrets within an hour, which is the most. Wait, or let the device get it sealed."
    )]
    TooMany,
    #[error("You copied another secret at the same moment. Nothing was copied this time: try again.")]
    AtOnce,
    #[error("{}", .0.public.detail)]
    Refused(Box<Failure>),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Secret(error.into())
    }
}

impl From<AuditError> for CopyError {
    fn from(error: AuditError) -> Self {
        Self::Secret(error.into())
    }
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let text = error.to_string();
        match error {
            CopyError::NotOurs => Self::new(404, "not-found", "Not copied", text),
            CopyError::Forbidden => Self::forbidden(&text),
            CopyError::Empty => Self::conflict("empty", "Not copied", text),
            CopyError::TooMany => Self::new(429, "too-many-copies", "Not copied", text),
            CopyError::AtOnce => Self::conflict("at-once", "Not copied", text),
            CopyError::Refused(failure) => *failure,
            CopyError::Secret(error) => error.into(),
        }
    }
}

/// Opens the stored value for a person. The entry of it is committed before, and stays when the answer never arrives.
pub async fn copy(
    app: &App,
    who: Who,
    by: UserId,
    client_id: ClientId,
    slot_id: SlotId,
    reason: &str,
) -> Result<Secret<Vec<u8>>, CopyError> {
    let reason = free_text::reason(reason)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    if freeze::is_on(&mut tx).await? {
        return Err(freeze::refused().into());
    }
    let client = clients::get(&mut tx, client_id).await?;
    let slot = clients::slots(&mut tx, client_id).await?.into_iter().find_map(|slot| match slot {
        AnySlot::Ours(slot) if slot.id == slot_id => Some(slot),
        AnySlot::Ours(_) | AnySlot::Theirs(_) => None,
    });
    let slot = slot.ok_or(CopyError::NotOurs)?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    if !allowed(catalog.as_ref(), &slot.component_key, &slot.slot_key) {
        return Err(CopyError::Forbidden);
    }
    let version = store::version(&mut tx, client_id, slot_id).await?.ok_or(CopyError::Empty)?;
    let (last, recent) = store::copies(&mut tx, by, now.before(WINDOW)).await?;
    if recent >= LIMIT {
        return Err(CopyError::TooMany);
    }
    if store::insert_copy(&mut tx, by, last + 1, now).await? != 1 {
        return Err(CopyError::AtOnce);
    }
    let place = Place { client_id, slot_id, version: u64::try_from(version).unwrap_or(0) };
    let entry = Entry::new(now, who, Action::SecretCopied)
        .client(client_id)
        .slot(slot_id)
        .reason(reason)
        .detail("client", client.name)
        .detail("slot", format!("{}/{}", slot.component_key, slot.slot_key))
        .detail("version", place.version);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;

    let mut tx = app.db.read().await?;
    Ok(open(app, &mut tx, place).await?)
}

/// Whether a manifest of this bundle lets the slot be copied. What the bundle doesn't know is not.
fn allowed(catalog: Option<&Catalog>, component: &str, slot: &str) -> bool {
    let manifest = catalog.and_then(|catalog| catalog.manifests.get(component));
    manifest.and_then(|manifest| manifest.slot(slot)).is_some_and(|slot| slot.copy)
}

/// The form of a stored secret, for who may copy it. `id` tells it from the others of the page.
pub fn copy_form(
    visitor: &Visitor,
    catalog: Option<&Catalog>,
    (client_id, slot_id): (ClientId, SlotId),
    (component, slot): (&str, &str),
    name: &str,
    id: String,
) -> Option<CopyForm> {
    let may = visitor.can(Role::Consultant) && allowed(catalog, component, slot);
    may.then(|| CopyForm {
        id,
        action: format!("/clients/{client_id}/secrets/{slot_id}/copy"),
        name: name.to_owned(),
        variable: is_variable(slot).then(|| slot.to_owned()),
        ask_password: !visitor.fresh,
    })
}

/// Whether a shell takes it as the name of an environment variable.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(fits)
}
