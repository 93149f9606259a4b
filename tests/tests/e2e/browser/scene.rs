//! A board where a lot is going on: a device that is on with a step that waits and one that failed, a device that was
//! rejected, and one that asks to join.

use tests::agent::{Agent, Joining};

use crate::stage::{Database, SOON, Stage, VALUE};

pub struct Scene {
    pub stage: Stage,
    pub client: String,
    pub device: String,
    /// The failed step's attempt.
    pub attempt: String,
    pub agent: Agent,
    /// A one-time link that nobody used.
    pub link: String,
    _pending: Joining,
}

/// What people and devices call things.
pub struct Names {
    pub client: String,
    pub notes: String,
    pub word: String,
    pub reason: String,
    /// A host name that the devices claim instead of their own.
    pub host: Option<String>,
}

impl Names {
    pub fn plain() -> Self {
        Self {
            client: "Example Client".into(),
            notes: "Call the office before noon.".into(),
            word: "hello".into(),
            reason: "This is another office's Mac".into(),
            host: None,
        }
    }
}
