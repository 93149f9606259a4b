//! What providers said, so that nobody is asked more often than a credential changes.
//!
//! An answer is good for what it was given about: the same check, params and versions. What a person pastes has no
//! version, so everything about a component is forgotten before a value of it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::catalog::{Manifest, VerifySecret};
use shared::crypto::{hex, sha256};
use shared::protocol::inventory::{SlotCheck, SlotState};
use shared::time::Timestamp;

use super::Finding;
use crate::config::{self, ConfigError, Paths};
use crate::vault::{StoreError, Vault};

/// A little less than a day and an hour, so that the hourly look finds it due.
const DAILY: Duration = Duration::from_secs(24 * 3600 - 600);
const HOURLY: Duration = Duration::from_secs(3600 - 300);

/// Survives a restart in a file, without anything of a value.
pub struct Memory {
    file: PathBuf,
    /// Component = slot = what was said.
    known: BTreeMap<String, BTreeMap<String, Known>>,
    /// Counts how often a component was forgotten while this program runs.
    forgotten: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    basis: String,
    finding: Finding,
    at: Timestamp,
}

/// A question to ask, and what its answer will be good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub component: String,
    pub slot: String,
    basis: String,
    forgotten: u64,
}

impl Memory {
    pub fn load(paths: &Paths) -> Self {
        let file = paths.slot_checks();
        let known = config::load_json(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "what providers said can't be read; they are asked again");
            None
        });
        Self { file, known: known.unwrap_or_default(), forgotten: BTreeMap::new() }
    }

    /// Whether the provider is to be asked, now that a slot has a value.
    pub fn due(
        &self,
        manifest: &Manifest,
        slot: &str,
        params: Option<&BTreeMap<String, String>>,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<Option<Due>, StoreError> {
        let Some(check) = manifest.verify_secret.get(slot) else { return Ok(None) };
        let basis = basis(manifest, slot, check, params, vault)?;
        let fresh = self.get(&manifest.key, slot).is_some_and(|known| {
            let good_for = if known.finding.passing { HOURLY } else { DAILY };
            // A clock that went back must not keep an answer for longer.
            known.basis == basis && known.at <= now && now.since(known.at) < good_for
        });
        let forgotten = self.forgotten.get(&manifest.key).copied().unwrap_or(0);
        let (component, slot) = (manifest.key.clone(), slot.to_owned());
        Ok((!fresh).then_some(Due { component, slot, basis, forgotten }))
    }

    /// Keeps an answer. `false` when the value may be another one than it was given about. When the file can't be written
    /// the answer lasts until the agent ends, and is asked for again.
    pub fn keep(&mut self, due: Due, finding: Finding, at: Timestamp) -> bool {
        if self.forgotten.get(&due.component).copied().unwrap_or(0) != due.forgotten {
            return false;
        }
        let known = Known { basis: due.basis, finding, at };
        self.known.entry(due.component).or_default().insert(due.slot, known);
        if let Err(error) = config::save_json(&self.file, &self.known) {
            tracing::warn!(%error, "what a provider said can't be kept for the next start");
        }
        true
    }

    /// A value of this component is about to be written.
    pub fn forget(&mut self, component: &str) -> Result<(), ConfigError> {
        *self.forgotten.entry(component.to_owned()).or_default() += 1;
        match self.known.remove(component) {
            Some(_) => config::save_json(&self.file, &self.known),
            None => Ok(()),
        }
    }

    /// Every value is about to be removed.
    pub fn forget_all(&mut self) -> Result<(), ConfigError> {
        let known: Vec<String> = self.known.keys().cloned().collect();
        known.iter().try_for_each(|component| self.forget(component))
    }

    /// How a slot that has a value stands.
    pub fn state(
        &self,
        manifest: &Manifest,
        slot: &str,
        params: Option<&BTreeMap<String, String>>,
        vault: &Vault,
    ) -> Result<(SlotState, Option<SlotCheck>), StoreError> {
        let present = (SlotState::Present, None);
        let Some(check) = manifest.verify_secret.get(slot) else { return Ok(present) };
        let Some(known) = self.get(&manifest.key, slot) else { return Ok(present) };
        if known.basis != basis(manifest, slot, check, params, vault)? {
            return Ok(present);
        }
        let Finding { verdict, said, recorded, .. } = known.finding.clone();
        Ok((verdict.into(), Some(SlotCheck { said, recorded, at: known.at })))
    }

    fn get(&self, component: &str, slot: &str) -> Option<&Known> {
        self.known.get(component)?.get(slot)
    }
}

/// A digest over all that an answer depends on but the values themselves.
fn basis(
    manifest: &Manifest,
    slot: &str,
    check: &VerifySecret,
    params: Option<&BTreeMap<String, String>>,
    vault: &Vault,
) -> Result<String, StoreError> {
    let mut text = format!("{check:?}");
    for key in check.params() {
        text.push_str(&format!("\n{key}={:?}", params.and_then(|params| params.get(key))));
    }
    for key in std::iter::once(slot).chain(check.other_slots()) {
        let version = vault.read(&manifest.key, key)?.map(|held| held.version);
        text.push_str(&format!("\n{key}:{version:?}"));
    }
    Ok(hex(&sha256(text.as_bytes())))
}
