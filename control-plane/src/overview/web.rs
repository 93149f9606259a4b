use askama::Template as _;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use shared::catalog::Platform;
use shared::ids::{ClientId, SlotId};
use shared::protocol::inventory::SlotState;

use super::state::{self, LINKS, Pressing};
use super::views::{ClientFragment, ClientPage, DeviceRow, SlotRow};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::catalog::{self, AnySlot, Catalog};
use crate::clients::views::{ClientRef, ClientRow, ClientsPage};
use crate::clients::{self, Client};
use crate::db::Tx;
use crate::enrollment::{self, Device, DeviceState};
use crate::error::Failure;
use crate::inventory::drift::Tally;
use crate::inventory::{self, ClientFindings, InstalledSlot};
use crate::jobs::Wake;
use crate::live::{self, Shown};
use crate::offboarding;
use crate::pages::{Page, page};
use crate::providers;
use crate::runbook;
use crate::secrets::views::SpreadLine;
use crate::secrets::{self, Spread, StoredSecret};
use crate::web::{Moment, RowState, Section, count};

pub async fn home() -> Response {
    Redirect::to("/clients").into_response()
}

/// Clients on one page, about 700 bytes each: a page stays under 80 KiB, also when each name has 200 letters.
const CLIENTS: usize = 25;
/// Devices that a slot's line names.
const SPREAD: usize = 20;
/// Longest search, in characters.
const MAX_WORDS: usize = 200;

#[derive(Default, Deserialize)]
pub struct ClientsQuery {
    #[serde(default)]
    q: String,
    /// From 1; anything else is the page that is nearest.
    #[serde(default)]
    page: String,
}

impl ClientsQuery {
    /// The address of another page of the same search.
    fn at(&self, number: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !self.q.is_empty() {
            query.append_pair("q", &self.q);
        }
        format!("/clients?{}", query.append_pair("page", &number.to_string()).finish())
    }
}

pub async fn clients_page(
    State(app): State<App>,
    visitor: Visitor,
    Query(mut query): Query<ClientsQuery>,
) -> Page {
    query.q = query.q.trim().chars().take(MAX_WORDS).collect();
    let mut tx = app.db.read().await?;
    let catalog = catalog::current(&mut tx).await?;
    let mut named = clients::named(&mut tx, &query.q).await?;
    // Those whose engagement is over come after the others.
    let ended = clients::engagement::ended(&mut tx).await?;
    named.sort_by_key(|client| ended.contains(&client.id));
    let total = named.len();
    let pages = total.div_ceil(CLIENTS).max(1);
    let number = query.page.parse().unwrap_or(1).clamp(1, pages);
    let before = (number - 1) * CLIENTS;
    let mut rows = Vec::new();
    for client in named.into_iter().skip(before).take(CLIENTS) {
        let found = inventory::findings(&mut tx, catalog.as_ref(), Some(client.id)).await?;
        let known = Known { catalog: catalog.as_ref(), found: found.first() };
        let fragment = fragment_of(&app, &mut tx, &client, known, &visitor).await?;
        let components = clients::components(&mut tx, client.id).await?.len();
        rows.push(ClientRow {
            href: fragment.client.href,
            ended: ended.contains(&client.id),
            name: client.name,
            components: u32::try_from(components).unwrap_or(u32::MAX),
            devices: u32::try_from(fragment.devices.len()).unwrap_or(u32::MAX),
            state: fragment.state,
            sentence: fragment.sentence,
            created: Moment { at: client.created_at, now: visitor.now },
        });
    }
    page(&ClientsPage {
        shell: visitor.shell(Section::Clients),
        found: total,
        range: match pages {
            1 => String::new(),
            _ => format!("{} to {} of {total}", before + 1, before + rows.len()),
        },
        previous: (number > 1).then(|| query.at(number - 1)),
        next: (number < pages).then(|| query.at(number + 1)),
        clients: rows,
        q: query.q,
    })
}

pub async fn client_page(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    let mut tx = app.db.read().await?;
    let client = clients::get(&mut tx, id).await?;
    let fragment = fragment(&app, &mut tx, &client, &visitor).await?;
    let browser_paste = clients::browser_paste(&mut tx, id).await?;
    let end_forms = offboarding::views::forms(&mut tx, &client, &visitor).await?;
    let second_person = clients::second_person(&mut tx, id).await?;
    let openrouter = providers::web::section(&mut tx, id, &visitor).await?;
    page(&ClientPage {
        browser_paste,
        end_forms,
        second_person,
        openrouter,
        ask_password: !visitor.fresh,
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
                    approvals: visitor.approvals,
                    html: fragment.render().map_err(Failure::internal)?,
                })
            }
        },
    )
}

/// What a client's components are judged by, and how.
#[derive(Clone, Copy)]
struct Known<'a> {
    catalog: Option<&'a Catalog>,
    found: Option<&'a ClientFindings>,
}

pub(super) async fn fragment(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    visitor: &Visitor,
) -> Result<ClientFragment, Failure> {
    let catalog = catalog::current(tx).await.map_err(Failure::from)?;
    let found = inventory::findings(tx, catalog.as_ref(), Some(client.id)).await?;
    let known = Known { catalog: catalog.as_ref(), found: found.first() };
    fragment_of(app, tx, client, known, visitor).await
}

async fn fragment_of(
    app: &App,
    tx: &mut Tx,
    client: &Client,
    Known { catalog, found }: Known<'_>,
    visitor: &Visitor,
) -> Result<ClientFragment, Failure> {
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
    let over = offboarding::ended_word(tx, client).await?;
    let found_spread = secrets::spread(tx, client.id).await?;
    let mut slots = Vec::new();
    for slot in clients::slots(tx, client.id).await? {
        let id = match &slot {
            AnySlot::Ours(slot) if stored.iter().any(|secret| secret.slot_id == slot.id) => Some(slot.id),
            AnySlot::Ours(_) | AnySlot::Theirs(_) => None,
        };
        let mut row = slot_row(slot, client, &stored, &on_devices, &devices, catalog);
        if let Some(id) = id {
            let path = format!("/clients/{}/secrets/{id}/rotate", client.id);
            row.rotate = (visitor.can(Role::Consultant) && over.is_none()).then_some(path);
            row.spread = spread_of(app, id, &devices, &found_spread, visitor);
            row.more = row.spread.len().saturating_sub(SPREAD);
            row.spread.truncate(SPREAD);
            if row.spread.iter().any(|line| matches!(line.state, RowState::Failed | RowState::NeedsYou)) {
                row.state = RowState::NeedsYou;
            }
        }
        slots.push(row);
    }
    let tally = Tally::of(found.into_iter().flat_map(ClientFindings::all));
    let busy = rows.iter().any(|row| row.busy);
    let paused = busy && rows.iter().filter(|row| row.busy).all(|row| row.paused);
    let pressing = Pressing { devices: devices.len(), busy, paused, pending };
    let (state, sentence, counted) = match over {
        Some(word) => (RowState::Off, format!("{word}."), false),
        None => state::sentence(pressing, &slots, tally, visitor),
    };
    let mut differing = Vec::new();
    if counted && let Some(found) = found {
        differing = state::differing(found, catalog);
    }
    let more = differing.len().saturating_sub(LINKS);
    differing.truncate(LINKS);
    Ok(ClientFragment {
        client: ClientRef { href: format!("/clients/{}", client.id), name: client.name.clone() },
        sentence,
        state,
        differing,
        more,
        devices: rows,
        slots,
        installed: state::rows(found, &installed, catalog, visitor.now),
        pending: u32::try_from(pending).unwrap_or(u32::MAX),
        can_consult: visitor.can(Role::Consultant),
        end: offboarding::views::view(app, tx, client, visitor).await?,
    })
}

/// How each device stands to the stored version, what needs somebody first. Empty when all of them have it.
fn spread_of(
    app: &App,
    slot: SlotId,
    devices: &[Device],
    found: &[Spread],
    visitor: &Visitor,
) -> Vec<SpreadLine> {
    let enrolled = devices.iter().filter(|device| device.state == DeviceState::Enrolled);
    let mut lines: Vec<SpreadLine> = enrolled
        .map(|device| {
            let own = found.iter().find(|spread| spread.slot_id == slot && spread.device_id == device.id);
            SpreadLine::of(device, own, app.links.since(device.id).is_some(), visitor.now)
        })
        .collect();
    if lines.iter().all(|line| line.state == RowState::Done) {
        return Vec::new();
    }
    lines.sort_by_key(|line| match line.state {
        RowState::NeedsYou | RowState::Failed => 0,
        RowState::Running | RowState::Waiting | RowState::Off => 1,
        RowState::Done => 2,
    });
    lines
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
    let paused = runbook::is_paused(tx, device.id).await?;
    let (progress, busy) = match runbook::progress(tx, device.id).await? {
        Some((done, total)) if paused => (format!("paused, {done} of {total} done"), done < total),
        Some((done, total)) => (format!("{done} of {total} done"), done < total),
        None => ("no runbook yet".to_owned(), false),
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
        busy,
        paused,
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
                state: judged(if refused(&latest) { RowState::NeedsYou } else { state }, state_word),
                state_word: state_word.into(),
                sentence: sentence + &evidence(&latest, devices),
                spread: Vec::new(),
                more: 0,
                rotate: None,
            }
        }
        AnySlot::Theirs(slot) => {
            let hint = clients::fill_hint(&slot.hint, client);
            let done = number > 0 && there.len() == number && !refused(&there);
            let state_word = word_of(&there).unwrap_or("empty");
            SlotRow {
                component,
                name: slot.name,
                tag: "client-supplied".into(),
                state: judged(if done { RowState::Done } else { RowState::NeedsYou }, state_word),
                state_word: state_word.into(),
                sentence: format!("In the client's vault: {hint}.") + &evidence(&there, devices),
                spread: Vec::new(),
                more: 0,
                rotate: None,
            }
        }
    }
}

/// A tick would say of a credential that it works: nobody knows of one that couldn't be tried.
fn judged(state: RowState, word: &str) -> RowState {
    match state == RowState::Done && word == SlotState::Unverifiable.as_str() {
        true => RowState::Off,
        false => state,
    }
}

fn refused(there: &[&InstalledSlot]) -> bool {
    there.iter().any(|on| on.is_refused())
}

/// The word for a slot on several devices: what needs somebody comes first. None when no device has it.
fn word_of(there: &[&InstalledSlot]) -> Option<&'static str> {
    let pressing = [
        SlotState::Rejected,
        SlotState::Unreadable,
        SlotState::Unverifiable,
        SlotState::Present,
        SlotState::Verified,
    ];
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

pub(super) fn component_name(catalog: Option<&Catalog>, key: &str) -> String {
    catalog.map_or_else(|| key.to_owned(), |catalog| catalog.name_of(key))
}
