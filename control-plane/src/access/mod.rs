//! Who may use the board: users and roles, one-time links, passwords, sessions and their step-up, API tokens. Whatever
//! opens it is stored hashed.

pub mod approvals;
pub mod passkeys;
mod password;
mod session;
mod step_up;
mod store;
#[cfg(test)]
mod tests;
mod throttle;
pub mod tokens;
pub mod users;
pub mod views;
pub mod visitor;
pub mod web;

use std::time::Duration;

use shared::ids::{LinkId, UserId};
use shared::random::{self, Random};
use shared::secret::Secret;
use shared::text_enum;
use shared::time::Clock;

pub use password::MIN_LEN as MIN_PASSWORD_LEN;
pub use session::{SESSION_TTL, Session, session_hash, session_of, sign_out, user_of};
pub use step_up::{SECRET_FIELD, STEP_UP_FIELD, STEP_UP_PASSKEY, STEP_UP_TTL, step_up};
pub use throttle::Throttle;
pub use tokens::{Token, token_of};
pub use visitor::{Visitor, approvals_for};

use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::keys::{Purpose, RootKey};

const LINK_TTL: Duration = Duration::from_secs(24 * 3600);
/// Per address and user only: a limit for everybody together would let a stranger lock everybody out.
const SIGN_IN: Throttle =
    Throttle { bucket: "sign-in", per_source: 10, in_total: i64::MAX, window: Duration::from_secs(900) };

text_enum! {
    /// Roles are a set.
    pub enum Role {
        /// Approves, runs, copies.
        Consultant = "consultant",
        /// Users, catalog, keys.
        Operator = "operator",
        /// Reads.
        Support = "support",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub roles: Vec<Role>,
}

impl User {
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(
        "Email or password is wrong. Check both; after ten wrong tries you have to wait a quarter of an hour."
    )]
    WrongPassword,
    #[error(
        "Too many wrong tries from here. Wait a quarter of an hour, or ask the operator for a one-time link."
    )]
    TooMany,
    #[error(
        "This link was used already, or its day is over. Ask the operator for another one (`board user link`)."
    )]
    LinkOver,
    #[error(
        "Type your password: this needs to be you, and it was last asked for more than five minutes ago. Nothing was done yet."
    )]
    NotFresh,
    #[error(
        "This is not your password. Nothing was done; after ten wrong tries you have to wait a quarter of an hour."
    )]
    WrongStepUp,
    #[error("The password is too short: use at least {MIN_PASSWORD_LEN} characters.")]
    ShortPassword,
    #[error("There is no user with this email address.")]
    UnknownUser,
    #[error("This user is disabled. An operator enables them on the users page first.")]
    Disabled,
    #[error(
        "This board requires passkeys, so a password alone is not enough. Use a passkey; without one, ask the operator for a one-time link (`board user link`), with which you register one."
    )]
    PasskeyNeeded,
    #[error(transparent)]
    Passkey(#[from] passkeys::PasskeyError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a password could not be hashed")]
    Hash,
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        let text = error.to_string();
        match error {
            AccessError::WrongPassword => Self::new(401, "wrong-password", "Not signed in", text),
            AccessError::TooMany => Self::new(429, "too-many-tries", "Wait a little", text),
            AccessError::LinkOver => Self::new(410, "link-over", "This link is over", text),
            AccessError::NotFresh => Self::new(401, "step-up", "Confirm that it is you", text),
            AccessError::WrongStepUp => Self::new(401, "step-up", "Not your password", text),
            AccessError::ShortPassword => Self::invalid("short-password", "Choose a longer password", text),
            AccessError::Disabled => Self::conflict("user-disabled", "This user is disabled", text),
            AccessError::UnknownUser => Self::not_found("user"),
            AccessError::PasskeyNeeded => Self::new(401, "passkey-needed", "A passkey is needed", text),
            AccessError::Passkey(error) => error.into(),
            AccessError::Audit(error) => error.into(),
            AccessError::Database(error) => error.into(),
            AccessError::Hash => Self::internal(error),
        }
    }
}

/// Makes a user without a password, and the token of a one-time link by which they set it.
pub async fn create_user(
    tx: &mut Tx,
    root: &RootKey,
    clock: &dyn Clock,
    random: &dyn Random,
    email: &str,
    roles: &[Role],
) -> Result<Secret<String>, AccessError> {
    let user_id = UserId::new(clock, random);
    store::insert_user(tx, user_id, email, clock.now()).await?;
    for role in roles {
        store::insert_role(tx, user_id, *role).await?;
    }
    issue_link(tx, root, clock, random, user_id, email, Who::cli()).await
}

/// Another one-time link for a user who lost theirs or their password.
pub async fn new_link(
    tx: &mut Tx,
    root: &RootKey,
    clock: &dyn Clock,
    random: &dyn Random,
    email: &str,
) -> Result<Secret<String>, AccessError> {
    let user = store::user_by_email(tx, email).await?.ok_or(AccessError::UnknownUser)?;
    if !store::hold(tx, user.id).await? {
        return Err(AccessError::Disabled);
    }
    issue_link(tx, root, clock, random, user.id, &user.email, Who::cli()).await
}

async fn issue_link(
    tx: &mut Tx,
    root: &RootKey,
    clock: &dyn Clock,
    random: &dyn Random,
    user_id: UserId,
    email: &str,
    who: Who,
) -> Result<Secret<String>, AccessError> {
    let (token, entry) = make_link(tx, root, clock, random, user_id, email, who).await?;
    audit::append(tx, &entry).await?;
    Ok(token)
}

/// The same without its audit entry, which the caller appends last.
async fn make_link(
    tx: &mut Tx,
    root: &RootKey,
    clock: &dyn Clock,
    random: &dyn Random,
    user_id: UserId,
    email: &str,
    who: Who,
) -> Result<(Secret<String>, Entry), AccessError> {
    let now = clock.now();
    let token = new_token(random);
    let hash = root.hash_token(Purpose::Token, token.expose());
    store::insert_link(tx, LinkId::new(clock, random), user_id, &hash, now, now.after(LINK_TTL)).await?;
    let entry = Entry::new(now, who, Action::LinkMade).detail("user", email);
    Ok((token, entry))
}

/// Whose link this is, while it can be used.
pub async fn link_owner(app: &App, token: &str) -> Result<String, AccessError> {
    let mut tx = app.db.read().await?;
    Ok(find_link(app, &mut tx, token).await?.ok_or(AccessError::LinkOver)?.email)
}

struct OpenLink {
    hash: Vec<u8>,
    user_id: UserId,
    email: String,
}

async fn find_link(app: &App, tx: &mut Tx, token: &str) -> Result<Option<OpenLink>, sqlx::Error> {
    for hash in app.root.hashes(Purpose::Token, token) {
        if let Some((user_id, email)) = store::open_link(tx, &hash, app.now()).await? {
            return Ok(Some(OpenLink { hash, user_id, email }));
        }
    }
    Ok(None)
}

/// Uses a one-time link: sets the password and signs in. Gives the session's token.
pub async fn accept_link(
    app: &App,
    token: &str,
    new_password: &Secret<String>,
    address: &str,
) -> Result<Secret<String>, AccessError> {
    if new_password.expose().chars().count() < MIN_PASSWORD_LEN {
        return Err(AccessError::ShortPassword);
    }
    let hashed = password::hash(new_password).await?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    let OpenLink { hash, user_id, email } =
        find_link(app, &mut tx, token).await?.ok_or(AccessError::LinkOver)?;
    if passkeys::are_required(&mut tx).await? {
        return Err(AccessError::PasskeyNeeded);
    }
    if !store::hold(&mut tx, user_id).await? || store::use_link(&mut tx, &hash, now).await? != 1 {
        return Err(AccessError::LinkOver);
    }
    store::set_password(&mut tx, user_id, &hashed).await?;
    store::end_access(&mut tx, user_id, now).await?;
    let session = session::open(app, &mut tx, user_id).await?;
    let entry = Entry::new(now, Who::user(&email, address), Action::PasswordSet).reason("one-time link");
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(session)
}

/// Signs in by email and password. Gives the session's token.
pub async fn sign_in(
    app: &App,
    email: &str,
    typed: &Secret<String>,
    address: &str,
) -> Result<Secret<String>, AccessError> {
    let now = app.now();
    let source = format!("{address} {}", email.to_lowercase());
    // The try counts before the password is looked at, so that many at once count too.
    let mut tx = app.db.write().await?;
    if !SIGN_IN.allows(&mut tx, &source, now).await? {
        return Err(AccessError::TooMany);
    }
    SIGN_IN.record(&mut tx, &source, now).await?;
    let user = store::user_by_email(&mut tx, email).await?.filter(|user| user.disabled_at.is_none());
    tx.commit().await?;
    let stored = user.as_ref().and_then(|user| user.password_hash.clone());
    let right = password::verify(typed, stored).await?;
    let mut tx = app.db.write().await?;
    // Meanwhile they may have been disabled, or have set another password.
    let still = match &user {
        Some(user) if right && store::hold(&mut tx, user.id).await? => {
            let now_stored = store::user_by_email(&mut tx, email).await?;
            now_stored.is_some_and(|row| row.password_hash == user.password_hash)
        }
        Some(_) | None => false,
    };
    let (Some(user), true) = (user, still) else {
        let who = Who { kind: audit::Actor::User, id: "unknown".into(), address: address.to_owned() };
        audit::append(&mut tx, &Entry::new(now, who, Action::SignInRefused)).await?;
        tx.commit().await?;
        return Err(AccessError::WrongPassword);
    };
    SIGN_IN.forgive(&mut tx, &source).await?;
    if passkeys::are_required(&mut tx).await? {
        let entry = Entry::new(now, Who::user(&user.email, address), Action::SignInRefused);
        audit::append(&mut tx, &entry.reason("a passkey is required")).await?;
        tx.commit().await?;
        return Err(AccessError::PasskeyNeeded);
    }
    let session = session::open(app, &mut tx, user.id).await?;
    audit::append(&mut tx, &Entry::new(now, Who::user(&user.email, address), Action::SignedIn)).await?;
    tx.commit().await?;
    Ok(session)
}

/// 32 random bytes in URL-safe base64.
fn new_token(random: &dyn Random) -> Secret<String> {
    Secret::new(data_encoding::BASE64URL_NOPAD.encode(&random::bytes::<32>(random)))
}
