//! Step-up: before something that matters (approving, copying, who may do what) the session proves again, by the
//! password, that it is still the same person. A passkey does the same (`passkeys::step_up`).

use std::time::Duration;

use shared::secret::Secret;
use shared::time::Timestamp;

use super::{AccessError, Throttle, Visitor, passkeys, password, store};
use crate::app::App;
use crate::audit::{self, Action, Entry};

/// How long a session stays fresh. It is born fresh: signing in by password, and setting one by a one-time link, count.
pub const STEP_UP_TTL: Duration = Duration::from_secs(300);

/// The field of a form that brings the password again.
pub const STEP_UP_FIELD: &str = "step_up_password";
/// The field of a form that brings a passkey's answer instead.
pub const STEP_UP_PASSKEY: &str = "step_up_passkey";
/// The field of a form that brings a secret: a page that asks for the password again doesn't hold it.
pub const SECRET_FIELD: &str = "secret";

/// Per user, wherever the tries come from: only who holds a session of theirs can try, so no stranger can lock them out.
const STEP_UP: Throttle =
    Throttle { bucket: "step-up", per_source: 10, in_total: i64::MAX, window: Duration::from_secs(900) };

pub(super) fn is_fresh(fresh_at: Option<Timestamp>, now: Timestamp) -> bool {
    fresh_at.is_some_and(|at| now < at.after(STEP_UP_TTL))
}

/// Takes the password again, for the visitor's session only.
pub async fn step_up(app: &App, visitor: &Visitor, typed: &Secret<String>) -> Result<(), AccessError> {
    let (Some(user), Some(session)) = (&visitor.user, &visitor.session) else {
        return Err(AccessError::NotFresh);
    };
    let now = app.now();
    let source = user.id.to_string();
    // The try counts before the password is looked at, so that many at once count too.
    let mut tx = app.db.write().await?;
    if passkeys::are_required(&mut tx).await? {
        return Err(AccessError::PasskeyNeeded);
    }
    if !STEP_UP.allows(&mut tx, &source, now).await? {
        return Err(AccessError::TooMany);
    }
    STEP_UP.record(&mut tx, &source, now).await?;
    let stored = store::user_by_email(&mut tx, &user.email).await?.and_then(|row| row.password_hash);
    tx.commit().await?;
    let right = password::verify(typed, stored).await?;
    let mut tx = app.db.write().await?;
    if !right {
        audit::append(&mut tx, &Entry::new(now, visitor.who(), Action::StepUpRefused)).await?;
        tx.commit().await?;
        return Err(AccessError::WrongStepUp);
    }
    STEP_UP.forgive(&mut tx, &source).await?;
    if store::refresh_session(&mut tx, session, now).await? != 1 {
        return Err(AccessError::NotFresh);
    }
    audit::append(&mut tx, &Entry::new(now, visitor.who(), Action::SteppedUp)).await?;
    tx.commit().await?;
    Ok(())
}
