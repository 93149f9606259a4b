use std::collections::HashMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::{Filter, Known};
use crate::access::Visitor;
use crate::app::App;
use crate::pages::{Page, page};
use crate::web::Section;

type Words = Query<HashMap<String, String>>;

pub async fn support_page(State(app): State<App>, visitor: Visitor, Query(query): Words) -> Page {
    let filter = Filter::read(&query)?;
    let number = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(1);
    let known = Known::load(&app).await?;
    page(&known.page(&app, visitor.shell(Section::Support), filter, number))
}

pub async fn support_csv(State(app): State<App>, Query(query): Words) -> Page {
    let filter = Filter::read(&query)?;
    let bytes = Known::load(&app).await?.json(&app, &filter).csv()?;
    Ok(file(&app, "csv", ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], bytes).into_response()))
}

pub async fn support_json(State(app): State<App>, Query(query): Words) -> Page {
    let filter = Filter::read(&query)?;
    let state = Known::load(&app).await?.json(&app, &filter);
    Ok(file(&app, "json", Json(state).into_response()))
}

/// As a file to keep, named by its day.
fn file(app: &App, extension: &str, response: Response) -> Response {
    let day = app.now().to_datetime().date();
    let name = format!("attachment; filename=\"installed-state-{day}.{extension}\"");
    ([(header::CONTENT_DISPOSITION, name)], response).into_response()
}
