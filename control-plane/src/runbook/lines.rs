//! From a runbook's rows to what its page shows: the head, the groups, one line a step, and the cards of manual ones.

use std::collections::BTreeMap;

use shared::catalog::{Manifest, Platform, Slot, StepKind};
use shared::crypto::hex;
use shared::ids::DeviceId;
use shared::protocol::inventory::SlotState;

use super::compose::Wants;
use super::plan::views::{Control, PlannedWord};
use super::views::{
    BrowserPaste, DeviceHead, ManualCard, ManualSlot, RunbookFragment, StepGroup, StepLine, Tally, UndoLink,
};
use super::{AttemptState, Step, StepState, markdown, of_device, plan, restart, steps, tail, undo};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::catalog::{self, Catalog};
use crate::clients::{self, Client};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::inventory::{self, InstalledSlot};
use crate::secrets::views::CopyForm;
use crate::secrets::{self, Delivery, DeliveryState, Spread};
use crate::web::{Moment, RowState};

/// Lines of a failed step's output on the runbook page.
const TAIL: usize = 20;

/// What the runbook page shows of a device.
pub async fn fragment(
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
        let (control, tally) = (Control::default(), Tally::default());
        return Ok(RunbookFragment { device: head, control, tally, groups: Vec::new() });
    };
    let catalog = catalog::by_digest(tx, &runbook.bundle_digest).await.map_err(Failure::from)?;
    if let Some(catalog) = &catalog {
        head.catalog = format!("Catalog {}", catalog.serial);
    }
    let client = clients::get(tx, device.client_id).await?;
    let mut lines: BTreeMap<String, Vec<StepLine>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let deliveries = secrets::for_device(tx, device.id).await?;
    let spread = secrets::spread(tx, device.client_id).await?;
    let all = steps(tx, runbook.id).await?;
    let (control, planned) =
        plan::shown(tx, device, &runbook, &all, catalog.as_ref(), head.on, visitor).await?;
    let is_paused = control.pause.is_some();
    let consultant = visitor.can(Role::Consultant);
    let browser = consultant && clients::browser_paste(tx, client.id).await?;
    let second_person = clients::second_person(tx, client.id).await?;
    let sealing_key = if browser { secrets::sealing_key(tx, device.id).await? } else { None };
    let context = Context {
        catalog: catalog.as_ref(),
        client: &client,
        on: head.on,
        device: device.id,
        board: visitor.board(),
        sealing_key: sealing_key.map(|key| hex(&key)),
        is_paused,
        wants: Wants::of(tx, client.id).await?,
        planned,
    };
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
        let slot = inventory::slot(tx, device.id, &delivery.component_key, &delivery.slot_key).await?;
        let slot = slot.filter(|slot| slot.version == Some(delivery.version));
        let place = (delivery.client_id, delivery.slot_id);
        let keys = (delivery.component_key.as_str(), delivery.slot_key.as_str());
        let (name, id) = (&delivery.display_name, delivery.id.to_string());
        let copying = secrets::copy_form(visitor, catalog.as_ref(), place, keys, name, id, second_person);
        let mut line = delivery_line(delivery, slot.as_ref(), head.on, copying);
        let own = |one: &&Spread| one.device_id == device.id && one.slot_id == delivery.slot_id;
        let older = spread.iter().find(own).filter(|one| !one.arrived()).and_then(Spread::in_place);
        if let Some(older) = older {
            line.detail =
                Some(format!("version {}; the device goes on with version {older}", delivery.version));
        }
        lines.entry(delivery.component_key.clone()).or_default().push(line);
    }
    for step in &all {
        let line = step_line(tx, device, step, visitor, &context).await?;
        lines.entry(step.component_key.clone()).or_default().push(line);
    }
    let groups: Vec<StepGroup> = order
        .into_iter()
        .map(|key| group(&key, lines.remove(&key).unwrap_or_default(), catalog.as_ref()))
        .collect();
    Ok(RunbookFragment { device: head, control, tally: tally(&groups), groups })
}

fn group(key: &str, lines: Vec<StepLine>, catalog: Option<&Catalog>) -> StepGroup {
    let done = count(&lines, RowState::Done);
    let total = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let component = catalog.map_or_else(|| key.to_owned(), |catalog| catalog.name_of(key));
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

/// `slot` is what the device says of this version.
fn delivery_line(
    delivery: &Delivery,
    slot: Option<&InstalledSlot>,
    on: bool,
    copy: Option<CopyForm>,
) -> StepLine {
    let checked = slot.map_or(SlotState::Present, |slot| slot.state);
    let (state, meta) = match delivery.state {
        DeliveryState::Receipted => match checked {
            SlotState::Rejected => (RowState::Failed, "the provider refuses this credential".to_owned()),
            SlotState::Verified => {
                (RowState::Done, "receipt from the device; the provider accepts it".to_owned())
            }
            SlotState::Unverifiable => {
                (RowState::Done, "receipt from the device; nobody knows whether it works".to_owned())
            }
            SlotState::Unreadable => (RowState::Failed, "the device can't read its own store".to_owned()),
            SlotState::Empty | SlotState::Present => (RowState::Done, "receipt from the device".to_owned()),
        },
        DeliveryState::Pending if on => (RowState::Running, "being sealed".to_owned()),
        DeliveryState::Sent if on => (RowState::Running, "sealed and sent".to_owned()),
        DeliveryState::Pending | DeliveryState::Sent => {
            (RowState::Waiting, "when the device is on".to_owned())
        }
        // Of each slot the newest is shown: no newer version took its place.
        DeliveryState::Superseded => {
            (RowState::Done, "not delivered: no longer in the client’s scope".to_owned())
        }
        DeliveryState::Refused => (RowState::Failed, "refused by the device".to_owned()),
    };
    StepLine {
        anchor: format!("delivery-{}", delivery.id),
        state,
        auto: false,
        planned: None,
        title: format!("Deliver {}", delivery.display_name),
        meta,
        last_line: None,
        tail: Vec::new(),
        found: slot
            .filter(|slot| slot.is_refused())
            .and_then(InstalledSlot::evidence)
            .or_else(|| delivery.reason.clone()),
        output_href: None,
        detail: Some(format!("version {}", delivery.version)),
        undo: None,
        retry: None,
        skip: None,
        note: None,
        copy,
        card: None,
    }
}

/// What the lines of one page have in common.
struct Context<'a> {
    catalog: Option<&'a Catalog>,
    client: &'a Client,
    on: bool,
    device: DeviceId,
    /// The console's address, as this viewer reaches it.
    board: String,
    /// Whoever sees the page may seal in it to this key.
    sealing_key: Option<String>,
    is_paused: bool,
    wants: Wants,
    /// By step.
    planned: BTreeMap<String, PlannedWord>,
}

async fn step_line(
    tx: &mut Tx,
    device: &Device,
    step: &Step,
    visitor: &Visitor,
    context: &Context<'_>,
) -> Result<StepLine, Failure> {
    let who = match step.kind {
        StepKind::Auto => "agent",
        StepKind::Manual => "you",
    };
    let slots = slots_of_step(tx, device, step, context).await?;
    let is_any =
        |state| slots.iter().any(|(_, there)| there.as_ref().is_some_and(|there| there.state == state));
    let took = step.duration_ms.map(|ms| format!("{:.1} s", ms as f64 / 1000.0));
    let (state, meta) = match step.state {
        StepState::Blocked => (RowState::Waiting, "after the steps before it".to_owned()),
        StepState::Ready if context.is_paused => {
            (RowState::Waiting, "when the runbook is resumed".to_owned())
        }
        StepState::Ready => (RowState::Waiting, "next for the agent".to_owned()),
        // If the device has taken it already, its next word is that it runs.
        StepState::Offered if context.is_paused => {
            (RowState::Waiting, "offered before the pause; not again until it is over".to_owned())
        }
        StepState::Offered => (RowState::Running, "offered to the device".to_owned()),
        StepState::Running => {
            let since = step.running_at.map_or(0, |at| visitor.now.since(at).as_secs());
            (RowState::Running, format!("{since} s so far · {who}"))
        }
        StepState::Succeeded if step.kind == StepKind::Manual => {
            let word = match &step.note {
                Some(_) => "marked, not confirmed by the device",
                None if is_any(SlotState::Unverifiable) => {
                    "confirmed by the device; nobody knows whether it works"
                }
                None if is_any(SlotState::Verified) => "confirmed by the device; the provider accepts it",
                None => "confirmed by the device",
            };
            (RowState::Done, word.to_owned())
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
            let refused = is_any(SlotState::Rejected);
            let word = if refused { "the provider refused this credential" } else { "waits for you" };
            (RowState::NeedsYou, word.to_owned())
        }
        StepState::Waiting => {
            (RowState::Waiting, format!("waits for {}", step.waits_for.as_deref().unwrap_or("something")))
        }
    };
    let meta = match (step.state, &step.undo_for, &step.undone_for) {
        (StepState::Ready, Some(_), _) => format!("to be undone: {meta}"),
        (StepState::Offered | StepState::Running, _, Some(_)) => format!("being undone: {meta}"),
        (StepState::Failed | StepState::Interrupted | StepState::Cancelled, _, Some(_)) => {
            format!("undoing it: {meta}")
        }
        (StepState::Skipped, _, Some(_)) if undo::is_undone(step) => "undone".to_owned(),
        _ => meta,
    };
    let tail = match (state, step.attempt_id) {
        (RowState::Failed, Some(attempt)) => tail(tx, attempt, TAIL).await?,
        (RowState::Running, Some(attempt)) => tail(tx, attempt, 1).await?,
        _ => Vec::new(),
    };
    let failed = state == RowState::Failed;
    let consultant = visitor.can(Role::Consultant);
    let manual = step.kind == StepKind::Manual && step.state == StepState::Waiting;
    let undo_word = if undo::is_undone(step) {
        Some("Set up again")
    } else if step.undo_for.is_some() {
        Some("Keep it")
    } else {
        undo::may_be_asked(step, context.catalog).then_some("Undo")
    };
    let action = |name: &str| format!("/devices/{}/runbook/steps/{}/{name}", device.id, step.id);
    let wanted = context.catalog.is_none_or(|catalog| context.wants.step(catalog, step));
    let retry = (failed && wanted && consultant && step.kind == StepKind::Auto).then(|| action("retry"));
    let waits = step.state == StepState::Waiting;
    let skip = ((failed || waits) && consultant).then(|| action("skip"));
    let mark = (manual && consultant).then(|| action("mark"));
    let card = if manual { manual_card(step, context, &slots, mark) } else { None };
    let (last_line, tail) = if failed { (None, tail) } else { (tail.into_iter().next_back(), Vec::new()) };
    Ok(StepLine {
        anchor: format!("step-{}", step.id),
        state,
        auto: step.kind == StepKind::Auto,
        planned: context.planned.get(&step.id.to_string()).copied(),
        title: step.title.clone(),
        meta,
        last_line,
        tail,
        found: step.found.clone().filter(|found| failed && !found.is_empty()),
        output_href: step
            .attempt_id
            .filter(|_| step.running_at.is_some())
            .map(|attempt| format!("/devices/{}/output/{attempt}", device.id)),
        detail: match &step.undo_for {
            Some(why) => Some(format!("to be undone; {why}")),
            None => restart::in_words(step, wanted),
        },
        undo: undo_word.filter(|_| consultant).map(|word| UndoLink { href: action("undo"), word }),
        retry,
        skip,
        note: step.note.clone(),
        copy: None,
        card,
    })
}

/// The slots that a manual step is done with, and what the device says of each.
async fn slots_of_step<'c>(
    tx: &mut Tx,
    device: &Device,
    step: &Step,
    context: &Context<'c>,
) -> Result<Vec<(&'c Slot, Option<InstalledSlot>)>, sqlx::Error> {
    let manifest = context.catalog.and_then(|catalog| catalog.manifests.get(&step.component_key));
    let Some(manifest) = manifest.filter(|_| step.kind == StepKind::Manual) else { return Ok(Vec::new()) };
    let Some(written) = manifest.step(&step.step_key) else { return Ok(Vec::new()) };
    let mut slots = Vec::new();
    for slot in written.slots.iter().filter_map(|key| manifest.slot(key)) {
        slots.push((slot, inventory::slot(tx, device.id, &manifest.key, &slot.key).await?));
    }
    Ok(slots)
}

fn manual_card(
    step: &Step,
    context: &Context<'_>,
    slots: &[(&Slot, Option<InstalledSlot>)],
    mark: Option<String>,
) -> Option<ManualCard> {
    let manifest = context.catalog?.manifests.get(&step.component_key)?;
    let written = manifest.step(&step.step_key)?;
    let shown = slots.iter().map(|(slot, there)| {
        let (state, says) = says(there.as_ref(), context.on);
        ManualSlot {
            name: slot.name.clone(),
            reference: clients::fill_hint(slot.hint.as_deref().unwrap_or_default(), context.client),
            command: format!("sudo board-agent paste {}/{}", manifest.key, slot.key),
            from_here: from_here(manifest, slot, context),
            browser: context.sealing_key.as_ref().map(|key| BrowserPaste {
                action: format!("/api/v1/devices/{}/paste", context.device),
                client: context.client.id.to_string(),
                device: context.device.to_string(),
                component: manifest.key.clone(),
                slot: slot.key.clone(),
                key: key.clone(),
            }),
            says,
            state,
        }
    });
    Some(ManualCard {
        component: manifest.name.clone(),
        text: markdown::render(written.text.as_deref().unwrap_or_default()),
        slots: shown.collect(),
        mark,
    })
}

/// `board paste` with what the page knows; from the vault when the value has a place there.
fn from_here(manifest: &Manifest, slot: &Slot, context: &Context<'_>) -> String {
    let reference = clients::fill_hint(slot.hint.as_deref().unwrap_or_default(), context.client);
    let from = match reference.contains('\'') || reference.is_empty() {
        true => String::new(),
        false => format!("op read '{reference}' | "),
    };
    format!(
        "{from}board paste {}/{} --board {} --device {} --device-fingerprint FINGERPRINT",
        manifest.key, slot.key, context.board, context.device
    )
}

/// What the device says of a slot, as a sentence.
fn says(there: Option<&InstalledSlot>, on: bool) -> (RowState, String) {
    let evidence = there.and_then(InstalledSlot::evidence).unwrap_or_default();
    match there.map(|there| there.state) {
        Some(SlotState::Present) => (RowState::Done, "The Mac has it.".to_owned()),
        Some(SlotState::Verified) => {
            (RowState::Done, format!("The Mac has it, and the provider accepts it: {evidence}."))
        }
        Some(SlotState::Unverifiable) => {
            (RowState::Done, format!("The Mac has it. Whether it works could not be found out: {evidence}."))
        }
        Some(SlotState::Rejected) => {
            let next = "Make a new one, or look whether the right one was copied, and paste it again.";
            (RowState::Failed, format!("The provider refused this credential: {evidence}. {next}"))
        }
        Some(SlotState::Unreadable) => (
            RowState::Failed,
            format!("The Mac can't read its own store, so nobody knows whether it has it: {evidence}."),
        ),
        Some(SlotState::Empty) | None if on => {
            (RowState::NeedsYou, "The Mac doesn't have it yet.".to_owned())
        }
        Some(SlotState::Empty) | None => {
            (RowState::NeedsYou, "The Mac didn't have it when it was last on.".to_owned())
        }
    }
}
