//! Whether copying a client's secrets needs a second person. Any consultant switches it on; it goes off only when another
//! consultant approves, or by an operator.

use shared::ids::{ClientId, UserId};

use super::{get, store};
use crate::access::approvals::{self, Approval, ApprovalError, Subject};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;

/// Whether each copy of this client's secrets needs a second person.
pub async fn second_person(tx: &mut Tx, id: ClientId) -> Result<bool, Failure> {
    store::second_person(tx, id).await?.ok_or_else(|| Failure::not_found("client"))
}

/// Switches it on, or, for an operator, off; each change is in the audit log. Going on needs no reason.
pub async fn set_second_person(
    app: &App,
    who: Who,
    id: ClientId,
    wanted: bool,
    reason: &str,
) -> Result<(), Failure> {
    let reason = if wanted { "" } else { free_text::reason(reason)? };
    let mut tx = app.db.write().await?;
    get(&mut tx, id).await?;
    if store::set_second_person(&mut tx, id, wanted).await? == 1 {
        let entry = changed(app, who, id, wanted).reason(reason);
        audit::append(&mut tx, &entry).await?;
    }
    tx.commit().await?;
    app.jobs.wake(Wake::Client(id));
    Ok(())
}

/// Asks another consultant to switch it off.
pub async fn ask_to_switch_off(
    app: &App,
    who: Who,
    by: UserId,
    id: ClientId,
    reason: &str,
) -> Result<(), Failure> {
    let reason = free_text::reason(reason)?;
    let mut tx = app.db.write().await?;
    if !second_person(&mut tx, id).await? {
        let detail = "Copying this client's secrets needs no second person as it is. Nothing was asked.";
        return Err(Failure::conflict("second-person", "It is off", detail));
    }
    let approval = approvals::ask(app, &mut tx, by, id, Subject::SwitchOff, reason).await?;
    let entry = Entry::new(app.now(), who, Action::ApprovalAsked)
        .client(id)
        .reason(reason)
        .detail("approval", approval)
        .detail("for", "switching off the second person");
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Approvals);
    Ok(())
}

/// Switches it off because a second person approved; gives the entry, which the caller appends. None when it was off.
pub async fn switched_off(
    app: &App,
    tx: &mut Tx,
    who: Who,
    approval: &Approval,
) -> Result<Option<Entry>, ApprovalError> {
    if store::set_second_person(tx, approval.client_id, false).await? != 1 {
        return Ok(None);
    }
    let entry = changed(app, who, approval.client_id, false)
        .reason(&approval.reason)
        .detail("asked_by", &approval.asker)
        .detail("approval", approval.id);
    Ok(Some(entry))
}

fn changed(app: &App, who: Who, id: ClientId, wanted: bool) -> Entry {
    let entry = Entry::new(app.now(), who, Action::SecondPersonChanged).client(id);
    entry.detail("second_person", if wanted { "on" } else { "off" })
}
