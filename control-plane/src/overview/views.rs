//! One client: its devices, slots and installed state, live.

use askama::Template;
use askama::filters::HtmlSafe;

use crate::clients::views::ClientRef;
use crate::inventory::Drift;
use crate::offboarding::views::{EndForms, EndView};
use crate::providers::views::KeySection;
use crate::secrets::views::SpreadLine;
use crate::web::{Moment, RowState, Shell};

#[derive(Template)]
#[template(path = "overview/client.html")]
pub struct ClientPage {
    pub shell: Shell,
    pub vault_name: String,
    pub notes: String,
    /// Whether the runbook's page offers to seal values in the browser.
    pub browser_paste: bool,
    /// Whether copying a secret needs a second person. An operator switches it off alone, a consultant asks another.
    pub second_person: bool,
    pub ask_password: bool,
    /// The client's key at OpenRouter, when it has to do with it.
    pub openrouter: Option<KeySection>,
    /// For who may end the engagement.
    pub end_forms: Option<EndForms>,
    pub fragment: ClientFragment,
}

/// What /clients/ID/events sends.
#[derive(Template)]
#[template(path = "overview/_client.html")]
pub struct ClientFragment {
    pub client: ClientRef,
    pub sentence: String,
    pub state: RowState,
    /// Where the components stand that the sentence counts as different.
    pub differing: Vec<DriftLink>,
    /// How many more there are.
    pub more: usize,
    pub devices: Vec<DeviceRow>,
    pub slots: Vec<SlotRow>,
    pub installed: Vec<InstalledRow>,
    /// Devices of this client that ask to join.
    pub pending: u32,
    pub can_consult: bool,
    pub end: EndView,
}

/// A component that differs from the scope, in the table below.
pub struct DriftLink {
    pub anchor: String,
    pub name: String,
    /// "missing", "slot rejected", …
    pub word: &'static str,
}

pub struct DeviceRow {
    /// Its runbook.
    pub href: String,
    pub name: String,
    pub state: RowState,
    pub state_word: String,
    pub os: String,
    pub last_seen: Option<Moment>,
    /// "12 of 19 done", "paused, 12 of 19 done"
    pub progress: String,
    /// Its runbook isn't through: what is missing may still come.
    pub busy: bool,
    /// No step is offered to it until somebody resumes its runbook.
    pub paused: bool,
    /// It joined with `--dev`.
    pub dev: bool,
}

pub struct SlotRow {
    pub component: String,
    pub name: String,
    /// "our-managed" or "client-supplied"
    pub tag: String,
    pub state: RowState,
    /// "empty", "present", "verified", "rejected", "unverifiable", "unreadable"
    pub state_word: String,
    pub sentence: String,
    /// How each device stands to a version of ours that isn't everywhere yet.
    pub spread: Vec<SpreadLine>,
    /// How many more there are.
    pub more: usize,
    /// The page that stores a new value, for who may.
    pub rotate: Option<String>,
}

pub struct InstalledRow {
    /// Where the support page's cell leads to.
    pub anchor: String,
    pub device: String,
    pub component: String,
    /// How it stands to the scope; none for what is neither wanted nor there.
    pub drift: Option<Drift>,
    /// Required slots that aren't right.
    pub slots: String,
    /// What the device found: "present", "absent", "outdated", "unknown", or "not looked at".
    pub presence: &'static str,
    pub version: Option<String>,
    /// Which probe looked, and what it saw.
    pub evidence: String,
    pub observed: Option<Moment>,
}

impl HtmlSafe for ClientFragment {}

impl ClientFragment {
    /// The document's title, also for the `title` event.
    pub fn title(&self) -> String {
        match self.pending {
            0 => format!("{} · Board", self.client.name),
            1 => format!("1 asks to join · {} · Board", self.client.name),
            pending => format!("{pending} ask to join · {} · Board", self.client.name),
        }
    }

    /// Whether the favicon asks for somebody, also for the `favicon` event ("needs" or "calm").
    pub fn needs_you(&self) -> bool {
        self.pending > 0 || matches!(self.state, RowState::NeedsYou | RowState::Failed)
    }
}
