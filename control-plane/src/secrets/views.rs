//! A client's secrets. A value goes into this page and never comes out of it; a client-supplied slot has no input at all.

use askama::Template;

use crate::clients::views::ClientRef;
use crate::web::{FieldError, Moment, Shell};

/// POST /clients/ID/secrets with the fields of `ours`; an empty one keeps what is stored.
#[derive(Template)]
#[template(path = "secrets/secrets.html")]
pub struct SecretsPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub ours: Vec<OurSlot>,
    pub theirs: Vec<TheirSlot>,
    /// What is stored and may be copied.
    pub copies: Vec<CopyForm>,
    pub errors: Vec<FieldError>,
    /// What was saved, as a sentence.
    pub saved: Option<String>,
}

/// An our-managed slot. Its stored value is known by version and time only.
pub struct OurSlot {
    /// Name of the form field.
    pub field: String,
    pub component: String,
    pub name: String,
    pub key: String,
    pub stored: Option<(u64, Moment)>,
}

/// A client-supplied slot: where it lives, and nothing to type.
pub struct TheirSlot {
    pub component: String,
    pub name: String,
    pub key: String,
    pub hint: String,
}

/// Copies a stored value into the clipboard, by script only: POST to `action` with `reason` and, while the session isn't
/// fresh, `step_up_password`. The page itself never has the value.
pub struct CopyForm {
    /// Part of the elements' ids, unique in the page and the same in every rendering.
    pub id: String,
    pub action: String,
    pub name: String,
    /// The slot's key, where it can be an environment variable.
    pub variable: Option<String>,
    pub ask_password: bool,
}
