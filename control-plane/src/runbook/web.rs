use askama::Template as _;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use shared::ids::{AttemptId, ClientId, DeviceId, SlotId, StepId};

use super::lines::fragment;
use super::plan::views::PlanPage;
use super::plan::{self, ask_plan};
use super::views::{OutputPage, RunbookPage};
use super::{mark, of_device, output, pause, resume, retry, skip, steps, would_restart};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::catalog::{self, AnySlot};
use crate::clients::{self, views::ClientRef};
use crate::db::Tx;
use crate::enrollment::{Device, DeviceState, get_device};
use crate::error::Failure;
use crate::jobs::Wake;
use crate::live::{self, Shown};
use crate::pages::{Page, page};
use crate::secrets;
use crate::secrets::views::RunsAgain;
use crate::secrets::web::RotateFields;
use crate::web::Section;

pub async fn runbook_page(State(app): State<App>, visitor: Visitor, Path(id): Path<DeviceId>) -> Page {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, id).await?;
    let client = client_ref(&mut tx, &device).await?;
    let fragment = fragment(&app, &mut tx, &device, &visitor).await?;
    let may_revoke = visitor.can(Role::Consultant) && device.state != DeviceState::Revoked;
    page(&RunbookPage {
        revoke: may_revoke.then(|| format!("/devices/{id}/revoke")),
        shell: visitor.shell(Section::Clients),
        client,
        device_name: device.name,
        events: format!("/devices/{id}/runbook/events"),
        fragment,
    })
}

pub async fn events(State(app): State<App>, visitor: Visitor, Path(id): Path<DeviceId>) -> Response {
    let state = app.clone();
    live::stream(
        &app,
        move |wake| wake == Wake::Device(id),
        move || {
            let (app, visitor) = (state.clone(), visitor.clone());
            async move {
                let visitor = visitor.again(&app).await?;
                let mut tx = app.db.read().await?;
                let device = get_device(&mut tx, id).await?;
                let client = client_ref(&mut tx, &device).await?;
                let fragment = fragment(&app, &mut tx, &device, &visitor).await?;
                Ok(Shown {
                    title: fragment.title(&client.name),
                    favicon: if fragment.needs_you() { "needs" } else { "calm" },
                    approvals: visitor.approvals,
                    html: fragment.render().map_err(Failure::internal)?,
                })
            }
        },
    )
}

/// A secret's new value is stored by `secrets`; what it makes run again only the runbooks know.
pub async fn rotate_page(
    State(app): State<App>,
    visitor: Visitor,
    Path(place): Path<(ClientId, SlotId)>,
) -> Page {
    let restarts = restarts(&app, place).await?;
    secrets::web::rotate_page(&app, &visitor, place, restarts).await
}

pub async fn rotate_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(place): Path<(ClientId, SlotId)>,
    Form(form): Form<RotateFields>,
) -> Page {
    let restarts = restarts(&app, place).await?;
    secrets::web::rotate_form(&app, &visitor, place, restarts, form).await
}

async fn restarts(app: &App, (client_id, slot_id): (ClientId, SlotId)) -> Result<Vec<RunsAgain>, Failure> {
    let mut tx = app.db.read().await?;
    let slots = clients::slots(&mut tx, client_id).await?;
    let ours = |slot: &AnySlot| matches!(slot, AnySlot::Ours(slot) if slot.id == slot_id);
    match slots.iter().find(|slot| ours(slot)) {
        Some(slot) => would_restart(&mut tx, client_id, slot.keys()).await,
        None => Ok(Vec::new()),
    }
}

pub async fn retry_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
) -> Page {
    let device = device_of(&app, device_id).await?;
    retry(&app, visitor.who(), &device, step_id).await?;
    back(device_id)
}

#[derive(Deserialize)]
pub struct ReasonForm {
    #[serde(default)]
    reason: String,
}

pub async fn pause_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(device_id): Path<DeviceId>,
    Form(form): Form<ReasonForm>,
) -> Page {
    let device = device_of(&app, device_id).await?;
    pause(&app, visitor.who(), &device, &form.reason).await?;
    back(device_id)
}

pub async fn resume_form(State(app): State<App>, visitor: Visitor, Path(device_id): Path<DeviceId>) -> Page {
    let device = device_of(&app, device_id).await?;
    resume(&app, visitor.who(), &device).await?;
    back(device_id)
}

pub async fn plan_form(State(app): State<App>, visitor: Visitor, Path(device_id): Path<DeviceId>) -> Page {
    let device = device_of(&app, device_id).await?;
    ask_plan(&app, visitor.who(), &device).await?;
    back(device_id)
}

pub async fn skip_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
    Form(form): Form<ReasonForm>,
) -> Page {
    let device = device_of(&app, device_id).await?;
    skip(&app, visitor.who(), &device, step_id, &form.reason).await?;
    back(device_id)
}

pub async fn mark_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
) -> Page {
    let device = device_of(&app, device_id).await?;
    mark(&app, visitor.who(), &device, step_id).await?;
    back(device_id)
}

/// All that the latest plan says.
pub async fn plan_page(State(app): State<App>, visitor: Visitor, Path(id): Path<DeviceId>) -> Page {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, id).await?;
    let plan = match of_device(&mut tx, id).await? {
        Some(runbook) => {
            let catalog = catalog::by_digest(&mut tx, &runbook.bundle_digest).await?;
            let steps = steps(&mut tx, runbook.id).await?;
            let on = app.links.since(id).is_some();
            plan::shown(&mut tx, &device, &runbook, &steps, catalog.as_ref(), on, &visitor).await?.0.plan
        }
        None => None,
    };
    page(&PlanPage {
        shell: visitor.shell(Section::Clients),
        client: client_ref(&mut tx, &device).await?,
        device_name: device.name,
        device_href: format!("/devices/{id}/runbook"),
        plan,
    })
}

async fn device_of(app: &App, id: DeviceId) -> Result<Device, Failure> {
    let mut tx = app.db.read().await?;
    get_device(&mut tx, id).await
}

fn back(device_id: DeviceId) -> Page {
    Ok(Redirect::to(&format!("/devices/{device_id}/runbook")).into_response())
}

pub async fn output_page(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, attempt_id)): Path<(DeviceId, AttemptId)>,
) -> Page {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, device_id).await?;
    let runbook = of_device(&mut tx, device_id).await?.ok_or_else(|| Failure::not_found("runbook"))?;
    let step = steps(&mut tx, runbook.id)
        .await?
        .into_iter()
        .find(|step| step.attempt_id == Some(attempt_id))
        .ok_or_else(|| Failure::not_found("attempt"))?;
    let text = output(&mut tx, attempt_id).await?;
    page(&OutputPage {
        shell: visitor.shell(Section::Clients),
        client: client_ref(&mut tx, &device).await?,
        device_name: device.name,
        device_href: format!("/devices/{device_id}/runbook"),
        step_title: step.title,
        truncated: text.len() as u64 >= shared::protocol::steps::MAX_OUTPUT,
        text,
    })
}

async fn client_ref(tx: &mut Tx, device: &Device) -> Result<ClientRef, Failure> {
    let client = clients::get(tx, device.client_id).await?;
    Ok(ClientRef { href: format!("/clients/{}", client.id), name: client.name })
}
