//! Copying a secret of ours into a consultant's clipboard, for when there is no other way (`design/security.md`
//! section 6). Who asks has given their password within five minutes; the router's gate sees to that, and lets no API
//! token near it. Where a client wants a second person, another consultant has approved this very copy.

use std::time::Duration;

use shared::ids::{ApprovalId, ClientId, SlotId, UserId};
use shared::secret::Secret;

use super::views::CopyForm;
use super::{Place, SecretError, open, store};
use crate::access::approvals::{self, Approval, ApprovalError, Subject};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::catalog::{self, AnySlot, Catalog, OurSlot};
use crate::clients::{self, Client};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::freeze;
use crate::jobs::Wake;

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
    #[error(
        "This client wants a second person for each copy. Nothing was copied. Ask for one on the client's secrets page."
    )]
    SecondPerson,
    #[error("Copying this client's secrets needs no second person, so nothing was asked. Copy it directly.")]
    Alone,
    #[error(transparent)]
    Approval(#[from] ApprovalError),
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
            CopyError::SecondPerson => Self::conflict("second-person", "A second person is needed", text),
            CopyError::Alone => Self::conflict("second-person", "No second person is needed", text),
            CopyError::Approval(error) => error.into(),
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
    let mut tx = app.db.write().await?;
    let found = copyable(&mut tx, client_id, slot_id).await?;
    if clients::second_person(&mut tx, client_id).await? {
        return Err(CopyError::SecondPerson);
    }
    hand_over(app, tx, (who, by), found, reason, None).await
}

/// Opens it because a second person approved, once; the entry names both.
pub async fn copy_approved(
    app: &App,
    who: Who,
    by: UserId,
    id: ApprovalId,
) -> Result<Secret<Vec<u8>>, CopyError> {
    let mut tx = app.db.write().await?;
    let approval = approvals::use_up(app, &mut tx, by, id).await?;
    let Subject::Copy(slot_id) = approval.subject else { return Err(ApprovalError::Used.into()) };
    let found = copyable(&mut tx, approval.client_id, slot_id).await?;
    let value = hand_over(app, tx, (who, by), found, &approval.reason, Some(&approval)).await?;
    app.jobs.wake(Wake::Approvals);
    Ok(value)
}

/// Asks another consultant to approve one copy.
pub async fn ask_for_copy(
    app: &App,
    who: Who,
    by: UserId,
    client_id: ClientId,
    slot_id: SlotId,
    reason: &str,
) -> Result<ApprovalId, CopyError> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    let found = copyable(&mut tx, client_id, slot_id).await?;
    if !clients::second_person(&mut tx, client_id).await? {
        return Err(CopyError::Alone);
    }
    let id = approvals::ask(app, &mut tx, by, client_id, Subject::Copy(slot_id), reason).await?;
    let entry = found.about(Entry::new(app.now(), who, Action::ApprovalAsked)).reason(reason);
    audit::append(&mut tx, &entry.detail("approval", id).detail("for", "a copy")).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Approvals);
    Ok(id)
}

/// Approves or declines what somebody else asked for. Switching a client's rule off happens at once.
pub async fn decide(app: &App, who: Who, by: UserId, id: ApprovalId, yes: bool) -> Result<(), ApprovalError> {
    let mut tx = app.db.write().await?;
    let approval = approvals::decide(app, &mut tx, by, id, yes).await?;
    let switched = match approval.subject {
        Subject::SwitchOff if yes => clients::switched_off(app, &mut tx, who.clone(), &approval).await?,
        Subject::SwitchOff | Subject::Copy(_) => None,
    };
    let action = if yes { Action::ApprovalGiven } else { Action::ApprovalDeclined };
    let mut entry = Entry::new(app.now(), who, action)
        .client(approval.client_id)
        .reason(&approval.reason)
        .detail("approval", approval.id)
        .detail("asked_by", &approval.asker);
    if let Subject::Copy(slot) = approval.subject {
        entry = entry.slot(slot);
    }
    audit::append(&mut tx, &entry).await?;
    if let Some(entry) = switched {
        audit::append(&mut tx, &entry).await?;
    }
    tx.commit().await?;
    app.jobs.wake(Wake::Approvals);
    app.jobs.wake(Wake::Client(approval.client_id));
    Ok(())
}

/// A stored secret of ours that a person may copy.
struct Copyable {
    client: Client,
    slot: OurSlot,
    version: u64,
}

impl Copyable {
    fn about(&self, entry: Entry) -> Entry {
        entry
            .client(self.client.id)
            .slot(self.slot.id)
            .detail("client", &self.client.name)
            .detail("slot", format!("{}/{}", self.slot.component_key, self.slot.slot_key))
    }
}

async fn copyable(tx: &mut Tx, client_id: ClientId, slot_id: SlotId) -> Result<Copyable, CopyError> {
    if freeze::is_on(tx).await? {
        return Err(freeze::refused().into());
    }
    let client = clients::get(tx, client_id).await?;
    let slot = clients::slots(tx, client_id).await?.into_iter().find_map(|slot| match slot {
        AnySlot::Ours(slot) if slot.id == slot_id => Some(slot),
        AnySlot::Ours(_) | AnySlot::Theirs(_) => None,
    });
    let slot = slot.ok_or(CopyError::NotOurs)?;
    let catalog = catalog::current(tx).await.map_err(Failure::from)?;
    if !allowed(catalog.as_ref(), &slot.component_key, &slot.slot_key) {
        return Err(CopyError::Forbidden);
    }
    let version = store::version(tx, client_id, slot_id).await?.ok_or(CopyError::Empty)?;
    Ok(Copyable { client, slot, version: u64::try_from(version).unwrap_or(0) })
}

/// Counts the copy, commits its entry, and only then opens the value.
async fn hand_over(
    app: &App,
    mut tx: Tx,
    (who, by): (Who, UserId),
    found: Copyable,
    reason: &str,
    approval: Option<&Approval>,
) -> Result<Secret<Vec<u8>>, CopyError> {
    let now = app.now();
    let (last, recent) = store::copies(&mut tx, by, now.before(WINDOW)).await?;
    if recent >= LIMIT {
        return Err(CopyError::TooMany);
    }
    if store::insert_copy(&mut tx, by, last + 1, now).await? != 1 {
        return Err(CopyError::AtOnce);
    }
    let place = Place { client_id: found.client.id, slot_id: found.slot.id, version: found.version };
    let mut entry = found.about(Entry::new(now, who, Action::SecretCopied)).reason(reason);
    entry = entry.detail("version", place.version);
    if let Some(approval) = approval {
        let decider = approval.decider.as_deref().unwrap_or_default();
        entry = entry.detail("approval", approval.id).detail("approved_by", decider);
    }
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

/// The form of a stored secret, for who may copy it. `id` tells it from the others of the page. Where a second person is
/// wanted, it asks for one.
pub fn copy_form(
    visitor: &Visitor,
    catalog: Option<&Catalog>,
    (client_id, slot_id): (ClientId, SlotId),
    (component, slot): (&str, &str),
    name: &str,
    id: String,
    second_person: bool,
) -> Option<CopyForm> {
    let may = visitor.can(Role::Consultant) && allowed(catalog, component, slot);
    may.then(|| CopyForm {
        id,
        action: match second_person {
            true => format!("/clients/{client_id}/secrets/{slot_id}/ask"),
            false => format!("/clients/{client_id}/secrets/{slot_id}/copy"),
        },
        second_person,
        name: name.to_owned(),
        variable: is_variable(slot).then(|| slot.to_owned()),
        ask_password: !visitor.fresh,
    })
}

/// The form that uses an approval.
pub fn approved_form(visitor: &Visitor, id: ApprovalId, (key, name): (&str, &str)) -> CopyForm {
    CopyForm {
        id: id.to_string(),
        action: format!("/approvals/{id}/copy"),
        second_person: false,
        name: name.to_owned(),
        variable: is_variable(key).then(|| key.to_owned()),
        ask_password: !visitor.fresh,
    }
}

/// Whether a shell takes it as the name of an environment variable.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(fits)
}
