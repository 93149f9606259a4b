use askama::Template;

use crate::clients::views::ClientRef;
use crate::web::{FieldError, Shell};

#[derive(Template)]
#[template(path = "runbook/undo.html")]
pub struct UndoPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub device_name: String,
    pub device_href: String,
    /// The step's line on the runbook's page.
    pub anchor: String,
    pub title: String,
    pub component: String,
    /// "tool/install", as `board-agent allow-undo` wants it.
    pub key: String,
    pub at: At,
    pub errors: Vec<FieldError>,
    pub reason: String,
    pub ask_password: bool,
}

/// How the step stands.
pub enum At {
    /// It may be asked for.
    Ask {
        action: String,
        script: String,
        as_root: bool,
        on: bool,
        paused: bool,
        /// Titles of finished steps that may not work without it.
        dependents: Vec<String>,
    },
    /// It was undone.
    Undone { why: String, retry: String },
    /// Somebody asked for it; the device wasn't offered it yet.
    Asked { why: String, keep: String },
}
