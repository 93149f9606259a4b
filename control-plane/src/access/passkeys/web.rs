use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::{Form, Json};
use axum_extra::extract::CookieJar;
use serde::Deserialize;
use shared::ids::PasskeyId;

use super::views::{AccountPage, PasskeyRow};
use super::{Purpose, are_required, ask, of_user, register, relying_party, remove, require, sign_in};
use crate::access::Visitor;
use crate::access::web::signed_in;
use crate::app::App;
use crate::error::Failure;
use crate::pages::{Page, page};
use crate::web::{Moment, Section};

#[derive(Deserialize)]
pub struct At {
    #[serde(default)]
    at: String,
}

/// A challenge for the page's script; each is good for one answer.
pub async fn question(
    State(app): State<App>,
    visitor: Visitor,
    Path(purpose): Path<Purpose>,
    Query(At { at }): Query<At>,
) -> Result<Response, Failure> {
    Ok(Json(ask(&app, &visitor, purpose, &at).await?).into_response())
}

pub async fn account_page(State(app): State<App>, visitor: Visitor) -> Page {
    let now = visitor.now;
    let user = visitor.user()?;
    let mut tx = app.db.read().await?;
    let passkeys = of_user(&mut tx, user.id).await?.into_iter().map(|passkey| PasskeyRow {
        added: Moment { at: passkey.created_at, now },
        used: passkey.last_used_at.map(|at| Moment { at, now }),
        remove: format!("/account/passkeys/{}/remove", passkey.id),
        name: passkey.name,
    });
    page(&AccountPage {
        shell: visitor.shell(Section::None),
        email: user.email.clone(),
        passkeys: passkeys.collect(),
        required: are_required(&mut tx).await?,
        nowhere: relying_party(&app, &visitor).err().map(|error| error.to_string()),
    })
}

#[derive(Deserialize)]
pub struct RegisterForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    passkey: String,
}

pub async fn register_form(State(app): State<App>, visitor: Visitor, Form(form): Form<RegisterForm>) -> Page {
    register(&app, &visitor, "/account/passkeys", &form.name, &form.passkey).await?;
    Ok(Redirect::to("/account").into_response())
}

pub async fn remove_form(State(app): State<App>, visitor: Visitor, Path(id): Path<PasskeyId>) -> Page {
    remove(&app, &visitor, id).await?;
    Ok(Redirect::to("/account").into_response())
}

#[derive(Deserialize)]
pub struct AnswerForm {
    #[serde(default)]
    passkey: String,
}

pub async fn sign_in_form(
    State(app): State<App>,
    visitor: Visitor,
    jar: CookieJar,
    Form(form): Form<AnswerForm>,
) -> Page {
    let session = sign_in(&app, &visitor, &form.passkey).await?;
    Ok(signed_in(&visitor, jar, &session))
}

/// By a one-time link: the way back in of who lost their passkeys.
pub async fn link_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(token): Path<String>,
    jar: CookieJar,
    Form(form): Form<RegisterForm>,
) -> Page {
    let at = format!("/welcome/{token}/passkey");
    match register(&app, &visitor, &at, &form.name, &form.passkey).await? {
        Some(session) => Ok(signed_in(&visitor, jar, &session)),
        None => Err(super::PasskeyError::LinkOver.into()),
    }
}

#[derive(Deserialize)]
pub struct RequireForm {
    #[serde(default)]
    on: bool,
}

pub async fn require_form(State(app): State<App>, visitor: Visitor, Form(form): Form<RequireForm>) -> Page {
    let user = visitor.user()?.id;
    let mut tx = app.db.write().await?;
    require(&mut tx, visitor.who(), Some(user), form.on, app.now()).await?;
    tx.commit().await?;
    Ok(Redirect::to("/users").into_response())
}
