use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect};
use axum_extra::extract::Form;
use serde::Deserialize;
use shared::ids::{TokenId, UserId};
use shared::secret::Secret;

use super::views::{InviteFields, OncePage, TokenFields, TokenRow, UserPage, UserRow, UsersPage};
use super::{Listed, UserError, add, change_roles, disable, enable, get, list, new_sign_in_link};
use crate::access::tokens::{self, NewToken, TokenError, TokenState, make_token, revoke_by_id};
use crate::access::{Role, Visitor, passkeys};
use crate::app::App;
use crate::error::Failure;
use crate::free_text::shown_again;
use crate::pages::{Page, PageFailure, page, status};
use crate::web::{FieldError, Moment, RowState, Section};

pub async fn users_page(State(app): State<App>, visitor: Visitor) -> Page {
    page(&filled(&app, &visitor, InviteFields::default(), TokenFields::default(), Vec::new()).await?)
}

#[derive(Deserialize)]
pub struct InviteForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    role: Vec<Role>,
}

pub async fn invite_form(State(app): State<App>, visitor: Visitor, Form(form): Form<InviteForm>) -> Page {
    let mut tx = app.db.write().await?;
    let (clock, random) = (&*app.clock, &*app.random);
    match add(&mut tx, &app.root, clock, random, visitor.who(), &form.email, &form.role).await {
        Ok(token) => {
            tx.commit().await?;
            link_page(&visitor, form.email.trim(), &token)
        }
        Err(error @ (UserError::Email | UserError::Taken | UserError::NoRole)) => {
            drop(tx);
            let field = if matches!(error, UserError::NoRole) { "role" } else { "email" };
            let errors = vec![FieldError::new(field, error.to_string())];
            let invite = InviteFields { email: shown_again(&form.email).to_owned(), roles: form.role };
            let shown = filled(&app, &visitor, invite, TokenFields::default(), errors).await?;
            Ok((status(422), page(&shown)?).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn user_page(State(app): State<App>, visitor: Visitor, Path(id): Path<UserId>) -> Page {
    let user = get(&mut app.db.read().await?, id).await?;
    page(&of_user(&visitor, user, Vec::new()))
}

#[derive(Deserialize)]
pub struct RolesForm {
    #[serde(default)]
    role: Vec<Role>,
}

pub async fn roles_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<UserId>,
    Form(form): Form<RolesForm>,
) -> Page {
    match change_roles(&app, visitor.who(), id, &form.role).await {
        Ok(()) => Ok(Redirect::to("/users").into_response()),
        Err(error @ (UserError::NoRole | UserError::LastOperator)) => {
            let errors = vec![FieldError::new("role", error.to_string())];
            let user = get(&mut app.db.read().await?, id).await?;
            let shown = of_user(&visitor, Listed { roles: form.role, ..user }, errors);
            Ok((status(Failure::from(error).public.status), page(&shown)?).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn sign_in_link_form(State(app): State<App>, visitor: Visitor, Path(id): Path<UserId>) -> Page {
    let (user, token) = new_sign_in_link(&app, visitor.who(), id).await?;
    link_page(&visitor, &user.email, &token)
}

pub async fn disable_form(State(app): State<App>, visitor: Visitor, Path(id): Path<UserId>) -> Page {
    disable(&app, visitor.who(), id).await?;
    Ok(Redirect::to("/users").into_response())
}

pub async fn enable_form(State(app): State<App>, visitor: Visitor, Path(id): Path<UserId>) -> Page {
    enable(&app, visitor.who(), id).await?;
    Ok(Redirect::to("/users").into_response())
}

#[derive(Deserialize)]
pub struct TokenForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    token_role: Vec<Role>,
}

/// The token belongs to who makes it: it has no role that they don't have, and ends with them.
pub async fn token_form(State(app): State<App>, visitor: Visitor, Form(form): Form<TokenForm>) -> Page {
    let new = NewToken {
        name: form.name.clone(),
        roles: form.token_role.clone(),
        days: form.days.trim().parse().unwrap_or(0),
        user: Some(visitor.user()?.email.clone()),
    };
    let mut tx = app.db.write().await?;
    let (clock, random) = (&*app.clock, &*app.random);
    let made = make_token(&mut tx, &app.root, clock, random, visitor.who(), &new).await;
    let (field, error) = match made {
        Ok(text) => {
            tx.commit().await?;
            return page(&OncePage {
                shell: visitor.shell(Section::Users),
                title: format!("API token {}", new.name.trim()),
                lead: "This page shows it once. The board keeps only enough to know it again.".into(),
                text: text.expose().clone(),
                help: "A program sends it as “Authorization: Bearer …” to addresses below /api/v1.".into(),
            });
        }
        Err(error @ (TokenError::NoName | TokenError::IsId | TokenError::Name(_) | TokenError::Taken)) => {
            ("name", error)
        }
        Err(error @ (TokenError::NoRole | TokenError::NotTheirs(_))) => ("token_role", error),
        Err(error @ TokenError::Days) => ("days", error),
        Err(error) => return Err(error.into()),
    };
    drop(tx);
    let errors = vec![FieldError::new(field, error.to_string())];
    let again = |text: &str| shown_again(text).to_owned();
    let token =
        TokenFields { name: again(&form.name), days: again(&form.days), roles: form.token_role, open: true };
    let shown = filled(&app, &visitor, InviteFields::default(), token, errors).await?;
    Ok((status(422), page(&shown)?).into_response())
}

pub async fn revoke_token_form(State(app): State<App>, visitor: Visitor, Path(id): Path<TokenId>) -> Page {
    let mut tx = app.db.write().await?;
    revoke_by_id(&mut tx, &*app.clock, visitor.who(), id).await?;
    tx.commit().await?;
    Ok(Redirect::to("/users").into_response())
}

/// The address of the console is the one that the operator's browser uses.
fn link_page(visitor: &Visitor, email: &str, token: &Secret<String>) -> Page {
    let scheme = if visitor.secure { "https" } else { "http" };
    page(&OncePage {
        shell: visitor.shell(Section::Users),
        title: "Sign-in link".into(),
        lead: format!("For {email}. It works once, within a day, and this page shows it once."),
        text: format!("{scheme}://{}/welcome/{}", visitor.host, token.expose()),
        help: "Send it to them in a way that nobody else reads. They choose their password with it.".into(),
    })
}

fn state(user: &Listed) -> (RowState, &'static str) {
    match (user.disabled_at.is_some(), user.has_been_here()) {
        (true, _) => (RowState::Off, "disabled"),
        (false, true) => (RowState::Done, "can sign in"),
        (false, false) => (RowState::Waiting, "invited"),
    }
}

fn of_user(visitor: &Visitor, user: Listed, errors: Vec<FieldError>) -> UserPage {
    let (state, state_word) = state(&user);
    UserPage {
        shell: visitor.shell(Section::Users),
        href: format!("/users/{}", user.id),
        own: visitor.user.as_ref().is_some_and(|viewer| viewer.id == user.id),
        email: user.email,
        roles: user.roles,
        state,
        state_word: state_word.into(),
        disabled: user.disabled_at.is_some(),
        ask_password: !visitor.fresh,
        errors,
    }
}

async fn filled(
    app: &App,
    visitor: &Visitor,
    invite: InviteFields,
    token: TokenFields,
    errors: Vec<FieldError>,
) -> Result<UsersPage, PageFailure> {
    let now = visitor.now;
    let mut tx = app.db.read().await?;
    let users = list(&mut tx).await?;
    let users = users.into_iter().map(|user| {
        let (state, state_word) = state(&user);
        UserRow {
            href: format!("/users/{}", user.id),
            roles: tokens::words(&user.roles),
            email: user.email,
            state,
            state_word: state_word.into(),
            added: Moment { at: user.created_at, now },
        }
    });
    let passkeys_required = passkeys::are_required(&mut tx).await?;
    let living = tokens::tokens(&mut tx).await?.into_iter().map(|token| {
        let (state, state_word) = match token.state(now) {
            TokenState::Living => (RowState::Done, "living"),
            TokenState::Expired => (RowState::Off, "expired"),
            TokenState::Revoked => (RowState::Off, "revoked"),
        };
        TokenRow {
            roles: tokens::words(&token.roles),
            state,
            state_word: state_word.into(),
            made_by: token.created_by,
            expires: Moment { at: token.expires_at, now },
            last_used: token.last_used_at.map(|at| Moment { at, now }),
            revoke: token.revoked_at.is_none().then(|| format!("/tokens/{}/revoke", token.id)),
            name: token.name,
        }
    });
    Ok(UsersPage {
        shell: visitor.shell(Section::Users),
        users: users.collect(),
        tokens: living.collect(),
        invite,
        token,
        passkeys_required,
        ask_password: !visitor.fresh,
        errors,
    })
}
