//! Plans on the link: the board asks what a runbook would change; the agent runs the `check` of each step, nothing else,
//! and says what it found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::PlanId;

/// "Look, and change nothing." Like an offer it names steps of the bundle and holds no command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    pub plan_id: PlanId,
    pub bundle_digest: String,
    /// In the order in which they are looked at.
    pub steps: Vec<StepName>,
    /// Inputs that aren't secret, by component.
    #[serde(default)]
    pub params: BTreeMap<String, BTreeMap<String, String>>,
}

/// A step of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepName {
    pub component: String,
    pub step: String,
}

/// What the look at one step came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    pub plan_id: PlanId,
    pub component: String,
    pub step: String,
    pub answer: Planned,
    /// What `check` said, or why it was not run, for a person; masked on the device.
    pub found: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planned {
    /// `check` says that it is so.
    AlreadySo,
    /// `check` says that it is not so.
    WouldRun,
    /// It has no `check`.
    NoCheck,
    /// Its `check` needs something that isn't there, or a secret, which no plan opens.
    NotYet,
    /// `check` gave no answer, or the device wouldn't run it. Also an answer that this program doesn't know.
    #[serde(other)]
    Unknown,
}

/// Nothing more comes of this plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEnded {
    pub plan_id: PlanId,
    /// Why, when it ended before every step was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}
