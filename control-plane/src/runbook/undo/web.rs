use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use shared::catalog::{As, StepKind};
use shared::ids::{DeviceId, StepId};

use super::views::{At, UndoPage};
use super::{catalog_of, is_undone, keep, may_be_asked, moved_on, own_step, undo, written};
use crate::access::Visitor;
use crate::app::App;
use crate::catalog::Catalog;
use crate::clients::{self, views::ClientRef};
use crate::enrollment::{Device, get_device};
use crate::error::Failure;
use crate::free_text;
use crate::pages::{Page, page, status};
use crate::runbook::{Step, StepState, decide, is_paused};
use crate::web::{FieldError, Section};

pub async fn undo_page(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
) -> Page {
    page(&undoing(&app, &visitor, device_id, step_id, String::new(), Vec::new()).await?)
}

#[derive(Deserialize)]
pub struct UndoForm {
    #[serde(default)]
    reason: String,
}

pub async fn undo_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
    Form(form): Form<UndoForm>,
) -> Page {
    if let Err(failure) = free_text::reason(&form.reason) {
        let errors = vec![FieldError::new("reason", failure.public.detail.clone())];
        let reason = free_text::shown_again(&form.reason).to_owned();
        // A step that moved on meanwhile has no such page any more.
        let Ok(shown) = undoing(&app, &visitor, device_id, step_id, reason, errors).await else {
            return Err(failure.into());
        };
        return Ok((status(422), page(&shown)?).into_response());
    }
    let device = device_of(&app, device_id).await?;
    undo(&app, visitor.who(), &device, step_id, &form.reason).await?;
    Ok(to_line(device_id, step_id))
}

pub async fn keep_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
) -> Page {
    let device = device_of(&app, device_id).await?;
    keep(&app, visitor.who(), &device, step_id).await?;
    Ok(to_line(device_id, step_id))
}

async fn device_of(app: &App, id: DeviceId) -> Result<Device, Failure> {
    get_device(&mut app.db.read().await?, id).await
}

fn to_line(device_id: DeviceId, step_id: StepId) -> Response {
    Redirect::to(&format!("/devices/{device_id}/runbook#step-{step_id}")).into_response()
}

async fn undoing(
    app: &App,
    visitor: &Visitor,
    device_id: DeviceId,
    step_id: StepId,
    reason: String,
    errors: Vec<FieldError>,
) -> Result<UndoPage, Failure> {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, device_id).await?;
    let client = clients::get(&mut tx, device.client_id).await?;
    let step = own_step(&mut tx, &device, step_id).await?;
    let catalog = catalog_of(&mut tx, &device).await?;
    let (manifest, written) = written(&step, catalog.as_ref()).ok_or_else(moved_on)?;
    let device_href = format!("/devices/{device_id}/runbook");
    let action = |name: &str| format!("{device_href}/steps/{step_id}/{name}");
    let at = if is_undone(&step) {
        At::Undone { why: step.undone_for.clone().unwrap_or_default(), retry: action("retry") }
    } else if let Some(why) = &step.undo_for {
        At::Asked { why: why.clone(), keep: action("keep") }
    } else if may_be_asked(&step, catalog.as_ref()) {
        let steps = decide::own_steps(&mut tx, device.id).await?;
        At::Ask {
            action: action("undo"),
            script: written.undo.clone().unwrap_or_default(),
            as_root: written.run_as == Some(As::Root),
            on: app.links.since(device_id).is_some(),
            paused: is_paused(&mut tx, device_id).await?,
            dependents: dependents(&step, &steps, catalog.as_ref()),
        }
    } else {
        return Err(moved_on());
    };
    Ok(UndoPage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{}", client.id), name: client.name },
        device_name: device.name,
        device_href,
        anchor: format!("step-{step_id}"),
        title: step.title.clone(),
        component: manifest.name.clone(),
        key: format!("{}/{}", step.component_key, step.step_key),
        at,
        errors,
        reason,
        ask_password: !visitor.fresh,
    })
}

/// Finished steps after it in its component, and those of the components that depend on it.
fn dependents(step: &Step, steps: &[Step], catalog: Option<&Catalog>) -> Vec<String> {
    let needs = |other: &Step| {
        let manifest = catalog.and_then(|catalog| catalog.manifests.get(&other.component_key));
        manifest.is_some_and(|manifest| manifest.depends_on.contains(&step.component_key))
    };
    let after = steps.iter().skip_while(|other| other.id != step.id).skip(1);
    let same = after.clone().filter(|other| other.component_key == step.component_key);
    let others = steps.iter().filter(|other| needs(other));
    same.chain(others)
        .filter(|other| other.state == StepState::Succeeded && other.kind == StepKind::Auto)
        .map(|other| other.title.clone())
        .collect()
}
