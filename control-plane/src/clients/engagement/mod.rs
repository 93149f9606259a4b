//! How the engagement with a client stands. What its end does to devices and secrets is `offboarding`'s.

mod store;

use shared::ids::ClientId;
use shared::text_enum;
use shared::time::Timestamp;

pub use store::{end, ended, hold, in_state, purge, reactivate, release, rewritten, set_days, unwritten};

use super::take_turn;
use crate::db::Tx;
use crate::error::Failure;

/// Days between the end and the purge, at most.
pub const MAX_DAYS: i64 = 365;

text_enum! {
    pub enum EngagementState {
        Active = "active",
        /// Ended; the purge is due.
        Ending = "ending",
        /// Ended, and somebody stopped the purge.
        Held = "held",
        /// Our secrets and the salt of the client's key are erased.
        Purged = "purged",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Engagement {
    #[sqlx(rename = "engagement")]
    pub state: EngagementState,
    pub purge_after_days: i64,
    pub ended_at: Option<Timestamp>,
    pub ended_by: Option<String>,
    pub purge_due_at: Option<Timestamp>,
    pub hold_reason: Option<String>,
    pub purged_at: Option<Timestamp>,
    /// When the database's files were rewritten after the purge.
    pub rewritten_at: Option<Timestamp>,
}

pub async fn engagement(tx: &mut Tx, id: ClientId) -> Result<Engagement, Failure> {
    store::get(tx, id).await?.ok_or_else(|| Failure::not_found("client"))
}

/// Refuses what an ended engagement doesn't get any more. Nobody ends it until the transaction is over.
pub async fn ensure_active(tx: &mut Tx, id: ClientId) -> Result<(), Failure> {
    take_turn(tx, id).await?;
    check_active(tx, id).await
}

/// The same for who reads only, or has the client's turn.
pub async fn check_active(tx: &mut Tx, id: ClientId) -> Result<(), Failure> {
    match engagement(tx, id).await?.state {
        EngagementState::Active => Ok(()),
        EngagementState::Ending | EngagementState::Held | EngagementState::Purged => {
            let detail = "The engagement with this client has ended, so it gets no devices, secrets or steps. Nothing \
                          was changed. A consultant can reactivate it on the client's page.";
            Err(Failure::conflict("engagement-ended", "The engagement has ended", detail))
        }
    }
}
