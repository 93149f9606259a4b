//! The support page: filters, and a matrix of devices and components.

use std::sync::LazyLock;

use askama::Template;
use shared::time::Timestamp;

use super::Filter;
use crate::web::{Moment, RowState, Shell, assets};

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
    /// Which of all the rows are shown: "Rows 1 to 12 of 41".
    pub range: String,
    pub columns: Vec<Column>,
    /// Components without a column, when there are too many: "12 more components are".
    pub hidden: Option<String>,
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
    /// Slots that aren't right, and when the device looked.
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

/// The glyphs of the six states on the page itself, as `#g-done`: hundreds of cells with the sprite's address would
/// weigh more than what they say.
static GLYPHS: LazyLock<String> = LazyLock::new(|| {
    let sprite = assets::find("icons.svg").map_or(&b""[..], |asset| asset.bytes);
    let sprite = String::from_utf8_lossy(sprite);
    let symbols = sprite.lines().filter(|line| {
        STATES.iter().any(|state| line.starts_with(&format!("<symbol id=\"{}\"", state.glyph().0)))
    });
    symbols.map(|line| line.replacen("id=\"", "id=\"g-", 1)).collect()
});

const STATES: [RowState; 6] = [
    RowState::Done,
    RowState::Running,
    RowState::NeedsYou,
    RowState::Waiting,
    RowState::Failed,
    RowState::Off,
];

impl Cell {
    /// Its symbol on this page.
    pub fn glyph(&self) -> &'static str {
        self.state.glyph().0
    }

    /// A version says enough where all is as wanted; the word is kept for who can't see the glyph.
    pub fn speaks(&self) -> bool {
        self.state != RowState::Done || self.version.is_none()
    }
}

impl SupportPage {
    pub fn glyphs(&self) -> &'static str {
        &GLYPHS
    }

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
