//! Signing in, the first password, and the password again.

use askama::Template;

use crate::web::{FieldError, Shell};

/// POST /sign-in with `email` and `password`.
#[derive(Template)]
#[template(path = "access/sign_in.html")]
pub struct SignInPage {
    pub shell: Shell,
    pub email: String,
    pub error: Option<String>,
}

/// Reached by a one-time link. POST to `action` with `password` and `repeat`.
#[derive(Template)]
#[template(path = "access/set_password.html")]
pub struct SetPasswordPage {
    pub shell: Shell,
    pub email: String,
    pub action: String,
    pub errors: Vec<FieldError>,
}

/// Stands in for a form whose session isn't fresh: the same POST again, with `step_up_password`.
#[derive(Template)]
#[template(path = "access/step_up.html")]
pub struct StepUpPage {
    pub shell: Shell,
    pub email: String,
    pub action: String,
    /// What was typed: names and values.
    pub fields: Vec<(String, String)>,
    /// A secret was typed too; it isn't among them.
    pub lost_secret: bool,
    pub errors: Vec<FieldError>,
}
