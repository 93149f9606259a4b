use askama::Template as _;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use shared::catalog::Platform;
use shared::ids::ClientId;
use shared::protocol::inventory::{Presence, SlotState};

use super::views::{ClientFragment, ClientPage, DeviceRow, InstalledRow, SlotRow};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::catalog::{self, AnySlot, Catalog};
use crate::clients::views::{ClientRef, ClientRow, ClientsPage};
use crate::clients::{self, Client};
use crate::db::Tx;
use crate::enrollment::{self, Device, DeviceState};
use crate::error::Failure;
use crate::inventory::{self, Installed, InstalledSlot};
use crate::jobs::Wake;
use crate::live::{self, Shown};
use crate::pages::{Page, page};
use crate::runbook;
use crate::secrets::{self, StoredSecret};
use crate::web::{Moment, RowState, Section, count};

pub async fn home() -> Response {
    Redirect::to("/clients").into_response()
}

pub async fn clients_page(State(app): State<App>, visitor: Visitor) -> Page {
    let mut tx = app.db.read().await?;
    let mut rows = Vec::new();
    for client in clients::list(&mut tx).await? {
        let fragment = fragment(&app, &mut tx, &client, &visitor).await?;
        let components = clients::components(&mut tx, client.id).await?.len();
        rows.push(ClientRow {
            href: fragment.client.href,
            name: client.name,
            components: u32::try_from(components).unwrap_or(u32::MAX),
            devices: u32::try_from(fragment.devices.len()).unwrap_or(u32::MAX),
            state: fragment.state,
            sentence: fragment.sentence,
            created: Moment { at: client.created_at, now: visitor.now },
        });
    }
    page(&ClientsPage { shell: visitor.shell(Section::Clients), clients: rows })
}

pub async fn client_page(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    let mut tx = app.db.read().await?;
    let client = clients::get(&mut tx, id).await?;
    let fragment = fragment(&app, &mut tx, &client, &visitor).await?;
    page(&ClientPage {
        shell: visitor.shell(Section::Clients),
        vault_name: client.vault_name,
        notes: client.notes,
        fragment,
    })
}

pub async fn client_events(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Response {
    let state = app.clone();
    live::stream(
        &app,
        move |wake| matches!(wake, Wake::Enrollment(_)) || wake == Wake::Client(id),
        move || {
            let (app, visitor) = (state.clone(), visitor.clone());
            async move {
                let visitor = visitor.again(&app).await?;
                let mut tx = app.db.read().await?;
                let client = clients::get(&mut tx, id).await?;
                let fragment = fragment(&app, &mut tx, &client, &visitor).await?;
                Ok(Shown {
                    title: fragment.title(),
                    favicon: if fragment.needs_you() { "needs" } else { "calm" },
                    html: fragment.render().map_err(Failure::internal)?,
                })
            }
        },
    )
}

pub(super) async fn fragment(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    visitor: &Visitor,
) -> Result<ClientFragment, Failure> {
    let catalog = catalog::current(tx).await.map_err(Failure::from)?;
    let all = enrollment::devices_of(tx, client.id).await?;
    let (devices, gone): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|device| device.state != DeviceState::Revoked);
    let is_gone = |id| gone.iter().any(|device| device.id == id);
    let mut installed = inventory::of_client(tx, client.id).await?;
    installed.retain(|one| !is_gone(one.device_id));
    let mut on_devices = inventory::slots_of_client(tx, client.id).await?;
    on_devices.retain(|slot| !is_gone(slot.device_id));
    let stored = secrets::stored(tx, client.id).await?;
    let pending = enrollment::pending(tx, visitor.now)
        .await?
        .into_iter()
        .filter(|enrollment| enrollment.client_id == client.id)
        .count();
    let mut rows = Vec::new();
    for device in devices.iter().chain(&gone) {
        rows.push(device_row(app, tx, device, visitor).await?);
    }
    let slots: Vec<SlotRow> = clients::slots(tx, client.id)
        .await?
        .into_iter()
        .map(|slot| slot_row(slot, client, &stored, &on_devices, &devices, catalog.as_ref()))
        .collect();
    let names: Vec<InstalledRow> = installed
        .iter()
        .map(|installed| installed_row(installed, &devices, catalog.as_ref(), visitor))
        .collect();
    let (state, sentence) = sentence(devices.len(), &slots, &installed, pending, visitor);
    Ok(ClientFragment {
        client: ClientRef { href: format!("/clients/{}", client.id), name: client.name.clone() },
        sentence,
        state,
        devices: rows,
        slots,
        installed: names,
        pending: u32::try_from(pending).unwrap_or(u32::MAX),
        can_consult: visitor.can(Role::Consultant),
    })
}

async fn device_row(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    visitor: &Visitor,
) -> Result<DeviceRow, Failure> {
    let on = app.links.since(device.id).is_some();
    let (state, state_word) = match device.state {
        DeviceState::Approved => (RowState::Running, "approved, proving its key"),
        DeviceState::Enrolled if on => (RowState::Done, "on"),
        DeviceState::Enrolled => (RowState::Off, "off"),
        DeviceState::Quarantined => (RowState::NeedsYou, "quarantined"),
        DeviceState::Leaving => (RowState::Waiting, "leaving"),
        DeviceState::Revoked => (RowState::Off, "revoked"),
    };
    let progress = match runbook::progress(tx, device.id).await? {
        Some((done, total)) => format!("{done} of {total} done"),
        None => "no runbook yet".to_owned(),
    };
    let os = match device.platform {
        Platform::Macos => "macOS",
        Platform::Linux => "Linux",
    };
    Ok(DeviceRow {
        href: format!("/devices/{}/runbook", device.id),
        name: device.name.clone(),
        state,
        state_word: state_word.to_owned(),
        os: format!("{os} {}", device.os_version),
        last_seen: device.last_seen_at.map(|at| Moment { at, now: visitor.now }),
        progress,
        dev: device.dev,
    })
}

fn slot_row(
    slot: AnySlot,
    client: &Client,
    stored: &[StoredSecret],
    on_devices: &[InstalledSlot],
    devices: &[Device],
    catalog: Option<&Catalog>,
) -> SlotRow {
    let (id, component_key, slot_key) = match &slot {
        AnySlot::Ours(slot) => (slot.id, slot.component_key.clone(), slot.slot_key.clone()),
        AnySlot::Theirs(slot) => (slot.id, slot.component_key.clone(), slot.slot_key.clone()),
    };
    let there: Vec<&InstalledSlot> = on_devices
        .iter()
        .filter(|on| on.component_key == component_key && on.slot_key == slot_key && on.is_held())
        .collect();
    let component = component_name(catalog, &component_key);
    let number = devices.len();
    match slot {
        AnySlot::Ours(slot) => {
            let version = stored.iter().find(|secret| secret.slot_id == id).map(|secret| secret.version);
            let latest: Vec<_> =
                there.into_iter().filter(|on| version.is_some() && on.version == version).collect();
            let (state, state_word, sentence) = match version {
                None => {
                    (RowState::NeedsYou, "empty", "Not entered yet. Enter it on the secrets page.".to_owned())
                }
                Some(version) => {
                    let everywhere = number > 0 && latest.len() == number;
                    let state = if everywhere { RowState::Done } else { RowState::Waiting };
                    let sentence = match number {
                        0 => format!("Version {version}, encrypted here. No Mac is enrolled."),
                        _ => format!(
                            "Version {version}, on {} of {}.",
                            latest.len(),
                            count(number as u64, "device", "devices")
                        ),
                    };
                    (state, word_of(&latest).unwrap_or("stored"), sentence)
                }
            };
            SlotRow {
                component,
                name: slot.name,
                tag: "our-managed".into(),
                state: if refused(&latest) { RowState::NeedsYou } else { state },
                state_word: state_word.into(),
                sentence: sentence + &evidence(&latest, devices),
            }
        }
        AnySlot::Theirs(slot) => {
            let hint = clients::fill_hint(&slot.hint, client);
            let done = number > 0 && there.len() == number && !refused(&there);
            SlotRow {
                component,
                name: slot.name,
                tag: "client-supplied".into(),
                state: if done { RowState::Done } else { RowState::NeedsYou },
                state_word: word_of(&there).unwrap_or("empty").into(),
                sentence: format!("In the client's vault: {hint}.") + &evidence(&there, devices),
            }
        }
    }
}

fn refused(there: &[&InstalledSlot]) -> bool {
    there.iter().any(|on| on.is_refused())
}

/// The word for a slot on several devices: what needs somebody comes first. None when no device has it.
fn word_of(there: &[&InstalledSlot]) -> Option<&'static str> {
    let pressing = [SlotState::Rejected, SlotState::Unverifiable, SlotState::Present, SlotState::Verified];
    let state = pressing.into_iter().find(|state| there.iter().any(|on| on.state == *state))?;
    Some(state.as_str())
}

/// What providers said, for each device when there are several.
fn evidence(there: &[&InstalledSlot], devices: &[Device]) -> String {
    let said = there.iter().filter_map(|on| {
        let evidence = on.evidence()?;
        let device = devices.iter().find(|device| device.id == on.device_id);
        Some(match device.filter(|_| devices.len() > 1) {
            Some(device) => format!(" {}: {evidence}.", device.name),
            None => format!(" {evidence}."),
        })
    });
    said.collect()
}

fn installed_row(
    installed: &Installed,
    devices: &[Device],
    catalog: Option<&Catalog>,
    visitor: &Visitor,
) -> InstalledRow {
    let (state, word) = match installed.presence {
        Presence::Present => (RowState::Done, "present"),
        Presence::Absent => (RowState::Failed, "absent"),
        Presence::Outdated => (RowState::NeedsYou, "outdated"),
        Presence::Unknown => (RowState::Waiting, "unknown"),
    };
    let evidence = installed.evidence.iter().map(|one| format!("{}: {}", one.probe, one.saw));
    InstalledRow {
        anchor: format!("{}-{}", installed.device_id, installed.component_key),
        device: devices
            .iter()
            .find(|device| device.id == installed.device_id)
            .map_or_else(String::new, |device| device.name.clone()),
        component: component_name(catalog, &installed.component_key),
        state,
        state_word: word.to_owned(),
        version: installed.version.clone(),
        evidence: evidence.collect::<Vec<_>>().join("; "),
        observed: Moment { at: installed.observed_at, now: visitor.now },
    }
}

fn component_name(catalog: Option<&Catalog>, key: &str) -> String {
    catalog.map_or_else(|| key.to_owned(), |catalog| catalog.name_of(key))
}

/// One sentence of state, the most pressing first.
fn sentence(
    devices: usize,
    slots: &[SlotRow],
    installed: &[Installed],
    pending: usize,
    visitor: &Visitor,
) -> (RowState, String) {
    if pending > 0 {
        let asks = count(pending as u64, "Mac asks", "Macs ask");
        return (RowState::NeedsYou, format!("{asks} to join. Compare the fingerprint and decide."));
    }
    let is_ours = |slot: &&SlotRow| slot.tag == "our-managed" && slot.state_word == "empty";
    let empty = slots.iter().filter(is_ours).count();
    if empty > 0 {
        let lacks = count(empty as u64, "secret of ours is", "secrets of ours are");
        return (RowState::NeedsYou, format!("{lacks} not entered yet."));
    }
    let refused = slots.iter().filter(|slot| slot.state_word == SlotState::Rejected.as_str()).count();
    if refused > 0 {
        let are = count(refused as u64, "credential is", "credentials are");
        return (RowState::NeedsYou, format!("{are} refused by the provider."));
    }
    if devices == 0 {
        return (RowState::NeedsYou, "No Mac is enrolled. Make a join code.".into());
    }
    let wrong = installed.iter().filter(|one| one.presence != Presence::Present).count();
    let Some(oldest) = installed.iter().map(|one| one.observed_at).min() else {
        return (RowState::Running, "The runbook runs; nothing was looked at yet.".into());
    };
    let minutes = visitor.now.since(oldest).as_secs() / 60;
    let age = match minutes {
        0 => "checked just now".to_owned(),
        minutes => format!("checked {} ago", count(minutes, "minute", "minutes")),
    };
    if wrong > 0 {
        let lacks = count(wrong as u64, "component is", "components are");
        return (RowState::Running, format!("{lacks} not as wanted yet ({age})."));
    }
    let all = count(installed.len() as u64, "component is", "components are");
    (RowState::Done, format!("{all} as wanted, {age}."))
}
