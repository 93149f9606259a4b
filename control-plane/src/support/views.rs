//! The support page: filters, and a matrix of devices and components.

use askama::Template;
use shared::time::Timestamp;

use super::Filter;
use crate::web::{Moment, RowState, Shell};

#[derive(Template)]
#[template(path = "support/support.html")]
pub struct SupportPage {
    pub shell: Shell,
    pub filter: Filter,
    pub made: Moment,
    pub components: Vec<Choice>,
    pub drifts: Vec<Choice>,
    pub ages: Vec<Choice>,
    pub chips: Vec<Chip>,
    /// "3 components on 2 devices at 1 client"
    pub found: String,
    /// How many of all the clients are shown: "Clients 1 to 25 of 41".
    pub range: String,
    pub columns: Vec<Column>,
    pub rows: Vec<DeviceRow>,
    pub empty: Option<Empty>,
    pub csv: String,
    pub json: String,
    pub previous: Option<String>,
    pub next: Option<String>,
}

/// An option of a filter.
pub struct Choice {
    pub value: String,
    pub word: String,
    pub chosen: bool,
}

/// A filter that is often wanted, with how many devices it shows.
pub struct Chip {
    pub href: String,
    pub word: &'static str,
    pub devices: usize,
    pub chosen: bool,
}

pub struct Column {
    pub name: String,
    /// The page with this component only.
    pub href: String,
}

pub struct DeviceRow {
    pub client: String,
    pub client_href: String,
    pub device: Option<DeviceRef>,
    /// One for each column.
    pub cells: Vec<Option<Cell>>,
}

pub struct DeviceRef {
    pub name: String,
    /// Its runbook.
    pub href: String,
    pub on: bool,
    pub last_seen: Option<Moment>,
}

pub struct Cell {
    /// On the client's page.
    pub href: String,
    pub state: RowState,
    /// "as wanted", "missing", …
    pub word: &'static str,
    pub version: Option<String>,
    /// Short: "2 min".
    pub age: String,
    pub old: bool,
    /// In whole sentences, for the pointer that rests on it.
    pub title: String,
    /// Shown beside what the filter wants.
    pub aside: bool,
}

/// Why there is no matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    NoClient,
    NoCatalog,
    /// There are clients; none has a component in scope.
    NoScope,
    /// The filter leaves nothing.
    NoMatch,
}

impl Cell {
    /// A version says enough where all is as wanted; the word is kept for who can't see the glyph.
    pub fn speaks(&self) -> bool {
        self.state != RowState::Done || self.version.is_none()
    }
}

impl SupportPage {
    pub fn can_consult(&self) -> bool {
        self.shell.viewer.as_ref().is_some_and(|viewer| viewer.consultant)
    }
}

pub fn short_age(at: Timestamp, now: Timestamp) -> String {
    short(now.since(at).as_secs())
}

/// "now", "5 min", "3 h", "2 days"
pub fn short(seconds: u64) -> String {
    match seconds {
        0..60 => "now".to_owned(),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400..172_800 => "1 day".to_owned(),
        _ => format!("{} days", seconds / 86_400),
    }
}
