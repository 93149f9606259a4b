//! The page that says what went wrong and where to go on.

use askama::Template;

use super::Shell;

#[derive(Template)]
#[template(path = "web/error.html")]
pub struct ErrorPage {
    pub shell: Shell,
    pub status: u16,
    pub title: String,
    pub detail: String,
    /// Where to go on: address and label.
    pub next: Option<(String, String)>,
}
