//! `GET /api/v1/state`: what is installed where, with the page's filters.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Query, State};

use super::{Filter, Known, StateJson};
use crate::app::App;
use crate::error::Failure;

pub async fn get_state(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<StateJson>, Failure> {
    let filter = Filter::read(&query)?;
    Ok(Json(Known::load(&app).await?.json(&app, &filter)))
}
