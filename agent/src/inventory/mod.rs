//! Installed state: looking at what is really there, never at what was once run.
//!
//! To add a probe: a variant of `Detect` in the shared crate, its look in `probe.rs`.

mod probe;
mod version;

use serde::{Deserialize, Serialize};
use shared::catalog::{Manifest, Platform};
use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotCheck, SlotReport, SlotState};
use shared::time::{Clock, Timestamp};

use crate::bundles::Catalog;
use crate::journal::Params;
use crate::steps::Context;
use crate::vault::{StoreError, Vault};
use crate::verify::Memory;
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
            for report in &mut inventory.slots {
                report.observed_at = never;
                report.check.iter_mut().for_each(|check| check.at = never);
            }
            inventory
        };
        timeless(self) == timeless(other)
    }
}

/// Looks at every component of the scope that is for this platform. Its slots are asked for with [`slots`].
pub async fn look(
    context: &Context,
    catalog: &Catalog,
    components: &[String],
    platform: Platform,
    clock: &dyn Clock,
) -> Result<Vec<ComponentReport>, StoreError> {
    let mut prober = Prober::new(context, platform)?;
    let mut reports = Vec::new();
    for manifest in catalog.of_scope(components, platform) {
        let mut seen = Vec::new();
        for detect in &manifest.detects {
            seen.push(prober.look(&manifest.key, detect).await);
        }
        reports.push(component_report(manifest, seen, clock.now()));
    }
    Ok(reports)
}

/// Every slot of the scope: this asks the vault and what providers said before, and takes no time. One that can't be read
/// doesn't hide the others.
pub fn slots<'a>(
    vault: &Vault,
    memory: &Memory,
    params: &Params,
    manifests: impl Iterator<Item = &'a Manifest>,
    now: Timestamp,
) -> Vec<SlotReport> {
    let mut reports = Vec::new();
    for manifest in manifests {
        for slot in &manifest.slots {
            let found = found(vault, memory, params, manifest, &slot.key);
            let (state, version, check) = found.unwrap_or_else(|error| {
                tracing::error!(component = manifest.key, slot = slot.key, %error, "a slot can't be read");
                let check = SlotCheck { said: error.to_string(), recorded: [].into(), at: now };
                (SlotState::Unreadable, None, Some(check))
            });
            reports.push(SlotReport {
                component: manifest.key.clone(),
                slot: slot.key.clone(),
                state,
                version,
                observed_at: now,
                check,
            });
        }
    }
    reports
}

type Found = (SlotState, Option<u64>, Option<SlotCheck>);

fn found(
    vault: &Vault,
    memory: &Memory,
    params: &Params,
    manifest: &Manifest,
    slot: &str,
) -> Result<Found, StoreError> {
    let Some(held) = vault.read(&manifest.key, slot)? else { return Ok((SlotState::Empty, None, None)) };
    let (state, check) = memory.state(manifest, slot, params.get(&manifest.key), vault)?;
    Ok((state, held.version, check))
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

#[cfg(test)]
mod tests;
