//! The operator's page of providers, and what a consultant does to a client's key.

use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse as _, Redirect};
use serde::Deserialize;
use shared::ids::ClientId;
use shared::secret::Secret;

use super::views::{KeySection, OUT_OF_SCOPE, ProvidersPage, REPLACED};
use super::{
    COMPONENT, DEFAULT_LIMIT_MICROS, KeyState, SLOT, delete, key, make_again, parse_limit, reading_trouble,
    set_disabled, set_limit,
};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::catalog::{self, AnySlot};
use crate::clients;
use crate::db::Tx;
use crate::error::Failure;
use crate::jobs::Wake;
use crate::pages::{Page, PageFailure, page, status};
use crate::secrets::{self, BoardSecret, SecretError, put_board, remove_board, stored_board};
use crate::web::{FieldError, Moment, Section};

const FIELD: &str = crate::access::SECRET_FIELD;

pub async fn providers_page(State(app): State<App>, visitor: Visitor) -> Page {
    page(&providers(&app, &visitor, Vec::new()).await?)
}

async fn providers(
    app: &App,
    visitor: &Visitor,
    errors: Vec<FieldError>,
) -> Result<ProvidersPage, PageFailure> {
    let mut tx = app.db.read().await?;
    let stored = stored_board(&mut tx, BoardSecret::OpenRouterManagement).await?;
    let now = visitor.now;
    Ok(ProvidersPage {
        shell: visitor.shell(Section::Providers),
        trouble: reading_trouble(&mut tx).await?.filter(|_| stored.is_some()),
        stored: stored.map(|stored| (stored.version, Moment { at: stored.changed_at, now })),
        ask_password: !visitor.fresh,
        errors,
    })
}

#[derive(Deserialize)]
pub struct ManagementKeyForm {
    #[serde(default = "nothing")]
    secret: Secret<String>,
}

fn nothing() -> Secret<String> {
    Secret::new(String::new())
}

pub async fn management_key_form(
    State(app): State<App>,
    visitor: Visitor,
    Form(form): Form<ManagementKeyForm>,
) -> Page {
    let which = BoardSecret::OpenRouterManagement;
    let made_of = (&*app.clock, &*app.random);
    match put_board(&app.db, &app.root, made_of, visitor.who(), which, &form.secret).await {
        Ok(_) => {
            wake_all(&app).await?;
            Ok(Redirect::to("/providers").into_response())
        }
        Err(error @ (SecretError::Empty | SecretError::TooLong | SecretError::Form)) => {
            let errors =
                vec![FieldError::new(FIELD, format!("{error} A management key begins with sk-or-."))];
            Ok((status(422), page(&providers(&app, &visitor, errors).await?)?).into_response())
        }
        Err(error) => Err(Failure::from(error).into()),
    }
}

pub async fn remove_management_key_form(State(app): State<App>, visitor: Visitor) -> Page {
    remove_board(&app.db, &*app.clock, visitor.who(), BoardSecret::OpenRouterManagement)
        .await
        .map_err(Failure::from)?;
    Ok(Redirect::to("/providers").into_response())
}

/// Steps that wait for the management key are of clients that have the component.
async fn wake_all(app: &App) -> Result<(), sqlx::Error> {
    let mut tx = app.db.read().await?;
    for client in clients::list(&mut tx).await? {
        if clients::components(&mut tx, client.id).await?.iter().any(|key| key == COMPONENT) {
            app.jobs.wake(Wake::Client(client.id));
        }
    }
    Ok(())
}

/// The version of the client's slot that is stored.
async fn slot_version(tx: &mut Tx, client_id: ClientId) -> Result<Option<i64>, sqlx::Error> {
    let Some(AnySlot::Ours(slot)) = catalog::slot(tx, COMPONENT, SLOT).await? else { return Ok(None) };
    let stored = secrets::stored(tx, client_id).await?;
    Ok(stored.iter().find(|stored| stored.slot_id == slot.id).map(|stored| stored.version))
}

/// What a client's page shows; nothing for a client that has nothing to do with OpenRouter.
pub async fn section(
    tx: &mut Tx,
    client_id: ClientId,
    visitor: &Visitor,
) -> Result<Option<KeySection>, sqlx::Error> {
    let known = key(tx, client_id).await?;
    let in_scope = clients::components(tx, client_id).await?.iter().any(|key| key == COMPONENT);
    if known.is_none() && !in_scope {
        return Ok(None);
    }
    let mut notes = Vec::new();
    if let Some(key) = known.as_ref().filter(|key| key.state == KeyState::Stored) {
        if slot_version(tx, client_id).await? != key.version {
            notes.push(REPLACED);
        }
        if !in_scope {
            notes.push(OUT_OF_SCOPE);
        }
    }
    let action = format!("/clients/{client_id}/openrouter");
    Ok(Some(KeySection {
        notes,
        can_consult: visitor.can(Role::Consultant),
        ask_password: !visitor.fresh,
        ..KeySection::of(known.as_ref(), action, DEFAULT_LIMIT_MICROS, visitor.now)
    }))
}

#[derive(Deserialize)]
pub struct LimitForm {
    #[serde(default)]
    limit: String,
}

pub async fn limit_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<LimitForm>,
) -> Page {
    let limit = parse_limit(&form.limit)?;
    back(id, set_limit(&app, visitor.who(), id, limit).await)
}

pub async fn disable_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    back(id, set_disabled(&app, visitor.who(), id, true).await)
}

pub async fn enable_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    back(id, set_disabled(&app, visitor.who(), id, false).await)
}

pub async fn delete_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    back(id, delete(&app, visitor.who(), id).await)
}

pub async fn make_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    back(id, make_again(&app, visitor.who(), id).await)
}

fn back(id: ClientId, done: Result<(), super::ProviderError>) -> Page {
    done.map_err(Failure::from)?;
    Ok(Redirect::to(&format!("/clients/{id}#openrouter")).into_response())
}
