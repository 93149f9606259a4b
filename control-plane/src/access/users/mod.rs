//! Users, as the operator keeps them: who is invited, which roles they have, who is disabled. The board always keeps an
//! operator who can sign in.

mod store;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use shared::ids::UserId;
use shared::random::Random;
use shared::secret::Secret;
use shared::time::{Clock, Timestamp};

use super::{AccessError, Role, issue_link, make_link, tokens};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::keys::RootKey;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: UserId,
    pub email: String,
    pub roles: Vec<Role>,
    pub created_at: Timestamp,
    pub has_password: bool,
    pub has_passkey: bool,
    pub disabled_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("This is not an email address. Write it like name@example.com.")]
    Email,
    #[error("There is a user with this email address already. Make them a new sign-in link instead.")]
    Taken,
    #[error("Choose at least one role. Who shouldn't get in at all is disabled.")]
    NoRole,
    #[error(
        "This is the last operator who can sign in, so nothing was changed. Make somebody else an operator first, and let them sign in once."
    )]
    LastOperator,
    #[error("There is no such user.")]
    Unknown,
    #[error("This user is disabled. Enable them first.")]
    Disabled,
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Listed {
    /// Invited, but not there yet, otherwise.
    pub fn has_been_here(&self) -> bool {
        self.has_password || self.has_passkey
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        let text = error.to_string();
        match error {
            UserError::Email | UserError::NoRole => Self::invalid("user", "Nothing was changed", text),
            UserError::Taken => Self::conflict("user-taken", "They are a user already", text),
            UserError::LastOperator => Self::conflict("last-operator", "The last operator stays", text),
            UserError::Disabled => Self::conflict("user-disabled", "This user is disabled", text),
            UserError::Unknown => Self::not_found("user"),
            UserError::Access(error) => error.into(),
            UserError::Audit(error) => error.into(),
            UserError::Database(error) => error.into(),
        }
    }
}

/// Everybody, by email.
pub async fn list(tx: &mut Tx) -> Result<Vec<Listed>, sqlx::Error> {
    let mut users = Vec::new();
    for row in store::all(tx).await? {
        let roles = super::store::roles(tx, row.id).await?;
        users.push(row.with(roles));
    }
    Ok(users)
}

pub async fn get(tx: &mut Tx, id: UserId) -> Result<Listed, UserError> {
    let row = store::get(tx, id).await?.ok_or(UserError::Unknown)?;
    let roles = super::store::roles(tx, id).await?;
    Ok(row.with(roles))
}

/// Adds a user without a password, and gives the token of the one-time link by which they set it.
pub async fn add(
    tx: &mut Tx,
    root: &RootKey,
    clock: &dyn Clock,
    random: &dyn Random,
    who: Who,
    email: &str,
    roles: &[Role],
) -> Result<Secret<String>, UserError> {
    let email = email.trim();
    let (local, domain) = email.split_once('@').unwrap_or_default();
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '@';
    if local.is_empty()
        || domain.is_empty()
        || local.contains(odd)
        || domain.contains(odd)
        || email.len() > 254
    {
        return Err(UserError::Email);
    }
    let roles = distinct(roles)?;
    if super::store::user_by_email(tx, email).await?.is_some() {
        return Err(UserError::Taken);
    }
    let now = clock.now();
    let id = UserId::new(clock, random);
    let twice =
        |error: &sqlx::Error| error.as_database_error().is_some_and(|error| error.is_unique_violation());
    super::store::insert_user(tx, id, email, now).await.map_err(|error| match twice(&error) {
        true => UserError::Taken,
        false => error.into(),
    })?;
    for role in &roles {
        super::store::insert_role(tx, id, *role).await?;
    }
    let (token, link_made) = make_link(tx, root, clock, random, id, email, who.clone()).await?;
    let entry =
        Entry::new(now, who, Action::UserAdded).detail("user", email).detail("roles", tokens::words(&roles));
    audit::append(tx, &entry).await?;
    audit::append(tx, &link_made).await?;
    Ok(token)
}

/// Another one-time link for a user who lost theirs or their password.
pub async fn new_sign_in_link(
    app: &App,
    who: Who,
    id: UserId,
) -> Result<(Listed, Secret<String>), UserError> {
    let mut tx = app.db.write().await?;
    let user = get(&mut tx, id).await?;
    if !super::store::hold(&mut tx, id).await? {
        return Err(UserError::Disabled);
    }
    let (clock, random) = (&*app.clock, &*app.random);
    let token = issue_link(&mut tx, &app.root, clock, random, id, &user.email, who).await?;
    tx.commit().await?;
    Ok((user, token))
}

/// Gives a user exactly these roles. They count from the next request; tokens of theirs that would be more than they
/// are end.
pub async fn change_roles(app: &App, who: Who, id: UserId, roles: &[Role]) -> Result<(), UserError> {
    let roles = distinct(roles)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    store::hold_operators(&mut tx).await?;
    super::store::hold(&mut tx, id).await?;
    let user = get(&mut tx, id).await?;
    if user.roles == roles {
        return Ok(());
    }
    store::delete_roles(&mut tx, id).await?;
    for role in &roles {
        super::store::insert_role(&mut tx, id, *role).await?;
    }
    keep_an_operator(&mut tx).await?;
    let ended = tokens::end_tokens(&mut tx, &user.email, Some(&roles), now).await?;
    let entry = Entry::new(now, who, Action::RolesChanged)
        .detail("user", &user.email)
        .detail("before", tokens::words(&user.roles))
        .detail("roles", tokens::words(&roles));
    audit::append(&mut tx, &naming(entry, &ended)).await?;
    tx.commit().await?;
    Ok(())
}

/// Shuts a user out at once: sessions, one-time links and tokens end. They stay in the history of what they did.
pub async fn disable(app: &App, who: Who, id: UserId) -> Result<(), UserError> {
    let now = app.now();
    let mut tx = app.db.write().await?;
    store::hold_operators(&mut tx).await?;
    let user = get(&mut tx, id).await?;
    if store::disable(&mut tx, id, now).await? != 1 {
        return Ok(());
    }
    keep_an_operator(&mut tx).await?;
    super::store::end_access(&mut tx, id, now).await?;
    let ended = tokens::end_tokens(&mut tx, &user.email, None, now).await?;
    let entry = Entry::new(now, who, Action::UserDisabled).detail("user", &user.email);
    audit::append(&mut tx, &naming(entry, &ended)).await?;
    tx.commit().await?;
    Ok(())
}

/// Lets a disabled user in again, with the password they had. Their tokens stay ended.
pub async fn enable(app: &App, who: Who, id: UserId) -> Result<(), UserError> {
    let mut tx = app.db.write().await?;
    let user = get(&mut tx, id).await?;
    if store::enable(&mut tx, id).await? != 1 {
        return Ok(());
    }
    let entry = Entry::new(app.now(), who, Action::UserEnabled).detail("user", &user.email);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(())
}

fn distinct(roles: &[Role]) -> Result<Vec<Role>, UserError> {
    let mut roles = roles.to_vec();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { Err(UserError::NoRole) } else { Ok(roles) }
}

async fn keep_an_operator(tx: &mut Tx) -> Result<(), UserError> {
    if store::count_operators(tx).await? == 0 { Err(UserError::LastOperator) } else { Ok(()) }
}

fn naming(entry: Entry, ended: &[String]) -> Entry {
    if ended.is_empty() { entry } else { entry.detail("ended_tokens", ended.join(", ")) }
}
