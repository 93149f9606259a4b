use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::Form;
use serde::Deserialize;

use super::views::{IncidentPage, LineRow, Open};
use super::{Line, as_csv, begin, exposed};
use crate::access::Visitor;
use crate::app::App;
use crate::error::Failure;
use crate::freeze;
use crate::pages::{Page, page};
use crate::web::{Moment, Section};

pub async fn incident_page(State(app): State<App>, visitor: Visitor) -> Page {
    let (incident, lines) = exposed(&mut app.db.read().await?).await?;
    let moment = |at| Moment { at, now: visitor.now };
    let open = incident.filter(freeze::Incident::is_open).map(|incident| Open {
        at: moment(incident.at),
        who: incident.who,
        reason: incident.reason,
    });
    let left = lines.iter().filter(|line| !line.rotated).count();
    let lines = lines
        .into_iter()
        .map(|Line { exposed, rotated }| LineRow {
            href: (!exposed.ended)
                .then(|| format!("/clients/{}/secrets/{}/rotate", exposed.client_id, exposed.slot_id)),
            client: exposed.client,
            slot: format!("{}/{}", exposed.component_key, exposed.slot_key),
            version: exposed.version,
            devices: exposed.devices.join(", "),
            rotated_at: moment(exposed.last_rotated_at),
            rotated,
        })
        .collect();
    let shell = visitor.shell(Section::Incident);
    page(&IncidentPage { shell, open, lines, left, ask_password: !visitor.fresh, errors: Vec::new() })
}

#[derive(Deserialize)]
pub struct Why {
    reason: String,
}

pub async fn begin_form(State(app): State<App>, visitor: Visitor, Form(form): Form<Why>) -> Page {
    begin(&app, visitor.who(), &form.reason).await?;
    Ok(Redirect::to("/incident").into_response())
}

pub async fn lift_form(State(app): State<App>, visitor: Visitor, Form(form): Form<Why>) -> Page {
    freeze::lift(&app, visitor.who(), &form.reason).await?;
    Ok(Redirect::to("/incident").into_response())
}

pub async fn incident_csv(State(app): State<App>) -> Page {
    let (_, lines) = exposed(&mut app.db.read().await?).await?;
    let bytes = as_csv(&lines).map_err(Failure::internal)?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"exposed.csv\""),
    ];
    Ok((headers, bytes).into_response() as Response)
}
