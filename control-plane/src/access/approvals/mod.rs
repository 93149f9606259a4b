//! What needs a second person (`design/security.md` section 6): somebody asks, somebody else decides, each with a fresh
//! session of their own. An approval is good for one use by who asked, within ten minutes of the asking.
//!
//! What is approved and what its audit entries say is the business of who calls: every function here works in the
//! caller's transaction, and the caller appends.

mod store;
#[cfg(test)]
pub mod tests;

use std::time::Duration;

use shared::ids::{ApprovalId, ClientId, SlotId, UserId};
use shared::text_enum;
use shared::time::Timestamp;

use crate::app::App;
use crate::audit::AuditError;
use crate::db::Tx;
use crate::error::Failure;

/// From the asking to the end, whatever happens in between.
pub const TTL: Duration = Duration::from_secs(600);

text_enum! {
    pub enum ApprovalState {
        Waiting = "waiting",
        Approved = "approved",
        Declined = "declined",
        Used = "used",
        Expired = "expired",
    }
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One copy of this slot's value.
    Copy(SlotId),
    /// That copying this client's secrets needs no second person any more.
    SwitchOff,
}

impl Subject {
    fn slot(self) -> Option<SlotId> {
        match self {
            Self::Copy(slot) => Some(slot),
            Self::SwitchOff => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub id: ApprovalId,
    pub client_id: ClientId,
    pub subject: Subject,
    pub reason: String,
    /// As of when it was looked at: what is past its end is expired.
    pub state: ApprovalState,
    pub asked_by: UserId,
    /// Email addresses, which name a user in the audit log.
    pub asker: String,
    pub decider: Option<String>,
    pub asked_at: Timestamp,
    pub expires_at: Timestamp,
    pub decided_at: Option<Timestamp>,
    pub used_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error("There is no such request for a second person.")]
    Unknown,
    #[error(
        "You asked for this yourself, so you can't decide it: a second person is another person, signed in as themselves. Nothing was changed."
    )]
    Own,
    #[error(
        "Somebody else asked for this, so it is theirs to use. Nothing was copied. Ask for one of your own."
    )]
    NotYours,
    #[error(
        "You asked for this already, and it is not over yet. The approvals page shows how it stands; nothing was asked again."
    )]
    Asked,
    #[error("Nobody has approved this yet. Nothing was copied. Wait for the second person, or call one.")]
    Waiting,
    #[error("{0} declined this. Nothing was copied. Talk to them before you ask again.")]
    Declined(String),
    #[error(
        "This was approved for one copy, which was made. Nothing was copied again. Ask once more if you need to."
    )]
    Used,
    #[error("The ten minutes of this request are over. Nothing was done. Who needs it asks again.")]
    Expired,
    #[error("{0} decided this already. Nothing was changed.")]
    Decided(String),
    #[error(
        "Something else happened to this request at the same moment. Nothing was done: look at the page again."
    )]
    AtOnce,
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<ApprovalError> for Failure {
    fn from(error: ApprovalError) -> Self {
        use ApprovalError as E;
        let text = error.to_string();
        match error {
            E::Unknown => Self::not_found("request"),
            E::Own | E::NotYours => Self::forbidden(&text),
            E::Asked | E::Decided(_) | E::AtOnce => Self::conflict("approval", "Nothing was changed", text),
            E::Waiting | E::Declined(_) | E::Used => Self::conflict("approval", "Not copied", text),
            E::Expired => Self::new(410, "approval-over", "This request is over", text),
            E::Audit(error) => error.into(),
            E::Database(error) => error.into(),
        }
    }
}

/// Asks for a second person. One request at a time for the same thing.
pub async fn ask(
    app: &App,
    tx: &mut Tx,
    by: UserId,
    client_id: ClientId,
    subject: Subject,
    reason: &str,
) -> Result<ApprovalId, ApprovalError> {
    let now = app.now();
    store::expire(tx, by, now).await?;
    let id = ApprovalId::new(&*app.clock, &*app.random);
    let new = store::New { id, client_id, slot_id: subject.slot(), reason, by };
    match store::insert(tx, &new, now, now.after(TTL)).await? {
        1 => Ok(id),
        _ => Err(ApprovalError::Asked),
    }
}

/// Approves or declines what somebody else asked for.
pub async fn decide(
    app: &App,
    tx: &mut Tx,
    by: UserId,
    id: ApprovalId,
    yes: bool,
) -> Result<Approval, ApprovalError> {
    let now = app.now();
    let approval = store::get(tx, id, now).await?.ok_or(ApprovalError::Unknown)?;
    if approval.asked_by == by {
        return Err(ApprovalError::Own);
    }
    match (approval.state, &approval.decider) {
        (ApprovalState::Waiting, _) => {}
        (ApprovalState::Expired, _) | (_, None) => return Err(ApprovalError::Expired),
        (_, Some(decider)) => return Err(ApprovalError::Decided(decider.clone())),
    }
    let state = match (yes, approval.subject) {
        (false, _) => ApprovalState::Declined,
        (true, Subject::Copy(_)) => ApprovalState::Approved,
        // The caller does it at once.
        (true, Subject::SwitchOff) => ApprovalState::Used,
    };
    if store::decide(tx, id, by, state, now).await? != 1 {
        return Err(ApprovalError::AtOnce);
    }
    Ok(Approval { state, ..approval })
}

/// Uses an approval up: the same one never twice. What `by` asked for is theirs alone.
pub async fn use_up(app: &App, tx: &mut Tx, by: UserId, id: ApprovalId) -> Result<Approval, ApprovalError> {
    let now = app.now();
    let approval = store::get(tx, id, now).await?.ok_or(ApprovalError::Unknown)?;
    if approval.asked_by != by {
        return Err(ApprovalError::NotYours);
    }
    match approval.state {
        ApprovalState::Approved => {}
        ApprovalState::Waiting => return Err(ApprovalError::Waiting),
        ApprovalState::Declined => {
            return Err(ApprovalError::Declined(approval.decider.unwrap_or_default()));
        }
        ApprovalState::Used => return Err(ApprovalError::Used),
        ApprovalState::Expired => return Err(ApprovalError::Expired),
    }
    match store::use_up(tx, id, by, now).await? {
        1 => Ok(approval),
        _ => Err(ApprovalError::AtOnce),
    }
}

/// What waits for this user's decision, oldest first.
pub async fn to_decide(tx: &mut Tx, by: UserId, now: Timestamp) -> Result<Vec<Approval>, sqlx::Error> {
    store::to_decide(tx, by, now).await
}

/// How many those are.
pub async fn count(tx: &mut Tx, by: UserId, now: Timestamp) -> Result<u32, sqlx::Error> {
    Ok(u32::try_from(store::count(tx, by, now).await?).unwrap_or(0))
}

/// What this user asked for since a moment, newest first; the last twenty.
pub async fn asked(
    tx: &mut Tx,
    by: UserId,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<Approval>, sqlx::Error> {
    store::asked(tx, by, since, now).await
}
