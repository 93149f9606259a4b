use askama::Template as _;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::Form;
use serde::Deserialize;
use shared::catalog::Platform;
use shared::crypto::hex;
use shared::ids::{ClientId, DeviceId, EnrollmentId};

use super::views::{
    DecidedRow, EnrollmentCard, EnrollmentsFragment, EnrollmentsPage, JoinCodePage, QuarantineCard,
    RenewalCard,
};
use super::{
    DecideError, Enrollment, EnrollmentState, Release, approve, confirm_renewal, decided, known_device,
    late_renewals, make_join_code, pending, quarantined, reject, release, revoke,
};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::clients::{self, views::ClientRef};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text::shown_again;
use crate::jobs::Wake;
use crate::live::{self, Shown};
use crate::pages::{Page, page, status};
use crate::web::{Moment, RowState, Section};

/// Skew above this is worth a warning before anybody approves.
const CLOCK_SKEW_WARNING: u64 = 120;

pub async fn join_code(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    let code = make_join_code(&app, visitor.who(), visitor.user()?.id, id).await?;
    let mut tx = app.db.read().await?;
    let client = clients::get(&mut tx, id).await?;
    let command = format!(
        "sudo board-agent join --board {} --pin {} --code {}",
        app.agents_url,
        hex(&app.ca().pin()),
        code.code
    );
    page(&JoinCodePage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{id}"), name: client.name },
        events: format!("/enrollments/events?client={id}"),
        command,
        expires: Moment { at: code.expires, now: visitor.now },
        publisher_note: true,
    })
}

pub async fn enrollments_page(State(app): State<App>, visitor: Visitor) -> Page {
    let fragment = fragment(&app, &visitor, None, None).await?;
    page(&EnrollmentsPage { shell: visitor.shell(Section::Enrollments), fragment })
}

#[derive(Deserialize)]
pub struct EventsQuery {
    client: Option<ClientId>,
}

pub async fn events(State(app): State<App>, visitor: Visitor, Query(query): Query<EventsQuery>) -> Response {
    let state = app.clone();
    live::stream(
        &app,
        |wake| matches!(wake, Wake::Enrollment(_) | Wake::Decisions),
        move || {
            let (app, visitor) = (state.clone(), visitor.clone());
            async move {
                let visitor = visitor.again(&app).await?;
                let fragment = fragment(&app, &visitor, query.client, None).await?;
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
pub struct ApproveForm {
    #[serde(default)]
    fingerprint: Vec<String>,
}

pub async fn approve_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<EnrollmentId>,
    Form(form): Form<ApproveForm>,
) -> Page {
    let typed = form.fingerprint.concat();
    match approve(&app, visitor.who(), visitor.user()?.id, id, &typed).await {
        Ok(device_id) => Ok(Redirect::to(&format!("/devices/{device_id}/runbook")).into_response()),
        Err(error) => refused(&app, &visitor, id, typed, error).await,
    }
}

#[derive(Deserialize)]
pub struct RejectForm {
    #[serde(default)]
    reason: String,
}

pub async fn reject_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<EnrollmentId>,
    Form(form): Form<RejectForm>,
) -> Page {
    match reject(&app, visitor.who(), visitor.user()?.id, id, &form.reason).await {
        Ok(()) => Ok(Redirect::to("/enrollments").into_response()),
        Err(error) => refused(&app, &visitor, id, String::new(), error).await,
    }
}

pub async fn revoke_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<DeviceId>,
    Form(form): Form<RejectForm>,
) -> Page {
    let device = revoke(&app, visitor.who(), id, &form.reason).await?;
    Ok(Redirect::to(&format!("/clients/{}", device.client_id)).into_response())
}

#[derive(Deserialize)]
pub struct ReleaseForm {
    release: Release,
    hardware_uuid: String,
}

pub async fn release_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<DeviceId>,
    Form(form): Form<ReleaseForm>,
) -> Page {
    release(&app, visitor.who(), id, &form.hardware_uuid, form.release).await?;
    Ok(Redirect::to("/enrollments").into_response())
}

pub async fn confirm_renewal_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<DeviceId>,
) -> Page {
    confirm_renewal(&app, visitor.who(), id).await?;
    Ok(Redirect::to("/enrollments").into_response())
}

/// Shows what is wrong on the card itself when it can still be decided, as a page of its own otherwise.
async fn refused(app: &App, visitor: &Visitor, id: EnrollmentId, typed: String, error: DecideError) -> Page {
    if !matches!(error, DecideError::Mismatch | DecideError::Incomplete | DecideError::Reason(_)) {
        return Err(Failure::from(error).into());
    }
    let typed = shown_again(&typed).to_owned();
    let problem = Problem { id, message: error.to_string(), typed };
    let code = Failure::from(error).public.status;
    let fragment = fragment(app, visitor, None, Some(&problem)).await?;
    let shown = EnrollmentsPage { shell: visitor.shell(Section::Enrollments), fragment };
    Ok((status(code), page(&shown)?).into_response())
}

struct Problem {
    id: EnrollmentId,
    message: String,
    typed: String,
}

async fn fragment(
    app: &App,
    visitor: &Visitor,
    only: Option<ClientId>,
    problem: Option<&Problem>,
) -> Result<EnrollmentsFragment, Failure> {
    let mut tx = app.db.read().await?;
    let mut cards = Vec::new();
    for enrollment in pending(&mut tx, visitor.now).await? {
        if only.is_none_or(|only| only == enrollment.client_id) {
            let problem = problem.filter(|problem| problem.id == enrollment.id);
            cards.push(card(&mut tx, visitor, enrollment, problem).await?);
        }
    }
    let mut rows = Vec::new();
    for enrollment in decided(&mut tx, 20).await? {
        if only.is_none_or(|only| only == enrollment.client_id) {
            rows.extend(row(&mut tx, visitor, enrollment).await?);
        }
    }
    let mut quarantines = Vec::new();
    for device in quarantined(&mut tx).await? {
        if only.is_none_or(|only| only == device.client_id) {
            quarantines.push(QuarantineCard {
                id: device.device_id.to_string(),
                name: device.name,
                client: client_ref(&mut tx, device.client_id).await?,
                enrolled: device.hardware_uuid,
                came: device.other_hardware_uuid,
            });
        }
    }
    let mut renewals = Vec::new();
    for late in late_renewals(&mut tx).await? {
        if only.is_none_or(|only| only == late.client_id) {
            renewals.push(RenewalCard {
                id: late.device_id.to_string(),
                name: late.name,
                client: client_ref(&mut tx, late.client_id).await?,
                seen: late.last_seen_at.map(|at| Moment { at, now: visitor.now }),
                asked: Moment { at: late.asked_at, now: visitor.now },
            });
        }
    }
    let only = match only {
        Some(id) => Some(client_ref(&mut tx, id).await?),
        None => None,
    };
    Ok(EnrollmentsFragment {
        cards,
        quarantines,
        renewals,
        decided: rows,
        can_consult: visitor.can(Role::Consultant),
        ask_password: !visitor.fresh,
        only,
    })
}

async fn client_ref(tx: &mut Tx, id: ClientId) -> Result<ClientRef, Failure> {
    let client = clients::get(tx, id).await?;
    Ok(ClientRef { href: format!("/clients/{id}"), name: client.name })
}

async fn card(
    tx: &mut Tx,
    visitor: &Visitor,
    enrollment: Enrollment,
    problem: Option<&Problem>,
) -> Result<EnrollmentCard, Failure> {
    let facts = enrollment.facts;
    let replaces = known_device(tx, &facts.hardware_uuid).await?.map(|device| device.name);
    let mut warnings = Vec::new();
    if facts.dev {
        warnings.push(
            "It joined with --dev: secrets go to files instead of a keychain. For development and tests only.".into(),
        );
    }
    if enrollment.code_reused_at.is_some() {
        let warning = "The same join code came a second time with other keys: somebody else may have it. Compare the \
                       fingerprint with care.";
        warnings.push(warning.to_owned());
    }
    let (ahead, behind) =
        (facts.clock.since(enrollment.created_at), enrollment.created_at.since(facts.clock));
    for (skew, word) in [(ahead, "ahead"), (behind, "behind")] {
        if skew.as_secs() > CLOCK_SKEW_WARNING {
            let minutes = skew.as_secs() / 60;
            warnings.push(format!(
                "Its clock is {minutes} minutes {word}. It can join; the agent goes by the board's time."
            ));
        }
    }
    let os = match facts.platform {
        Platform::Macos => "macOS",
        Platform::Linux => "Linux",
    };
    Ok(EnrollmentCard {
        id: enrollment.id.to_string(),
        client: client_ref(tx, enrollment.client_id).await?,
        model: facts.model,
        os: format!("{os} {}", facts.os_version),
        serial: facts.serial,
        managed_user: facts.managed_user,
        address: enrollment.source_address,
        hardware_uuid: facts.hardware_uuid,
        host_name: facts.host_name,
        asked: Moment { at: enrollment.created_at, now: visitor.now },
        expires: Moment { at: enrollment.expires_at, now: visitor.now },
        warnings,
        replaces,
        error: problem.map(|problem| problem.message.clone()),
        typed: problem.map(|problem| problem.typed.clone()).unwrap_or_default(),
    })
}

async fn row(tx: &mut Tx, visitor: &Visitor, enrollment: Enrollment) -> Result<Option<DecidedRow>, Failure> {
    let Some(at) = enrollment.decided_at else { return Ok(None) };
    let (state, word) = match enrollment.state {
        EnrollmentState::Pending => (RowState::Waiting, "pending"),
        EnrollmentState::Approved => (RowState::Running, "approved, proving its key"),
        EnrollmentState::Enrolled => (RowState::Done, "enrolled"),
        EnrollmentState::Rejected => (RowState::Failed, "rejected"),
        EnrollmentState::Expired => (RowState::Off, "expired"),
        EnrollmentState::Revoked => (RowState::Off, "revoked"),
    };
    Ok(Some(DecidedRow {
        host_name: enrollment.facts.host_name,
        client: client_ref(tx, enrollment.client_id).await?,
        state,
        word: word.to_owned(),
        by: enrollment.decided_by.unwrap_or_default(),
        at: Moment { at, now: visitor.now },
        reason: enrollment.reason,
        device_href: enrollment.device_id.map(|id| format!("/devices/{id}/runbook")),
    }))
}
