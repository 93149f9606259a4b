//! Signing in, and the first password.

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
