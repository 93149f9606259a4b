//! Steps on the link: what the board offers and what the agent says became of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::AttemptId;

/// An output chunk's text is at most this long, in bytes, so that it fits a row and a frame.
pub const MAX_CHUNK: usize = 64 * 1024;
/// Output kept of one attempt, in bytes; what comes after is counted, not kept.
pub const MAX_OUTPUT: u64 = 8 * 1024 * 1024;

/// "Execute this step of the bundle." Nothing in an offer is a command: the agent takes the scripts from the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub attempt_id: AttemptId,
    pub bundle_digest: String,
    pub component: String,
    pub step: String,
    pub kind: OfferKind,
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Milliseconds from now until the offer is void.
    pub expires_in_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferKind {
    /// `check`, then `run` unless it is already so, then `verify`.
    Run,
    /// `run`, whatever `check` says, then `verify`: a secret that the step reads has a new version.
    Rerun,
    /// `undo`, then what looks for the step's effect: a person asked for it. It gets no secrets.
    Undo,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    pub attempt_id: AttemptId,
    /// Counts from 0 in each attempt.
    pub seq: u64,
    /// Masked on the device.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnded {
    pub attempt_id: AttemptId,
    pub outcome: Outcome,
    /// Exit code of `run`; it proves nothing.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// What `check` or `verify` found, for a person.
    pub found: String,
    pub duration_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    /// `check` said that it is already so; nothing was run.
    AlreadySo,
    Failed,
    Interrupted,
    Cancelled,
    #[serde(other)]
    Unknown,
}
