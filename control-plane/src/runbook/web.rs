use std::collections::BTreeMap;

use askama::Template as _;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use shared::catalog::{Platform, StepKind};
use shared::ids::{AttemptId, DeviceId, StepId};

use super::views::{DeviceHead, OutputPage, RunbookFragment, RunbookPage, StepGroup, StepLine, Tally};
use super::{AttemptState, Step, StepState, of_device, output, retry, steps, tail};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::catalog::{self, Catalog};
use crate::clients::{self, views::ClientRef};
use crate::db::Tx;
use crate::enrollment::{Device, get_device};
use crate::error::Failure;
use crate::jobs::Wake;
use crate::live::{self, Shown};
use crate::pages::{Page, page};
use crate::secrets::{self, Delivery, DeliveryState};
use crate::web::{Moment, RowState, Section};

/// Lines of a failed step's output on the runbook page.
const TAIL: usize = 20;

pub async fn runbook_page(State(app): State<App>, visitor: Visitor, Path(id): Path<DeviceId>) -> Page {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, id).await?;
    let client = client_ref(&mut tx, &device).await?;
    let fragment = fragment(&app, &mut tx, &device, &visitor).await?;
    page(&RunbookPage {
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
            let (app, mut visitor) = (state.clone(), visitor.clone());
            async move {
                visitor.now = app.now();
                let mut tx = app.db.read().await?;
                let device = get_device(&mut tx, id).await?;
                let client = client_ref(&mut tx, &device).await?;
                let fragment = fragment(&app, &mut tx, &device, &visitor).await?;
                Ok(Shown {
                    title: fragment.title(&client.name),
                    favicon: if fragment.needs_you() { "needs" } else { "calm" },
                    html: fragment.render().map_err(Failure::internal)?,
                })
            }
        },
    )
}

pub async fn retry_form(
    State(app): State<App>,
    visitor: Visitor,
    Path((device_id, step_id)): Path<(DeviceId, StepId)>,
) -> Page {
    let mut tx = app.db.read().await?;
    let device = get_device(&mut tx, device_id).await?;
    drop(tx);
    retry(&app, visitor.who(), &device, step_id).await?;
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

async fn fragment(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    visitor: &Visitor,
) -> Result<RunbookFragment, Failure> {
    let on = app.links.since(device.id);
    let os = match device.platform {
        Platform::Macos => "macOS",
        Platform::Linux => "Linux",
    };
    let mut head = DeviceHead {
        name: device.name.clone(),
        on: on.is_some(),
        since: on.or(device.last_seen_at).map(|at| Moment { at, now: visitor.now }),
        os: format!("{os} {}", device.os_version),
        catalog: String::new(),
        dev: device.dev,
    };
    let Some(runbook) = of_device(tx, device.id).await? else {
        return Ok(RunbookFragment { device: head, tally: Tally::default(), groups: Vec::new() });
    };
    let catalog = catalog::by_digest(tx, &runbook.bundle_digest).await.map_err(Failure::from)?;
    if let Some(catalog) = &catalog {
        head.catalog = format!("Catalog {}", catalog.serial);
    }
    let mut lines: BTreeMap<String, Vec<StepLine>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let deliveries = secrets::for_device(tx, device.id).await?;
    let all = steps(tx, runbook.id).await?;
    for key in all
        .iter()
        .map(|step| &step.component_key)
        .chain(deliveries.iter().map(|delivery| &delivery.component_key))
    {
        if !order.contains(key) {
            order.push(key.clone());
        }
    }
    for delivery in &deliveries {
        lines.entry(delivery.component_key.clone()).or_default().push(delivery_line(delivery, head.on));
    }
    for step in &all {
        let line = step_line(tx, device, step, visitor).await?;
        lines.entry(step.component_key.clone()).or_default().push(line);
    }
    let groups: Vec<StepGroup> = order
        .into_iter()
        .map(|key| group(&key, lines.remove(&key).unwrap_or_default(), catalog.as_ref()))
        .collect();
    Ok(RunbookFragment { device: head, tally: tally(&groups), groups })
}

fn group(key: &str, lines: Vec<StepLine>, catalog: Option<&Catalog>) -> StepGroup {
    let done = count(&lines, RowState::Done);
    let total = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let component = catalog
        .and_then(|catalog| catalog.manifests.get(key))
        .map_or_else(|| key.to_owned(), |manifest| manifest.name.clone());
    StepGroup { component, done, total, finished: done == total, lines }
}

fn count(lines: &[StepLine], state: RowState) -> u32 {
    u32::try_from(lines.iter().filter(|line| line.state == state).count()).unwrap_or(u32::MAX)
}

fn tally(groups: &[StepGroup]) -> Tally {
    groups.iter().fold(Tally::default(), |sum, group| Tally {
        done: sum.done + group.done,
        running: sum.running + count(&group.lines, RowState::Running),
        needs_you: sum.needs_you + count(&group.lines, RowState::NeedsYou),
        failed: sum.failed + count(&group.lines, RowState::Failed),
        total: sum.total + group.total,
    })
}

fn delivery_line(delivery: &Delivery, on: bool) -> StepLine {
    let (state, meta) = match delivery.state {
        DeliveryState::Receipted => (RowState::Done, "receipt from the device".to_owned()),
        DeliveryState::Pending | DeliveryState::Superseded if on => {
            (RowState::Running, "being sealed".to_owned())
        }
        DeliveryState::Sent if on => (RowState::Running, "sealed and sent".to_owned()),
        DeliveryState::Pending | DeliveryState::Sent | DeliveryState::Superseded => {
            (RowState::Waiting, "when the device is on".to_owned())
        }
        DeliveryState::Refused => (RowState::Failed, "refused by the device".to_owned()),
    };
    StepLine {
        anchor: format!("delivery-{}", delivery.id),
        state,
        title: format!("Deliver {}", delivery.display_name),
        meta,
        last_line: None,
        tail: Vec::new(),
        found: delivery.reason.clone(),
        output_href: None,
        detail: Some(format!("version {}", delivery.version)),
        retry: None,
    }
}

async fn step_line(
    tx: &mut Tx,
    device: &Device,
    step: &Step,
    visitor: &Visitor,
) -> Result<StepLine, Failure> {
    let who = match step.kind {
        StepKind::Auto => "agent",
        StepKind::Manual => "you",
    };
    let took = step.duration_ms.map(|ms| format!("{:.1} s", ms as f64 / 1000.0));
    let (state, meta) = match step.state {
        StepState::Blocked => (RowState::Waiting, "after the steps before it".to_owned()),
        StepState::Ready => (RowState::Waiting, "next for the agent".to_owned()),
        StepState::Offered => (RowState::Running, "offered to the device".to_owned()),
        StepState::Running => {
            let since = step.running_at.map_or(0, |at| visitor.now.since(at).as_secs());
            (RowState::Running, format!("running {since} s · {who}"))
        }
        StepState::Succeeded => {
            let so = step.attempt_state == Some(AttemptState::AlreadySo);
            let took = if so { "was already so".to_owned() } else { took.unwrap_or_default() };
            (RowState::Done, format!("{took} · {who}"))
        }
        StepState::Skipped => (RowState::Done, "skipped".to_owned()),
        StepState::Failed => {
            (RowState::Failed, took.map_or("failed".to_owned(), |took| format!("failed after {took}")))
        }
        StepState::Interrupted => (RowState::Failed, "interrupted".to_owned()),
        StepState::Cancelled => (RowState::Failed, "cancelled".to_owned()),
        StepState::Waiting if step.kind == StepKind::Manual => {
            (RowState::NeedsYou, "waits for you".to_owned())
        }
        StepState::Waiting => {
            (RowState::Waiting, format!("waits for {}", step.waits_for.as_deref().unwrap_or("something")))
        }
    };
    let tail = match (state, step.attempt_id) {
        (RowState::Failed, Some(attempt)) => tail(tx, attempt, TAIL).await?,
        (RowState::Running, Some(attempt)) => tail(tx, attempt, 1).await?,
        _ => Vec::new(),
    };
    let failed = state == RowState::Failed;
    let retry = (failed && visitor.can(Role::Consultant))
        .then(|| format!("/devices/{}/runbook/steps/{}/retry", device.id, step.id));
    let (last_line, tail) = if failed { (None, tail) } else { (tail.into_iter().next_back(), Vec::new()) };
    Ok(StepLine {
        anchor: format!("step-{}", step.id),
        state,
        title: step.title.clone(),
        meta,
        last_line,
        tail,
        found: step.found.clone().filter(|found| failed && !found.is_empty()),
        output_href: step
            .attempt_id
            .filter(|_| step.running_at.is_some())
            .map(|attempt| format!("/devices/{}/output/{attempt}", device.id)),
        detail: None,
        retry,
    })
}
