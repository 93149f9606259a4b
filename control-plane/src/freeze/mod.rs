//! The freeze of an incident (`design/security.md` section 12): while one is open the board opens no secret, delivers none,
//! offers no step, asks for no plan and copies nothing. Whatever decrypts or offers asks [`is_on`] in its own transaction.
//!
//! What goes on: what an operator does about an incident (`board rekey`, and new values, which are stored without opening the
//! old ones), what ends something (wipes, purges, revocations), and certificates: the CA's key is no client's secret, and
//! devices without one couldn't be told of anything.

mod store;
#[cfg(test)]
mod tests;

use shared::time::Timestamp;

use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;

/// An incident, open or lifted.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Incident {
    pub at: Timestamp,
    pub who: String,
    pub reason: String,
    pub lifted_at: Option<Timestamp>,
}

impl Incident {
    pub fn is_open(&self) -> bool {
        self.lifted_at.is_none()
    }
}

pub async fn is_on(tx: &mut Tx) -> Result<bool, sqlx::Error> {
    Ok(store::open(tx).await? > 0)
}

/// The latest incident, if there ever was one.
pub async fn latest(tx: &mut Tx) -> Result<Option<Incident>, sqlx::Error> {
    store::latest(tx).await
}

/// What a refused request says.
pub fn refused() -> Failure {
    Failure::conflict(
        "frozen",
        "The board is frozen",
        "An operator froze the board because of an incident: nothing is opened, delivered, offered or copied. Nothing was done. An operator lifts it on the incident page.",
    )
}

/// Freezes the board.
pub async fn begin(app: &App, who: Who, reason: &str) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    if store::insert(&mut tx, now, &who.id, reason).await? != 1 {
        return Err(Failure::conflict(
            "frozen",
            "Frozen already",
            "The board is frozen already. Nothing was changed.",
        ));
    }
    audit::append(&mut tx, &Entry::new(now, who, Action::IncidentBegun).reason(reason)).await?;
    tx.commit().await?;
    tracing::warn!("an incident: the board is frozen");
    Ok(())
}

/// Lifts the freeze.
pub async fn lift(app: &App, who: Who, reason: &str) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    if store::lift(&mut tx, now, &who.id).await? != 1 {
        return Err(Failure::conflict(
            "not-frozen",
            "Not frozen",
            "The board is not frozen. Nothing was changed.",
        ));
    }
    audit::append(&mut tx, &Entry::new(now, who, Action::IncidentLifted).reason(reason)).await?;
    tx.commit().await?;
    tracing::warn!("the freeze is lifted");
    Ok(())
}
