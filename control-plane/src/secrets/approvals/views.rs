//! What waits for a second person, live.

use askama::Template;
use askama::filters::HtmlSafe;

use crate::clients::views::ClientRef;
use crate::secrets::views::CopyForm;
use crate::web::{Moment, RowState, Shell};

#[derive(Template)]
#[template(path = "approvals/approvals.html")]
pub struct ApprovalsPage {
    pub shell: Shell,
    pub fragment: ApprovalsFragment,
}

/// What /approvals/events sends.
#[derive(Template)]
#[template(path = "approvals/_approvals.html")]
pub struct ApprovalsFragment {
    pub cards: Vec<ApprovalCard>,
    pub own: Vec<OwnRow>,
    /// The forms ask for the password too: the session isn't fresh.
    pub ask_password: bool,
}

/// What somebody else asks for. POST /approvals/ID/approve or /approvals/ID/decline.
pub struct ApprovalCard {
    pub id: String,
    pub client: ClientRef,
    pub asker: String,
    pub wanted: Wanted,
    pub reason: String,
    pub asked: Moment,
    pub expires: Moment,
}

pub enum Wanted {
    /// The slot's name, and "component/KEY".
    Copy {
        name: String,
        place: String,
    },
    SwitchOff,
}

/// What the viewer asked for.
pub struct OwnRow {
    pub id: String,
    pub client: ClientRef,
    pub what: String,
    pub reason: String,
    pub state: RowState,
    /// How it stands, as a sentence.
    pub words: String,
    pub at: Moment,
    /// Until when it can be approved and used, while it can.
    pub until: Option<Moment>,
    /// There while it is approved: the one copy.
    pub copy: Option<CopyForm>,
}

impl HtmlSafe for ApprovalsFragment {}

impl ApprovalsFragment {
    /// The document's title, also for the `title` event.
    pub fn title(&self) -> String {
        let ready = self.own.iter().filter(|row| row.copy.is_some()).count();
        match (self.cards.len(), ready) {
            (0, 0) => "Approvals · Board".to_owned(),
            (0, _) => format!("{ready} approved · Approvals · Board"),
            (cards, _) => format!("{cards} to decide · Approvals · Board"),
        }
    }

    pub fn needs_you(&self) -> bool {
        !self.cards.is_empty() || self.own.iter().any(|row| row.copy.is_some())
    }

    /// What is said to who doesn't see the page.
    pub fn announcement(&self) -> String {
        let first = self.own.first().map(|row| format!(" What you asked for: {}.", row.words));
        let waits = crate::web::count(self.cards.len(), "request waits for you", "requests wait for you");
        format!("{waits}.{}", first.unwrap_or_default())
    }
}
