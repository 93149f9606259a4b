use askama::Template as _;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use std::time::Duration;

use shared::ids::{ApprovalId, ClientId, SlotId};

use super::views::{ApprovalCard, ApprovalsFragment, ApprovalsPage, OwnRow, Wanted};
use crate::access::Visitor;
use crate::access::approvals::{self, Approval, ApprovalError, ApprovalState, Subject};
use crate::app::App;
use crate::catalog::AnySlot;
use crate::clients::{self, views::ClientRef};
use crate::db::Tx;
use crate::error::Failure;
use crate::live::{self, Shown};
use crate::pages::{Page, page};
use crate::secrets::copy::approved_form;
use crate::secrets::web::handed_over;
use crate::secrets::{CopyError, ask_for_copy, copy_approved, decide};
use crate::web::{Moment, RowState, Section};

/// What somebody asked for stays on their page this long.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

pub async fn approvals_page(State(app): State<App>, visitor: Visitor) -> Page {
    let fragment = fragment(&app, &visitor).await?;
    page(&ApprovalsPage { shell: visitor.shell(Section::Approvals), fragment })
}

pub async fn events(State(app): State<App>, visitor: Visitor) -> Response {
    let state = app.clone();
    live::stream(
        &app,
        |_| false,
        move || {
            let (app, visitor) = (state.clone(), visitor.clone());
            async move {
                let visitor = visitor.again(&app).await?;
                let fragment = fragment(&app, &visitor).await?;
                Ok(Shown {
                    title: fragment.title(),
                    favicon: if fragment.needs_you() { "needs" } else { "calm" },
                    approvals: visitor.approvals,
                    html: fragment.render().map_err(Failure::internal)?,
                })
            }
        },
    )
}

#[derive(Deserialize)]
pub struct AskForm {
    #[serde(default)]
    reason: String,
}

/// Asking for what is asked for already leads to where it stands.
pub async fn ask_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((client_id, slot_id)): Path<(ClientId, SlotId)>,
    Form(form): Form<AskForm>,
) -> Page {
    let by = visitor.user()?.id;
    match ask_for_copy(&app, visitor.who(), by, client_id, slot_id, &form.reason).await {
        Ok(_) | Err(CopyError::Approval(ApprovalError::Asked)) => {
            Ok(Redirect::to("/approvals").into_response())
        }
        Err(error) => Err(Failure::from(error).into()),
    }
}

pub async fn approve_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ApprovalId>) -> Page {
    decide(&app, visitor.who(), visitor.user()?.id, id, true).await?;
    Ok(Redirect::to("/approvals").into_response())
}

pub async fn decline_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ApprovalId>) -> Page {
    decide(&app, visitor.who(), visitor.user()?.id, id, false).await?;
    Ok(Redirect::to("/approvals").into_response())
}

/// Answers with the value itself, like `secrets::web::copy_secret`.
pub async fn copy_form(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    Path(id): Path<ApprovalId>,
) -> Result<Response, Failure> {
    let by = visitor.user()?.id;
    handed_over(&headers, async || copy_approved(&app, visitor.who(), by, id).await).await
}

async fn fragment(app: &App, visitor: &Visitor) -> Result<ApprovalsFragment, Failure> {
    let now = visitor.now;
    let user = visitor.user()?;
    let mut tx = app.db.read().await?;
    let mut cards = Vec::new();
    for approval in approvals::to_decide(&mut tx, user.id, now).await? {
        let (client, slot) = about(&mut tx, &approval).await?;
        let wanted = match approval.subject {
            Subject::Copy(_) => Wanted::Copy { name: slot.name, place: slot.place },
            Subject::SwitchOff => Wanted::SwitchOff,
        };
        cards.push(ApprovalCard {
            id: approval.id.to_string(),
            client,
            wanted,
            asker: approval.asker,
            reason: approval.reason,
            asked: Moment { at: approval.asked_at, now },
            expires: Moment { at: approval.expires_at, now },
        });
    }
    let mut own = Vec::new();
    for approval in approvals::asked(&mut tx, user.id, now.before(REMEMBERED), now).await? {
        own.push(own_row(&mut tx, visitor, approval).await?);
    }
    Ok(ApprovalsFragment { cards, own, ask_password: !visitor.fresh })
}

struct SlotWords {
    key: String,
    name: String,
    /// "component/KEY"
    place: String,
}

async fn about(tx: &mut Tx, approval: &Approval) -> Result<(ClientRef, SlotWords), Failure> {
    let id = approval.client_id;
    let client = clients::get(tx, id).await?;
    let slot = clients::slots(tx, id).await?.into_iter().find_map(|slot| match slot {
        AnySlot::Ours(slot) if approval.subject == Subject::Copy(slot.id) => Some(slot),
        AnySlot::Ours(_) | AnySlot::Theirs(_) => None,
    });
    let words = match slot {
        Some(slot) => SlotWords {
            place: format!("{}/{}", slot.component_key, slot.slot_key),
            key: slot.slot_key,
            name: slot.name,
        },
        None => SlotWords {
            key: String::new(),
            name: "a secret that is out of the scope by now".to_owned(),
            place: String::new(),
        },
    };
    Ok((ClientRef { href: format!("/clients/{id}"), name: client.name }, words))
}

async fn own_row(tx: &mut Tx, visitor: &Visitor, approval: Approval) -> Result<OwnRow, Failure> {
    let now = visitor.now;
    let (client, slot) = about(tx, &approval).await?;
    let decider = approval.decider.as_deref().unwrap_or_default();
    let copies = approval.subject != Subject::SwitchOff;
    let (state, words, at) = match approval.state {
        ApprovalState::Waiting => {
            (RowState::Waiting, "waits for a second person".to_owned(), Some(approval.asked_at))
        }
        ApprovalState::Approved => {
            (RowState::NeedsYou, format!("approved by {decider}, for one copy"), approval.decided_at)
        }
        ApprovalState::Declined => (RowState::Failed, format!("declined by {decider}"), approval.decided_at),
        // The board can't see whether it got into the clipboard.
        ApprovalState::Used if copies => {
            let words = format!("approved by {decider}, and given to your browser");
            (RowState::Done, words, approval.used_at)
        }
        ApprovalState::Used => {
            (RowState::Done, format!("approved by {decider}, and switched off"), approval.decided_at)
        }
        ApprovalState::Expired => {
            (RowState::Off, "the ten minutes are over".to_owned(), Some(approval.expires_at))
        }
    };
    let open = matches!(approval.state, ApprovalState::Waiting | ApprovalState::Approved);
    let ready = copies && approval.state == ApprovalState::Approved;
    Ok(OwnRow {
        copy: ready.then(|| approved_form(visitor, approval.id, (&slot.key, &slot.name))),
        id: approval.id.to_string(),
        client,
        what: match copies {
            true => slot.name,
            false => "Switching off the second person".to_owned(),
        },
        reason: approval.reason,
        state,
        words,
        at: Moment { at: at.unwrap_or(approval.asked_at), now },
        until: open.then_some(Moment { at: approval.expires_at, now }),
    })
}
