//! What must be known of a new program however either of the two ends: a file in the data folder, written whole.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Paths, load_json, save_json};

/// Failed releases that are remembered.
const KEPT: usize = 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Written before the new program takes its place.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// Oldest first.
    #[serde(default)]
    pub failed: Vec<Failed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Of the release.
    pub digest: String,
    /// Of the program that is on trial.
    pub version: String,
    pub program: PathBuf,
    /// SHA-256 of the old program, in hex.
    pub previous: String,
    pub starts: u32,
    /// Why the old program is put back; written before it is.
    #[serde(default)]
    pub going_back: Option<String>,
}

/// A release that did not come up. It is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub digest: String,
    pub version: String,
    pub reason: String,
    /// The report is in the journal.
    #[serde(default)]
    pub told: bool,
}

impl Record {
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        Ok(load_json(&paths.release())?.unwrap_or_default())
    }

    pub fn save(&self, paths: &Paths) -> Result<(), ConfigError> {
        save_json(&paths.release(), self)
    }

    pub fn fail(&mut self, trial: Trial, reason: String) {
        let Trial { digest, version, .. } = trial;
        self.failed.retain(|failed| failed.digest != digest);
        self.failed.push(Failed { digest, version, reason, told: false });
        let surplus = self.failed.len().saturating_sub(KEPT);
        self.failed.drain(..surplus);
    }
}
