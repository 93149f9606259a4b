//! The list of clients and the form for another one.

use askama::Template;

use crate::web::{FieldError, Moment, RowState, Shell};

/// A client as other pages point at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRef {
    pub href: String,
    pub name: String,
}

#[derive(Template)]
#[template(path = "clients/list.html")]
pub struct ClientsPage {
    pub shell: Shell,
    pub clients: Vec<ClientRow>,
}

pub struct ClientRow {
    pub href: String,
    pub name: String,
    pub components: u32,
    pub devices: u32,
    pub state: RowState,
    pub sentence: String,
    pub created: Moment,
}

/// POST /clients/new with `name`, `vault_name`, `notes` and any number of `component`.
#[derive(Template)]
#[template(path = "clients/new.html")]
pub struct NewClientPage {
    pub shell: Shell,
    pub name: String,
    pub vault_name: String,
    pub notes: String,
    pub components: Vec<ComponentChoice>,
    pub errors: Vec<FieldError>,
}

pub struct ComponentChoice {
    pub key: String,
    pub name: String,
    pub summary: String,
    pub checked: bool,
    /// Names of the our-managed slots.
    pub ours: Vec<String>,
    /// Names and hints of the client-supplied slots.
    pub theirs: Vec<(String, String)>,
    pub steps_agent: u32,
    pub steps_you: u32,
    pub for_platforms: String,
}

/// What the ticked components add up to. `console.js` counts again as boxes are ticked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScopeSummary {
    pub components: usize,
    pub steps_agent: u32,
    pub steps_you: u32,
    pub ours: usize,
    pub theirs: usize,
}

impl ClientsPage {
    fn needing(&self) -> u64 {
        let needs_you = |client: &&ClientRow| matches!(client.state, RowState::NeedsYou | RowState::Failed);
        self.clients.iter().filter(needs_you).count() as u64
    }

    fn can_consult(&self) -> bool {
        self.shell.viewer.as_ref().is_some_and(|viewer| viewer.consultant)
    }
}

impl NewClientPage {
    /// Where a client-supplied secret will live, as far as that is typed already. `console.js` follows the typing.
    fn place(&self, hint: &str) -> String {
        let vault =
            [&self.vault_name, &self.name].into_iter().map(|text| text.trim()).find(|text| !text.is_empty());
        hint.replace("{vault}", vault.unwrap_or("…"))
    }

    pub fn summary(&self) -> ScopeSummary {
        self.components.iter().filter(|choice| choice.checked).fold(ScopeSummary::default(), |sum, choice| {
            ScopeSummary {
                components: sum.components + 1,
                steps_agent: sum.steps_agent + choice.steps_agent,
                steps_you: sum.steps_you + choice.steps_you,
                ours: sum.ours + choice.ours.len(),
                theirs: sum.theirs + choice.theirs.len(),
            }
        })
    }
}
