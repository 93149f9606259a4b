//! Installed state, as the device found it by looking.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text_enum;
use crate::time::Timestamp;

text_enum! {
    pub enum Presence {
        Present = "present",
        Absent = "absent",
        Outdated = "outdated",
        /// The probe failed, took too long or answered something that can't be understood.
        Unknown = "unknown",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentReport {
    pub component: String,
    pub presence: Presence,
    #[serde(default)]
    pub version: Option<String>,
    pub evidence: Vec<Evidence>,
    pub observed_at: Timestamp,
}

/// Which probe, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub probe: String,
    pub saw: String,
}

text_enum! {
    pub enum SlotState {
        Empty = "empty",
        Present = "present",
        Verified = "verified",
        Rejected = "rejected",
        Unverifiable = "unverifiable",
        /// The device's own store fails: whether there is a value can't be said.
        Unreadable = "unreadable",
    }
}

/// One slot on the device; never its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    pub component: String,
    pub slot: String,
    pub state: SlotState,
    /// Version of an our-managed secret.
    #[serde(default)]
    pub version: Option<u64>,
    pub observed_at: Timestamp,
    /// What asking the provider came to, when the manifest says how to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<SlotCheck>,
}

/// The evidence for `verified`, `rejected` or `unverifiable`. Never anything of the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCheck {
    /// In words: "api.example.com answered 401".
    pub said: String,
    /// Fields of the answer that the manifest names, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recorded: BTreeMap<String, String>,
    pub at: Timestamp,
}
