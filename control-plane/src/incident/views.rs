//! The incident page.

use askama::Template;

use crate::web::{FieldError, Moment, Shell};

#[derive(Template)]
#[template(path = "incident/incident.html")]
pub struct IncidentPage {
    pub shell: Shell,
    pub open: Option<Open>,
    pub lines: Vec<LineRow>,
    pub left: usize,
    pub ask_password: bool,
    pub errors: Vec<FieldError>,
}

pub struct Open {
    pub at: Moment,
    pub who: String,
    pub reason: String,
}

pub struct LineRow {
    pub client: String,
    pub slot: String,
    pub version: i64,
    pub devices: String,
    pub rotated_at: Moment,
    pub rotated: bool,
    /// Where it gets a new value; nowhere when the engagement has ended.
    pub href: Option<String>,
}
