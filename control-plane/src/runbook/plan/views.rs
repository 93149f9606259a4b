//! Pause and plan on the runbook's page.

use askama::Template;
use askama::filters::HtmlSafe;

use crate::clients::views::ClientRef;
use crate::web::{Icon, Moment, Shell};

/// The part of the head that pauses and plans. Its lines keep their places whatever they say.
#[derive(Template, Default)]
#[template(path = "runbook/_control.html")]
pub struct Control {
    pub pause: Option<PauseShown>,
    pub plan: Option<PlanShown>,
    /// For those who may.
    pub actions: Option<Actions>,
    /// Why no plan can be asked for now.
    pub plan_waits: Option<&'static str>,
}

impl HtmlSafe for Control {}

pub struct Actions {
    pub pause: String,
    pub resume: String,
    pub plan: String,
}

pub struct PauseShown {
    pub by: String,
    pub at: Moment,
    pub reason: String,
}

impl PauseShown {
    /// As much of the reason as a line holds.
    fn start(&self) -> String {
        self.reason.chars().take(120).collect()
    }
}

/// GET /devices/ID/plan: all that the latest plan says.
#[derive(Template)]
#[template(path = "runbook/plan.html")]
pub struct PlanPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub device_name: String,
    /// Its runbook.
    pub device_href: String,
    pub plan: Option<PlanShown>,
}

pub struct PlanShown {
    /// Its own page.
    pub href: String,
    /// The colour's class and the glyph; the words come after it.
    pub class: &'static str,
    pub icon: Icon,
    /// "3 would run, 9 are already so"
    pub words: String,
    pub at: Moment,
    pub by: String,
    /// More may come of it.
    pub open: bool,
    pub lines: Vec<PlanLine>,
}

/// A step, in the plan's own list.
pub struct PlanLine {
    /// Of the step's line among the steps.
    pub anchor: String,
    pub component: String,
    pub title: String,
    pub word: PlannedWord,
    /// What `check` said, or why it was not run.
    pub found: String,
}

/// What a plan says of a step, in a few words. The class brings colour and glyph.
#[derive(Clone, Copy)]
pub struct PlannedWord {
    pub class: &'static str,
    pub word: &'static str,
}
