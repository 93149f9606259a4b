//! Which program runs where, and how far a release is.

use askama::Template;

use crate::clients::views::ClientRef;
use crate::web::{Moment, RowState, Shell};

#[derive(Template)]
#[template(path = "releases/releases.html")]
pub struct ReleasesPage {
    pub shell: Shell,
    pub releases: Vec<ReleaseRow>,
    pub devices: Vec<DeviceRow>,
    /// There are more devices than the page shows.
    pub cut: bool,
}

pub struct ReleaseRow {
    pub version: String,
    pub for_what: String,
    pub percent: i64,
    pub installed: i64,
    pub refused: i64,
    pub went_back: i64,
    pub imported: Moment,
}

pub struct DeviceRow {
    pub name: String,
    pub href: String,
    pub client: ClientRef,
    pub version: String,
    pub said: Moment,
    pub state: RowState,
    /// Of the last release, if any was offered.
    pub word: Option<String>,
    pub reason: Option<String>,
}
