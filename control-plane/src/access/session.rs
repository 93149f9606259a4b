//! Sessions: an opaque token in a cookie, hashed in the database.

use std::time::Duration;

use shared::ids::{SessionId, UserId};
use shared::secret::Secret;
use shared::time::Timestamp;

use super::{AccessError, User, new_token, step_up, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::keys::Purpose;

pub const SESSION_TTL: Duration = Duration::from_secs(12 * 3600);

/// A living session.
#[derive(Clone, Debug)]
pub struct Session {
    pub user: User,
    fresh_at: Option<Timestamp>,
}

impl Session {
    /// Whether the password was given within [`STEP_UP_TTL`](super::STEP_UP_TTL).
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        step_up::is_fresh(self.fresh_at, now)
    }
}

/// Opens a session for a user who has just given or set their password: it is born fresh.
pub(super) async fn open(app: &App, tx: &mut Tx, user_id: UserId) -> Result<Secret<String>, sqlx::Error> {
    let token = new_token(&*app.random);
    let hash = app.root.hash_token(Purpose::Token, token.expose());
    let now = app.now();
    let id = SessionId::new(&*app.clock, &*app.random);
    store::insert_session(tx, id, user_id, &hash, now, now.after(SESSION_TTL)).await?;
    Ok(token)
}

/// What the database holds instead of a session's token. While a root key is changed, and after, there is more than one
/// key that it may have been hashed with.
pub async fn session_hash(app: &App, token: &str) -> Result<Vec<u8>, sqlx::Error> {
    let hashes = app.root.hashes(Purpose::Token, token);
    if let [only] = hashes.as_slice() {
        return Ok(only.clone());
    }
    let mut tx = app.db.read().await?;
    for hash in &hashes {
        if store::has_session(&mut tx, hash).await? {
            return Ok(hash.clone());
        }
    }
    Ok(app.root.hash_token(Purpose::Token, token))
}

/// Who holds this session, if it is a living one.
pub async fn user_of(app: &App, token: &str) -> Result<Option<User>, sqlx::Error> {
    Ok(session_of(app, &session_hash(app, token).await?).await?.map(|session| session.user))
}

/// The session whose token has this hash, if it is a living one.
pub async fn session_of(app: &App, hash: &[u8]) -> Result<Option<Session>, sqlx::Error> {
    let mut tx = app.db.read().await?;
    let Some(row) = store::session(&mut tx, hash, app.now()).await? else { return Ok(None) };
    let roles = store::roles(&mut tx, row.id).await?;
    Ok(Some(Session { user: User { id: row.id, email: row.email, roles }, fresh_at: row.fresh_at }))
}

pub async fn sign_out(app: &App, token: &str, who: Who) -> Result<(), AccessError> {
    let hash = session_hash(app, token).await?;
    let mut tx = app.db.write().await?;
    store::delete_session(&mut tx, &hash).await?;
    audit::append(&mut tx, &Entry::new(app.now(), who, Action::SignedOut)).await?;
    tx.commit().await?;
    Ok(())
}
