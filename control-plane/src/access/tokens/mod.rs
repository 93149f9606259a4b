//! API tokens: programs read `/api/v1` with one. A token has a set of roles and an end, is shown once, and is stored as
//! its HMAC. The router's gate takes it on `/api/v1` only, so no token opens a page, approves or copies.

mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use shared::ids::{TokenId, UserId};
use shared::random::Random;
use shared::secret::Secret;
use shared::time::{Clock, Timestamp};

use super::{Role, Throttle, new_token};
use crate::app::App;
use crate::audit::{self, Action, Actor, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text::{self, FreeTextError};
use crate::keys::{Purpose, RootKey};

/// What every token begins with, so that people and scanners know one when they see it.
pub const TOKEN_PREFIX: &str = "board_";
/// In days.
pub const MAX_DAYS: u32 = 365;
/// In characters.
const MAX_NAME: usize = 60;
/// The last use is written down this exactly: a program that asks every second doesn't write every second.
const USE_PRECISION: Duration = Duration::from_secs(60);
/// Refusals per address. A good token is never held up by somebody else's bad ones.
const REFUSED: Throttle =
    Throttle { bucket: "api-token", per_source: 30, in_total: i64::MAX, window: Duration::from_secs(900) };

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    /// Unique among those that aren't revoked.
    pub name: String,
    pub roles: Vec<Role>,
    /// It ends with this user.
    pub user: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    Living,
    Expired,
    Revoked,
}

impl Token {
    pub fn state(&self, now: Timestamp) -> TokenState {
        match self.revoked_at {
            Some(_) => TokenState::Revoked,
            None if self.expires_at <= now => TokenState::Expired,
            None => TokenState::Living,
        }
    }
}

/// A token that somebody wants.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub name: String,
    pub roles: Vec<Role>,
    pub days: u32,
    /// The user it is for, by email: it ends when they are disabled, and has no role that they don't have.
    pub user: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("Give the token a name that says what uses it, of up to {MAX_NAME} characters.")]
    NoName,
    #[error("{0}")]
    Name(FreeTextError),
    #[error("This has the shape of a token's id, and would be taken for it. Say what uses the token.")]
    IsId,
    #[error("Choose at least one role.")]
    NoRole,
    #[error("A token lives from 1 to {MAX_DAYS} days. Make another one when it ends.")]
    Days,
    #[error("There is a token with this name already. Revoke it first, or choose another name.")]
    Taken,
    #[error("There is no user with this email address, or they are disabled.")]
    UnknownUser,
    #[error("This user isn't {0}, so a token of theirs can't be.")]
    NotTheirs(Role),
    #[error(
        "There is no such token, or it was revoked already. `board token list` shows those that there are."
    )]
    UnknownToken,
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::UnknownToken => Self::not_found("living API token"),
            TokenError::Audit(error) => error.into(),
            TokenError::Database(error) => error.into(),
            other @ (TokenError::NoName
            | TokenError::IsId
            | TokenError::Name(_)
            | TokenError::NoRole
            | TokenError::Days
            | TokenError::Taken
            | TokenError::UnknownUser
            | TokenError::NotTheirs(_)) => Self::invalid("token", "No token was made", other.to_string()),
        }
    }
}

/// Why a presented token doesn't let anybody in. Only who has the token learns which it is.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefused {
    #[error(
        "This board doesn't know this API token. Check that all of it was copied, or make one with `board token create`."
    )]
    Unknown,
    #[error("This API token expired. Make another one with `board token create`.")]
    Expired,
    #[error("This API token was revoked. If that wasn't meant, make another one with `board token create`.")]
    Revoked,
    #[error(
        "Too many bad API tokens from this address. Wait a quarter of an hour, and give the program a good one."
    )]
    TooMany,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<TokenRefused> for Failure {
    fn from(refused: TokenRefused) -> Self {
        let text = refused.to_string();
        match refused {
            TokenRefused::Unknown => Self::new(401, "token-unknown", "Unknown API token", text),
            TokenRefused::Expired => Self::new(401, "token-expired", "The API token expired", text),
            TokenRefused::Revoked => Self::new(401, "token-revoked", "The API token was revoked", text),
            TokenRefused::TooMany => Self::new(429, "too-many-tries", "Wait a little", text),
            TokenRefused::Database(error) => error.into(),
        }
    }
}

/// Makes a token. Its text is given once and never again.
pub async fn make_token(
    tx: &mut Tx,
    root: &RootKey,
    clock: &dyn Clock,
    random: &dyn Random,
    who: Who,
    new: &NewToken,
) -> Result<Secret<String>, TokenError> {
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(TokenError::NoName);
    }
    free_text::check(name, MAX_NAME).map_err(TokenError::Name)?;
    if name.parse::<TokenId>().is_ok() {
        return Err(TokenError::IsId);
    }
    if !(1..=MAX_DAYS).contains(&new.days) {
        return Err(TokenError::Days);
    }
    let mut roles = new.roles.clone();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        return Err(TokenError::NoRole);
    }
    let user = match &new.user {
        Some(email) => Some(owner(tx, email, &roles).await?),
        None => None,
    };
    let now = clock.now();
    let text = Secret::new(format!("{TOKEN_PREFIX}{}", new_token(random).expose()));
    store::give_up_expired(tx, name, now).await?;
    let row = store::NewRow {
        id: TokenId::new(clock, random),
        name,
        hash: root.hash_token(Purpose::Token, text.expose()),
        user,
        created_by: if who.kind == Actor::Cli { "command line".into() } else { who.id.clone() },
        now,
        expires: now.after(Duration::from_secs(u64::from(new.days) * 24 * 3600)),
    };
    if store::insert(tx, &row).await? != 1 {
        return Err(TokenError::Taken);
    }
    for role in &roles {
        store::insert_role(tx, row.id, *role).await?;
    }
    let entry = Entry::new(now, who, Action::TokenMade)
        .detail("token", name)
        .detail("roles", words(&roles))
        .detail("expires", row.expires.rfc3339());
    let entry = match &new.user {
        Some(email) => entry.detail("user", email),
        None => entry,
    };
    audit::append(tx, &entry).await?;
    Ok(text)
}

/// The user a token is for. They have the token's roles; reading is anybody's.
async fn owner(tx: &mut Tx, email: &str, roles: &[Role]) -> Result<UserId, TokenError> {
    let user = super::store::user_by_email(tx, email).await?.filter(|user| user.disabled_at.is_none());
    let user = user.ok_or(TokenError::UnknownUser)?;
    if !super::store::hold(tx, user.id).await? {
        return Err(TokenError::UnknownUser);
    }
    let theirs = super::store::roles(tx, user.id).await?;
    match roles.iter().find(|role| **role != Role::Support && !theirs.contains(role)) {
        Some(role) => Err(TokenError::NotTheirs(*role)),
        None => Ok(user.id),
    }
}

/// All tokens, the newest first.
pub async fn tokens(tx: &mut Tx) -> Result<Vec<Token>, sqlx::Error> {
    let mut found = Vec::new();
    for row in store::all(tx).await? {
        let roles = store::roles(tx, row.id).await?;
        found.push(row.with(roles));
    }
    Ok(found)
}

/// Ends a token, named by its id, or else by its name.
pub async fn revoke_token(tx: &mut Tx, clock: &dyn Clock, who: Who, which: &str) -> Result<(), TokenError> {
    if let Ok(id) = which.parse() {
        return revoke_by_id(tx, clock, who, id).await;
    }
    let living = tokens(tx).await?;
    let token = living.into_iter().find(|token| token.revoked_at.is_none() && token.name == which);
    end(tx, clock, who, token).await
}

/// Ends the token with this id.
pub async fn revoke_by_id(tx: &mut Tx, clock: &dyn Clock, who: Who, id: TokenId) -> Result<(), TokenError> {
    let token = tokens(tx).await?.into_iter().find(|token| token.id == id);
    end(tx, clock, who, token).await
}

async fn end(tx: &mut Tx, clock: &dyn Clock, who: Who, token: Option<Token>) -> Result<(), TokenError> {
    let token = token.ok_or(TokenError::UnknownToken)?;
    if store::revoke(tx, token.id, clock.now()).await? != 1 {
        return Err(TokenError::UnknownToken);
    }
    let entry = Entry::new(clock.now(), who, Action::TokenRevoked).detail("token", &token.name);
    audit::append(tx, &entry).await?;
    Ok(())
}

/// Ends the tokens of a user that have a role which the user no longer has; all of them when `roles` is `None`. Gives
/// their names, for the audit entry of what ended them.
pub(super) async fn end_tokens(
    tx: &mut Tx,
    email: &str,
    roles: Option<&[Role]>,
    now: Timestamp,
) -> Result<Vec<String>, sqlx::Error> {
    let mut ended = Vec::new();
    for token in tokens(tx).await? {
        let too_much =
            |role: &Role| *role != Role::Support && roles.is_none_or(|roles| !roles.contains(role));
        let ends = roles.is_none() || token.roles.iter().any(too_much);
        let theirs = token.user.as_deref() == Some(email) && token.revoked_at.is_none();
        if theirs && ends && store::revoke(tx, token.id, now).await? == 1 {
            ended.push(token.name);
        }
    }
    Ok(ended)
}

/// The living token with this text. A refusal counts against the address.
pub async fn token_of(app: &App, text: &str, address: &str) -> Result<Token, TokenRefused> {
    let now = app.now();
    let mut tx = app.db.read().await?;
    let mut token = None;
    for hash in app.root.hashes(Purpose::Token, text) {
        if let Some(row) = store::by_hash(&mut tx, &hash).await? {
            let roles = store::roles(&mut tx, row.id).await?;
            token = Some(row.with(roles));
            break;
        }
    }
    let refused = match token {
        Some(token) => match token.state(now) {
            TokenState::Living => {
                drop(tx);
                // Who reads isn't kept from it because the board can't write.
                if let Err(error) = note_use(app, &token, now).await {
                    tracing::warn!(token = token.name, %error, "when an API token was used last can't be written down");
                }
                return Ok(token);
            }
            TokenState::Expired => TokenRefused::Expired,
            TokenState::Revoked => TokenRefused::Revoked,
        },
        None => TokenRefused::Unknown,
    };
    // Tokens can't be guessed: this keeps a broken program from writing for ever, so looking first is exact enough.
    if !REFUSED.allows(&mut tx, address, now).await? {
        return Err(TokenRefused::TooMany);
    }
    drop(tx);
    let mut tx = app.db.write().await?;
    REFUSED.record(&mut tx, address, now).await?;
    tx.commit().await?;
    Err(refused)
}

async fn note_use(app: &App, token: &Token, now: Timestamp) -> Result<(), sqlx::Error> {
    if token.last_used_at.is_some_and(|at| now < at.after(USE_PRECISION)) {
        return Ok(());
    }
    let mut tx = app.db.write().await?;
    store::note_use(&mut tx, token.id, now).await?;
    tx.commit().await
}

/// "consultant, support"
pub fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}
