//! Installed state: looking at what is really there, never at what was once run.
//!
//! To add a probe: a variant of `Detect` in the shared crate, its look in `probe.rs`.

mod probe;
mod version;

use serde::{Deserialize, Serialize};
use shared::catalog::{Manifest, Platform};
use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotReport, SlotState};
use shared::time::{Clock, Timestamp};

use crate::bundles::Catalog;
use crate::steps::Context;
use crate::vault::{StoreError, Vault};
use probe::{Prober, Seen};

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub components: Vec<ComponentReport>,
    pub slots: Vec<SlotReport>,
}

impl Inventory {
    /// The same, but for when it was seen.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let timeless = |inventory: &Self| {
            let mut inventory = inventory.clone();
            let never = Timestamp::from_micros(0);
            inventory.components.iter_mut().for_each(|report| report.observed_at = never);
            inventory.slots.iter_mut().for_each(|report| report.observed_at = never);
            inventory
        };
        timeless(self) == timeless(other)
    }
}

/// Looks at every component of the scope that is for this platform.
pub async fn look(
    context: &Context,
    catalog: &Catalog,
    components: &[String],
    platform: Platform,
    clock: &dyn Clock,
) -> Result<Inventory, StoreError> {
    let mut prober = Prober::new(context, platform)?;
    let mut reports = Vec::new();
    for manifest in catalog.of_scope(components, platform) {
        let mut seen = Vec::new();
        for detect in &manifest.detects {
            seen.push(prober.look(&manifest.key, detect).await);
        }
        reports.push(component_report(manifest, seen, clock.now()));
    }
    let slots = slots(&context.vault, catalog, components, platform, clock)?;
    Ok(Inventory { components: reports, slots })
}

/// Every slot of the scope: this asks the vault only, and takes no time.
pub fn slots(
    vault: &Vault,
    catalog: &Catalog,
    components: &[String],
    platform: Platform,
    clock: &dyn Clock,
) -> Result<Vec<SlotReport>, StoreError> {
    let mut reports = Vec::new();
    for manifest in catalog.of_scope(components, platform) {
        reports.extend(slot_reports(manifest, vault, clock.now())?);
    }
    Ok(reports)
}

/// Every probe must say that it is there.
fn component_report(manifest: &Manifest, seen: Vec<Seen>, now: Timestamp) -> ComponentReport {
    let worst = [Presence::Absent, Presence::Unknown, Presence::Outdated]
        .into_iter()
        .find(|presence| seen.iter().any(|seen| seen.presence == *presence));
    let (presence, evidence) = if seen.is_empty() {
        let saw = "the manifest does not say how to look".to_owned();
        (Presence::Unknown, vec![Evidence { probe: "none".to_owned(), saw }])
    } else {
        let evidence =
            seen.iter().map(|seen| Evidence { probe: seen.probe.clone(), saw: seen.saw.clone() }).collect();
        (worst.unwrap_or(Presence::Present), evidence)
    };
    ComponentReport {
        component: manifest.key.clone(),
        presence,
        version: seen.into_iter().find_map(|seen| seen.version),
        evidence,
        observed_at: now,
    }
}

fn slot_reports(manifest: &Manifest, vault: &Vault, now: Timestamp) -> Result<Vec<SlotReport>, StoreError> {
    manifest
        .slots
        .iter()
        .map(|slot| {
            let held = vault.read(&manifest.key, &slot.key)?;
            Ok(SlotReport {
                component: manifest.key.clone(),
                slot: slot.key.clone(),
                state: if held.is_some() { SlotState::Present } else { SlotState::Empty },
                version: held.and_then(|held| held.version),
                observed_at: now,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
