use std::collections::HashMap;

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use shared::ids::{ClientId, SlotId};
use shared::secret::Secret;

use super::rotate::ours as our_slot;
use super::views::{
    OurSlot as OurView, RotatePage, RunsAgain, SecretsPage, SpreadLine, TheirSlot as TheirView,
};
use super::{
    CopyError, RotateError, SecretError, check_value, copy, copy_form, first, rotate, spread, stored,
};
use crate::access::Visitor;
use crate::app::App;
use crate::catalog::{self, AnySlot};
use crate::clients::{self, views::ClientRef};
use crate::enrollment::{self, DeviceState};
use crate::error::Failure;
use crate::free_text;
use crate::pages::{Page, PageFailure, page, status, wants_problem};
use crate::web::{FieldError, Moment, Section};

pub async fn secrets_page(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    page(&filled(&app, &visitor, id, Vec::new(), None).await?)
}

/// First values arrive in fields named `slot-ID`. Every filled one is stored; one that doesn't fit stops none of the
/// others. What is stored already is rotated on a page of its own, with a reason.
pub async fn secrets_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<HashMap<String, Secret<String>>>,
) -> Page {
    let mut tx = app.db.read().await?;
    let client = clients::get(&mut tx, id).await?;
    let slots = clients::slots(&mut tx, id).await?;
    let known = stored(&mut tx, id).await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    drop(tx);
    let mut errors = Vec::new();
    let mut saved = 0;
    for slot in slots.iter().filter_map(ours) {
        let field = field(slot);
        let Some(value) = form.get(&field).filter(|value| !value.expose().is_empty()) else { continue };
        if known.iter().any(|secret| secret.slot_id == slot.id) {
            let message =
                "A value is stored here already, and this one was not saved. Use Rotate to replace it.";
            errors.push(FieldError::new(field, message));
            continue;
        }
        let manifest = catalog.as_ref().and_then(|catalog| catalog.manifests.get(&slot.component_key));
        let checked = manifest.map_or(Ok(()), |manifest| check_value(manifest, &slot.slot_key, value));
        let done = match checked {
            Ok(()) => first(&app, visitor.who(), &client, slot, value).await.map(|_| ()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => saved += 1,
            Err(
                error @ (SecretError::Empty | SecretError::TooLong | SecretError::Form | SecretError::Raced),
            ) => errors.push(FieldError::new(field, error.to_string())),
            Err(error) => return Err(Failure::from(error).into()),
        }
    }
    if errors.is_empty() {
        return Ok(Redirect::to(&format!("/clients/{id}")).into_response());
    }
    let sentence =
        (saved > 0).then(|| crate::web::count(saved as u64, "secret was saved.", "secrets were saved."));
    let shown = filled(&app, &visitor, id, errors, sentence).await?;
    Ok((status(422), page(&shown)?).into_response())
}

/// The page that takes a new value; `restarts` is what the runbooks do when it arrives.
pub async fn rotate_page(
    app: &App,
    visitor: &Visitor,
    (client_id, slot_id): (ClientId, SlotId),
    restarts: Vec<RunsAgain>,
) -> Page {
    page(&rotating(app, visitor, (client_id, slot_id), restarts, String::new(), Vec::new()).await?)
}

/// `secret` is the one name of a field that the page which asks for the password again doesn't hold.
#[derive(Deserialize)]
pub struct RotateFields {
    secret: Option<Secret<String>>,
    #[serde(default)]
    reason: String,
}

/// What was posted to that page.
pub async fn rotate_form(
    app: &App,
    visitor: &Visitor,
    (client_id, slot_id): (ClientId, SlotId),
    restarts: Vec<RunsAgain>,
    form: RotateFields,
) -> Page {
    let mut errors = Vec::new();
    if let Err(failure) = free_text::reason(&form.reason) {
        errors.push(FieldError::new("reason", failure.public.detail));
    }
    let value = form.secret.filter(|value| !value.expose().is_empty());
    match value {
        None => errors.insert(0, FieldError::new("secret", "Enter the new value.")),
        Some(value) if errors.is_empty() => {
            match rotate(app, visitor.who(), client_id, slot_id, &value, &form.reason).await {
                Ok(_) => return Ok(Redirect::to(&format!("/clients/{client_id}#slots")).into_response()),
                Err(
                    error @ (RotateError::Same
                    | RotateError::Secret(
                        SecretError::Empty | SecretError::TooLong | SecretError::Form,
                    )),
                ) => errors.push(FieldError::new("secret", error.to_string())),
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Some(_) => errors.push(FieldError::new("secret", "Enter the new value again: it is never kept.")),
    }
    let reason = free_text::shown_again(&form.reason).to_owned();
    let shown = rotating(app, visitor, (client_id, slot_id), restarts, reason, errors).await?;
    Ok((status(422), page(&shown)?).into_response())
}

async fn rotating(
    app: &App,
    visitor: &Visitor,
    (client_id, slot_id): (ClientId, SlotId),
    restarts: Vec<RunsAgain>,
    reason: String,
    errors: Vec<FieldError>,
) -> Result<RotatePage, Failure> {
    let mut tx = app.db.read().await?;
    let (client, slot) = our_slot(&mut tx, client_id, slot_id).await?;
    let known = stored(&mut tx, client_id).await?;
    let known = known.into_iter().find(|secret| secret.slot_id == slot_id);
    let catalog = catalog::current(&mut tx).await?;
    let manifest = catalog.as_ref().and_then(|catalog| catalog.manifests.get(&slot.component_key));
    let found = spread(&mut tx, client_id).await?;
    let devices = enrollment::devices_of(&mut tx, client_id).await?;
    let devices = devices.iter().filter(|device| device.state == DeviceState::Enrolled).map(|device| {
        let of_device =
            found.iter().find(|spread| spread.device_id == device.id && spread.slot_id == slot_id);
        SpreadLine::of(device, of_device, app.links.since(device.id).is_some(), visitor.now)
    });
    let known = known.ok_or(RotateError::Empty)?;
    Ok(RotatePage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{client_id}"), name: client.name },
        action: format!("/clients/{client_id}/secrets/{slot_id}/rotate"),
        component: manifest.map_or_else(|| slot.component_key.clone(), |manifest| manifest.name.clone()),
        name: slot.name,
        key: slot.slot_key.clone(),
        version: u64::try_from(known.version).unwrap_or(0),
        at: Moment { at: known.last_rotated_at, now: visitor.now },
        devices: devices.collect(),
        restarts,
        reason,
        errors,
        ask_password: !visitor.fresh,
    })
}

#[derive(Deserialize)]
pub struct CopyFields {
    #[serde(default)]
    reason: String,
}

/// Answers with the value itself, to a script of ours only: a browser that posted the form would show it.
pub async fn copy_secret(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    Path((client_id, slot_id)): Path<(ClientId, SlotId)>,
    Form(form): Form<CopyFields>,
) -> Result<Response, Failure> {
    let by = visitor.user()?.id;
    handed_over(&headers, async || copy(&app, visitor.who(), by, client_id, slot_id, &form.reason).await)
        .await
}

/// Gives a script of ours what `value` opens.
pub(super) async fn handed_over(
    headers: &HeaderMap,
    value: impl AsyncFnOnce() -> Result<Secret<Vec<u8>>, CopyError>,
) -> Result<Response, Failure> {
    if !wants_problem(headers) {
        let detail = "Copying needs JavaScript: the value goes straight into the clipboard and is never on a page. \
                      Nothing was copied.";
        let failure = Failure::new(406, "script-only", "Not copied", detail);
        return Ok(PageFailure::from(failure).into_response());
    }
    let value = value().await?;
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((plain, value.expose().clone()).into_response())
}

fn ours(slot: &AnySlot) -> Option<&catalog::OurSlot> {
    match slot {
        AnySlot::Ours(slot) => Some(slot),
        AnySlot::Theirs(_) => None,
    }
}

fn field(slot: &catalog::OurSlot) -> String {
    format!("slot-{}", slot.id)
}

async fn filled(
    app: &App,
    visitor: &Visitor,
    id: ClientId,
    errors: Vec<FieldError>,
    saved: Option<String>,
) -> Result<SecretsPage, PageFailure> {
    let mut tx = app.db.read().await?;
    let client = clients::get(&mut tx, id).await?;
    let known = stored(&mut tx, id).await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    let name = |key: &str| catalog.as_ref().map_or_else(|| key.to_owned(), |catalog| catalog.name_of(key));
    let second_person = clients::second_person(&mut tx, id).await?;
    let (mut ours, mut theirs, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for slot in clients::slots(&mut tx, id).await? {
        if let AnySlot::Ours(slot) = &slot
            && known.iter().any(|secret| secret.slot_id == slot.id)
        {
            let keys = (slot.component_key.as_str(), slot.slot_key.as_str());
            let anchor = slot.id.to_string();
            let place = (id, slot.id);
            let form = copy_form(visitor, catalog.as_ref(), place, keys, &slot.name, anchor, second_person);
            copies.extend(form);
        }
        match slot {
            AnySlot::Ours(slot) => ours.push(OurView {
                field: field(&slot),
                rotate: format!("/clients/{id}/secrets/{}/rotate", slot.id),
                component: name(&slot.component_key),
                name: slot.name,
                key: slot.slot_key,
                stored: known.iter().find(|secret| secret.slot_id == slot.id).map(|secret| {
                    let version = u64::try_from(secret.version).unwrap_or(0);
                    (version, Moment { at: secret.last_rotated_at, now: visitor.now })
                }),
            }),
            AnySlot::Theirs(slot) => theirs.push(TheirView {
                component: name(&slot.component_key),
                hint: clients::fill_hint(&slot.hint, &client),
                name: slot.name,
                key: slot.slot_key,
            }),
        }
    }
    Ok(SecretsPage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{id}"), name: client.name },
        ours,
        theirs,
        copies,
        errors,
        saved,
    })
}
