//! Whoever asks for a page: put into the request by the router's gate, taken out by handlers.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use shared::time::Timestamp;

use super::{Role, Token, User, approvals, session_of};
use crate::app::App;
use crate::audit::Who;
use crate::error::Failure;
use crate::web::{Section, Shell, Viewer};

#[derive(Clone, Debug)]
pub struct Visitor {
    pub user: Option<User>,
    /// A program with an API token, instead of a user; on `/api/v1` only.
    pub token: Option<Token>,
    /// Hash of the session's token.
    pub session: Option<Vec<u8>>,
    /// Whether the session gave its password within the last five minutes.
    pub fresh: bool,
    /// Where the browser is.
    pub address: String,
    /// The host that the browser asked for.
    pub host: String,
    /// Whether it came over TLS, as the proxy before the console says.
    pub secure: bool,
    /// Enrollments that wait for a decision.
    pub pending: u32,
    /// What others ask this consultant for as a second person.
    pub approvals: u32,
    /// An incident is open.
    pub frozen: bool,
    pub now: Timestamp,
}

impl Visitor {
    /// The same visitor now. Fails once their session is over, so that a live page ends with it.
    pub async fn again(&self, app: &App) -> Result<Self, Failure> {
        let session = match &self.session {
            Some(hash) => session_of(app, hash).await?,
            None => None,
        };
        let session =
            session.ok_or_else(|| Failure::new(401, "sign-in", "Sign in first", "Your session is over."))?;
        let now = app.now();
        let approvals = approvals_for(app, &session.user, now).await?;
        Ok(Self { fresh: session.is_fresh(now), user: Some(session.user), approvals, now, ..self.clone() })
    }

    pub fn who(&self) -> Who {
        match (&self.token, &self.user) {
            (Some(token), _) => Who::token(&token.name, &self.address),
            (None, Some(user)) => Who::user(&user.email, &self.address),
            (None, None) => Who::user("nobody", &self.address),
        }
    }

    /// The console's address, as this visitor reaches it.
    pub fn board(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }

    /// Whether the board knows who this is, whatever their roles.
    pub fn is_known(&self) -> bool {
        self.user.is_some() || self.token.is_some()
    }

    pub fn can(&self, role: Role) -> bool {
        match (&self.token, &self.user) {
            (Some(token), _) => token.roles.contains(&role),
            (None, user) => user.as_ref().is_some_and(|user| user.has(role)),
        }
    }

    /// The signed-in user; the gate lets nobody else through to routes that need one.
    pub fn user(&self) -> Result<&User, Failure> {
        if self.token.is_some() {
            return Err(Failure::forbidden("This needs a person who is signed in; no API token can do it."));
        }
        self.user
            .as_ref()
            .ok_or_else(|| Failure::new(401, "sign-in", "Sign in first", "Your session is over."))
    }

    pub fn shell(&self, section: Section) -> Shell {
        let viewer = self.user.as_ref().map(|user| Viewer {
            email: user.email.clone(),
            consultant: user.has(Role::Consultant),
            operator: user.has(Role::Operator),
            support: user.has(Role::Support),
        });
        Shell {
            viewer,
            section,
            pending: self.pending,
            approvals: self.approvals,
            frozen: self.frozen,
            now: self.now,
        }
    }
}

/// How many requests for a second person wait for this user: none for who can't decide them.
pub async fn approvals_for(app: &App, user: &User, now: Timestamp) -> Result<u32, sqlx::Error> {
    if !user.has(Role::Consultant) {
        return Ok(0);
    }
    let mut tx = app.db.read().await?;
    approvals::count(&mut tx, user.id, now).await
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Failure::internal(anyhow::anyhow!("a route without the gate")).into_response())
    }
}
