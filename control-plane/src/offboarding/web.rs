use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::Form;
use serde::Deserialize;
use shared::ids::ClientId;

use super::{end, hold, reactivate, release, set_days};
use crate::access::Visitor;
use crate::app::App;
use crate::error::Failure;
use crate::pages::Page;

#[derive(Deserialize)]
pub struct EndForm {
    #[serde(default)]
    pasted: String,
}

pub async fn end_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<EndForm>,
) -> Page {
    let pasted = match form.pasted.as_str() {
        "" => false,
        "also" => true,
        _ => {
            let detail = "What the client pasted either stays on the devices or goes, too. Nothing was changed; go back and \
                          choose again.";
            return Err(Failure::invalid("pasted", "Not changed", detail).into());
        }
    };
    end(&app, visitor.who(), id, pasted).await?;
    Ok(back(id))
}

#[derive(Deserialize)]
pub struct HoldForm {
    #[serde(default)]
    reason: String,
}

pub async fn hold_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<HoldForm>,
) -> Page {
    hold(&app, visitor.who(), id, &form.reason).await?;
    Ok(back(id))
}

pub async fn release_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    release(&app, visitor.who(), id).await?;
    Ok(back(id))
}

pub async fn reactivate_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    reactivate(&app, visitor.who(), id).await?;
    Ok(back(id))
}

#[derive(Deserialize)]
pub struct DaysForm {
    #[serde(default)]
    days: String,
}

pub async fn days_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<DaysForm>,
) -> Page {
    set_days(&app, visitor.who(), id, &form.days).await?;
    Ok(back(id))
}

fn back(id: ClientId) -> Response {
    Redirect::to(&format!("/clients/{id}#end")).into_response()
}
