//! Installed state, as the device found it by looking.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "TEXT", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Present,
    Absent,
    Outdated,
    /// The probe failed, took too long or answered something that can't be understood.
    #[serde(other)]
    Unknown,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "TEXT", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    Empty,
    Present,
    Verified,
    Rejected,
    #[serde(other)]
    Unverifiable,
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
}
