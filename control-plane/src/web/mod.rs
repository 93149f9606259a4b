//! The page shell: what every page of the console shares. It knows a viewer, not a user, and nothing of HTTP.
//!
//! A page is a struct in its feature's `views.rs` that holds a [`Shell`] and derives a template extending `base.html`. A
//! part that also travels alone (a live fragment, a badge) marks itself [`HtmlSafe`]; no template says `safe` of data.

pub mod assets;
mod error_page;
mod moment;
mod spreadsheet;
mod state;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use askama::filters::HtmlSafe;
use shared::time::Timestamp;

pub use error_page::ErrorPage;
pub use moment::Moment;
pub use spreadsheet::inert;
pub use state::RowState;

/// What the frame around a page needs.
#[derive(Clone, Debug)]
pub struct Shell {
    pub viewer: Option<Viewer>,
    pub section: Section,
    /// Enrollments that wait for a decision: the badge in the navigation.
    pub pending: u32,
    /// What waits for the viewer as a second person: the other badge.
    pub approvals: u32,
    /// An incident is open: every page says so.
    pub frozen: bool,
    pub now: Timestamp,
}

/// Who looks at the page, as far as the page has to know.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub email: String,
    pub consultant: bool,
    pub operator: bool,
    pub support: bool,
}

/// The entry of the navigation that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    None,
    Clients,
    Enrollments,
    Approvals,
    Support,
    Audit,
    Users,
    Providers,
    Incident,
}

impl Shell {
    pub fn is_in(&self, section: Section) -> bool {
        self.section == section
    }
}

/// What is wrong with one field of a form. Shown beside the field and in the summary on top, which links to `#field`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub field: Cow<'static, str>,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The message for one field, if it has one.
pub fn error_at<'a>(errors: &'a [FieldError], field: &str) -> Option<&'a str> {
    errors.iter().find(|error| error.field == field).map(|error| error.message.as_str())
}

/// A symbol of `icons.svg`. It is decoration: words stand beside it.
#[derive(Clone, Copy, Debug)]
pub struct Icon(pub &'static str);

impl fmt::Display for Icon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sprite = assets::href("icons.svg");
        write!(f, r#"<svg class="icon" aria-hidden="true"><use href="{sprite}#{}"></use></svg>"#, self.0)
    }
}

impl HtmlSafe for Icon {}

/// "1 device", "2 devices": a number with its noun.
pub fn count(number: impl fmt::Display, one: &str, many: &str) -> String {
    let number = number.to_string();
    let noun = if number == "1" { one } else { many };
    format!("{number} {noun}")
}
