//! `GET /api/v1/state`: what is installed where, with the page's filters, two hundred clients at a time.

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
    let after = match query.get("after").map(|after| after.parse()) {
        None => None,
        Some(Ok(after)) => Some(after),
        Some(Err(_)) => {
            let detail = "after is the `next` of an earlier answer. Leave it out to begin at the beginning.";
            return Err(Failure::invalid("after", "This is no place to go on from", detail));
        }
    };
    let (known, next) = Known::load_after(&app, after).await?;
    Ok(Json(StateJson { next, ..known.json(&app, &filter) }))
}
