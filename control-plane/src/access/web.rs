use axum::Form;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use serde::Deserialize;
use shared::secret::Secret;

use super::views::{SetPasswordPage, SignInPage, StepUpPage};
use super::{
    AccessError, SECRET_FIELD, SESSION_TTL, STEP_UP_FIELD, STEP_UP_PASSKEY, Visitor, accept_link, link_owner,
    passkeys, sign_in, sign_out, step_up,
};
use crate::app::App;
use crate::error::Failure;
use crate::free_text::{self, shown_again};
use crate::pages::{Page, PageFailure, page, wants_problem};
use crate::web::{FieldError, Section};

pub const COOKIE: &str = "board_session";
/// Characters (RFC 5321 has no longer path).
const MAX_EMAIL: usize = 254;
/// Bytes; a passphrase is far shorter.
const MAX_PASSWORD: usize = 1024;

pub async fn sign_in_page(visitor: Visitor) -> Page {
    if visitor.user.is_some() {
        return Ok(Redirect::to("/clients").into_response());
    }
    page(&SignInPage { shell: visitor.shell(Section::None), email: String::new(), error: None })
}

#[derive(Deserialize)]
pub struct SignInForm {
    email: String,
    password: Secret<String>,
}

pub async fn sign_in_form(
    State(app): State<App>,
    visitor: Visitor,
    jar: CookieJar,
    Form(form): Form<SignInForm>,
) -> Page {
    if free_text::check(&form.email, MAX_EMAIL).is_err() || form.password.expose().len() > MAX_PASSWORD {
        let shown = SignInPage {
            shell: visitor.shell(Section::None),
            email: String::new(),
            error: Some("That is no email address or password of a user here. Type them again.".to_owned()),
        };
        return Ok((crate::pages::status(422), page(&shown)?).into_response());
    }
    match sign_in(&app, form.email.trim(), &form.password, &visitor.address).await {
        Ok(token) => Ok(signed_in(&visitor, jar, &token)),
        Err(error @ (AccessError::WrongPassword | AccessError::TooMany | AccessError::PasskeyNeeded)) => {
            let shown = SignInPage {
                shell: visitor.shell(Section::None),
                email: form.email,
                error: Some(error.to_string()),
            };
            let status = Failure::from(error).public.status;
            Ok((crate::pages::status(status), page(&shown)?).into_response())
        }
        Err(error) => Err(Failure::from(error).into()),
    }
}

pub async fn link_page(State(app): State<App>, visitor: Visitor, Path(token): Path<String>) -> Page {
    let email = link_owner(&app, &token).await.map_err(Failure::from)?;
    page(&SetPasswordPage {
        shell: visitor.shell(Section::None),
        email,
        action: format!("/welcome/{token}"),
        errors: Vec::new(),
    })
}

#[derive(Deserialize)]
pub struct PasswordForm {
    password: Secret<String>,
    repeat: Secret<String>,
}

pub async fn link_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(token): Path<String>,
    jar: CookieJar,
    Form(form): Form<PasswordForm>,
) -> Page {
    let email = link_owner(&app, &token).await.map_err(Failure::from)?;
    let error = if form.password.expose().len() > MAX_PASSWORD {
        FieldError::new("password", format!("A password has at most {MAX_PASSWORD} bytes."))
    } else if form.password.expose() == form.repeat.expose() {
        match accept_link(&app, &token, &form.password, &visitor.address).await {
            Ok(session) => return Ok(signed_in(&visitor, jar, &session)),
            Err(error @ AccessError::ShortPassword) => FieldError::new("password", error.to_string()),
            Err(error) => return Err(Failure::from(error).into()),
        }
    } else {
        FieldError::new("repeat", "The two passwords differ. Type the same one twice.")
    };
    let shown = SetPasswordPage {
        shell: visitor.shell(Section::None),
        email,
        action: format!("/welcome/{token}"),
        errors: vec![error],
    };
    Ok((crate::pages::status(422), page(&shown)?).into_response())
}

pub async fn sign_out_form(State(app): State<App>, visitor: Visitor, jar: CookieJar) -> Page {
    if let Some(cookie) = jar.get(COOKIE) {
        sign_out(&app, cookie.value(), visitor.who()).await.map_err(Failure::from)?;
    }
    Ok((jar.remove(Cookie::build(COOKIE).path("/").build()), Redirect::to("/sign-in")).into_response())
}

/// For the gate, before a POST that wants a fresh session: lets it through when its form brings the right password, and
/// asks for it otherwise. The page that asks holds what was typed, but never a field named [`SECRET_FIELD`]: no other field
/// of these forms may carry a secret beside the password.
pub async fn stepped_up(app: &App, visitor: &Visitor, request: Request) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let again = |body: Body| Request::from_parts(parts.clone(), body);
    let bytes = Bytes::from_request(again(body), &()).await.map_err(IntoResponse::into_response)?;
    let form = Form::<Vec<(String, Secret<String>)>>::from_request(again(bytes.clone().into()), &()).await;
    let fields = form.map(|Form(fields)| fields).unwrap_or_default();
    let brought = |field: &str| {
        let value = fields.iter().find(|(name, _)| name == field).map(|(_, value)| value);
        value.filter(|value| !value.expose().is_empty())
    };
    let proved = match (brought(STEP_UP_PASSKEY), brought(STEP_UP_FIELD)) {
        (Some(answer), _) => {
            let at = parts.uri.path();
            passkeys::step_up(app, visitor, at, answer.expose()).await.map_err(AccessError::from)
        }
        (None, Some(typed)) => step_up(app, visitor, typed).await,
        (None, None) => Err(AccessError::NotFresh),
    };
    let error = match proved {
        Ok(()) => return Ok(again(bytes.into())),
        Err(error) => error,
    };
    let beside = FieldError::new(STEP_UP_FIELD, error.to_string());
    let asked = matches!(error, AccessError::NotFresh);
    let known = asked
        || matches!(
            error,
            AccessError::WrongStepUp
                | AccessError::TooMany
                | AccessError::PasskeyNeeded
                | AccessError::Passkey(_)
        );
    let failure = Failure::from(error);
    if wants_problem(&parts.headers) {
        return Err(failure.into_response());
    }
    if !known {
        return Err(PageFailure::from(failure).into_response());
    }
    let kept = fields
        .iter()
        .filter(|(name, _)| ![STEP_UP_FIELD, STEP_UP_PASSKEY, SECRET_FIELD].contains(&name.as_str()));
    let shown = page(&StepUpPage {
        shell: visitor.shell(Section::None),
        email: visitor.user.as_ref().map(|user| user.email.clone()).unwrap_or_default(),
        action: parts.uri.path().to_owned(),
        lost_secret: fields.iter().any(|(name, _)| name == SECRET_FIELD),
        fields: kept.map(|(name, value)| (name.clone(), shown_again(value.expose()).to_owned())).collect(),
        errors: if asked { Vec::new() } else { vec![beside] },
    });
    Err((crate::pages::status(failure.public.status), shown).into_response())
}

pub(super) fn signed_in(visitor: &Visitor, jar: CookieJar, token: &Secret<String>) -> Response {
    let age = i64::try_from(SESSION_TTL.as_secs()).unwrap_or(0);
    let cookie = Cookie::build((COOKIE, token.expose().clone()))
        .path("/")
        .http_only(true)
        .secure(visitor.secure)
        .same_site(SameSite::Lax)
        .max_age(time::Duration::seconds(age))
        .build();
    (jar.add(cookie), Redirect::to("/clients")).into_response()
}
