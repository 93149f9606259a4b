//! What to do when the board itself may be in other hands: freeze it, and rotate what it could read.
//!
//! Keys that the board made at a provider are disabled by [`crate::providers`] within seconds, on a board that serves.

pub mod views;
pub mod web;

use serde::Serialize;
use shared::time::Timestamp;

use crate::app::App;
use crate::audit::Who;
use crate::db::Tx;
use crate::error::Failure;
use crate::freeze::{self, Incident};
use crate::secrets::{self, Exposed};
use crate::web::inert;

/// One secret of ours that whoever has the board could read.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    #[serde(flatten)]
    pub exposed: Exposed,
    /// It got a new value since the incident began.
    pub rotated: bool,
}

/// Freezes the board.
pub async fn begin(app: &App, who: Who, reason: &str) -> Result<(), Failure> {
    freeze::begin(app, who, reason).await
}

/// The to-do list: every stored secret of ours, those still to be rotated first.
pub async fn exposed(tx: &mut Tx) -> Result<(Option<Incident>, Vec<Line>), sqlx::Error> {
    let incident = freeze::latest(tx).await?;
    let since: Option<Timestamp> = incident.as_ref().map(|incident| incident.at);
    let mut lines: Vec<Line> = secrets::exposed(tx)
        .await?
        .into_iter()
        .map(|exposed| Line { rotated: since.is_some_and(|since| exposed.last_rotated_at > since), exposed })
        .collect();
    lines.sort_by_key(|line| line.rotated);
    Ok((incident, lines))
}

/// For a spreadsheet.
pub fn as_csv(lines: &[Line]) -> Result<Vec<u8>, csv::Error> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([
        "client",
        "client_id",
        "component",
        "slot",
        "version",
        "last_rotated_at",
        "devices",
        "rotated",
        "engagement",
    ])?;
    for Line { exposed, rotated } in lines {
        csv.write_record([
            &*inert(&exposed.client),
            &exposed.client_id.to_string(),
            &*inert(&exposed.component_key),
            &*inert(&exposed.slot_key),
            &exposed.version.to_string(),
            &exposed.last_rotated_at.rfc3339(),
            &*inert(&exposed.devices.join(", ")),
            if *rotated { "yes" } else { "no" },
            if exposed.ended { "ended" } else { "active" },
        ])?;
    }
    csv.into_inner().map_err(|error| error.into_error().into())
}
