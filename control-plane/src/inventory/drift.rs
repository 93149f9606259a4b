//! Drift: what the scope wants against what a device found. Plain rules: answers go in, one finding a component comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::catalog::{Manifest, Platform};
use shared::protocol::inventory::{Presence, SlotState};
use shared::text_enum;
use shared::time::Timestamp;

use super::{InstalledSlot, Look};
use crate::catalog::Catalog;
use crate::clients::Scope;
use crate::web::RowState;

/// Devices look at least once an hour: an answer older than two of those looks is old.
pub const OLD: Duration = Duration::from_secs(2 * 3600);

text_enum! {
    pub enum Drift {
        AsWanted = "as-wanted",
        Missing = "missing",
        Outdated = "outdated",
        /// Present, but not in scope.
        Unwanted = "unwanted",
        /// The component is there; a slot that it requires is not right.
        SlotRejected = "slot-rejected",
        SlotEmpty = "slot-empty",
        /// The board stores a newer version of this secret of ours.
        SlotOutdated = "slot-outdated",
        /// The device looked and couldn't tell.
        Unknown = "unknown",
        NeverReported = "never-reported",
        NotForPlatform = "not-for-platform",
    }
}

impl Drift {
    /// Whether the device has something else than the scope wants.
    pub const fn differs(self) -> bool {
        match self {
            Self::Missing
            | Self::Outdated
            | Self::Unwanted
            | Self::SlotRejected
            | Self::SlotEmpty
            | Self::SlotOutdated => true,
            Self::AsWanted | Self::Unknown | Self::NeverReported | Self::NotForPlatform => false,
        }
    }

    /// Whether nobody can say if it is as wanted.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Unknown | Self::NeverReported)
    }

    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AsWanted => "as wanted",
            Self::Missing => "missing",
            Self::Outdated => "outdated",
            Self::Unwanted => "not in scope",
            Self::SlotRejected => "slot rejected",
            Self::SlotEmpty => "slot empty",
            Self::SlotOutdated => "slot outdated",
            Self::Unknown => "unknown",
            Self::NeverReported => "never reported",
            Self::NotForPlatform => "not for this platform",
        }
    }

    pub const fn row_state(self) -> RowState {
        match self {
            Self::AsWanted => RowState::Done,
            Self::Missing | Self::SlotRejected => RowState::Failed,
            Self::Outdated | Self::Unwanted | Self::SlotEmpty | Self::SlotOutdated => RowState::NeedsYou,
            Self::Unknown | Self::NeverReported => RowState::Waiting,
            Self::NotForPlatform => RowState::Off,
        }
    }
}

/// One component on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub component: String,
    pub drift: Drift,
    pub presence: Option<Presence>,
    pub version: Option<String>,
    /// When the device looked.
    pub observed_at: Option<Timestamp>,
    /// Required slots that aren't right.
    pub slots: Vec<SlotFinding>,
}

/// A required slot that isn't right; never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFinding {
    pub slot: String,
    /// `SlotRejected`, `SlotEmpty` or `SlotOutdated`.
    pub drift: Drift,
}

impl Finding {
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.observed_at.map(|at| now.since(at))
    }

    pub fn is_older_than(&self, limit: Duration, now: Timestamp) -> bool {
        self.age(now).is_some_and(|age| age > limit)
    }
}

/// (component, slot) = version of the secret of ours that the board stores.
pub type StoredVersions = BTreeMap<(String, String), i64>;

/// What is wanted of a device.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub scope: &'a Scope,
    pub catalog: Option<&'a Catalog>,
    /// `None` while no device has joined.
    pub platform: Option<Platform>,
    pub stored: &'a StoredVersions,
}

/// Judges one device: a finding for every component in scope, and for those that are there without being in scope.
pub fn judge(wanted: Wanted<'_>, looks: &[Look], slots: &[InstalledSlot]) -> Vec<Finding> {
    let looks: BTreeMap<&str, &Look> = looks.iter().map(|look| (look.component_key.as_str(), look)).collect();
    let there = looks
        .iter()
        .filter(|(_, look)| matches!(look.presence, Presence::Present | Presence::Outdated))
        .map(|(key, _)| *key);
    let all: BTreeSet<&str> = wanted.scope.components.iter().map(String::as_str).chain(there).collect();
    all.into_iter()
        .map(|component| {
            let look = looks.get(component).copied();
            let bad = bad_slots(wanted, component, slots);
            Finding {
                component: component.to_owned(),
                drift: drift(wanted, component, look, &bad),
                presence: look.map(|look| look.presence),
                version: look.and_then(|look| look.version.clone()),
                observed_at: look.map(|look| look.observed_at),
                slots: if look.is_some() { bad } else { Vec::new() },
            }
        })
        .collect()
}

fn drift(wanted: Wanted<'_>, component: &str, look: Option<&Look>, bad: &[SlotFinding]) -> Drift {
    if !wanted.scope.components.contains(component) {
        return Drift::Unwanted;
    }
    let other_platform = wanted.platform.is_some_and(|platform| {
        manifest(wanted, component).is_some_and(|manifest| !manifest.platforms.contains(&platform))
    });
    if other_platform {
        return Drift::NotForPlatform;
    }
    let Some(look) = look else { return Drift::NeverReported };
    let worst_slot = bad.iter().map(|slot| slot.drift).min();
    match (look.presence, worst_slot) {
        (Presence::Absent, _) => Drift::Missing,
        (Presence::Outdated, _) => Drift::Outdated,
        (Presence::Present | Presence::Unknown, Some(slot)) => slot,
        (Presence::Present, None) => Drift::AsWanted,
        (Presence::Unknown, None) => Drift::Unknown,
    }
}

fn manifest<'a>(wanted: Wanted<'a>, component: &str) -> Option<&'a Manifest> {
    wanted.catalog.and_then(|catalog| catalog.manifests.get(component))
}

/// Required slots that are to be filled and aren't, or hold what was rejected or replaced.
fn bad_slots(wanted: Wanted<'_>, component: &str, slots: &[InstalledSlot]) -> Vec<SlotFinding> {
    let Some(manifest) = manifest(wanted, component) else { return Vec::new() };
    if !wanted.scope.components.contains(component) {
        return Vec::new();
    }
    let required =
        manifest.slots.iter().filter(|slot| slot.required && wanted.scope.wants_slot(manifest, &slot.key));
    required
        .filter_map(|slot| {
            let held = slots.iter().find(|held| held.component_key == component && held.slot_key == slot.key);
            let stored = wanted.stored.get(&(component.to_owned(), slot.key.clone()));
            let drift = match held.map(|held| (held.state, held.version)) {
                None | Some((SlotState::Empty, _)) => Some(Drift::SlotEmpty),
                Some((SlotState::Rejected, _)) => Some(Drift::SlotRejected),
                Some((SlotState::Unreadable, _)) => Some(Drift::Unknown),
                Some((SlotState::Present | SlotState::Verified | SlotState::Unverifiable, version)) => {
                    let behind = version.zip(stored).is_some_and(|(version, stored)| version < *stored);
                    behind.then_some(Drift::SlotOutdated)
                }
            };
            drift.map(|drift| SlotFinding { slot: slot.key.clone(), drift })
        })
        .collect()
}

/// How a client stands: its components, each counted once, by the worst of its devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Components that any of its devices is to have, or has.
    pub components: usize,
    pub differ: usize,
    /// Neither as wanted nor different on any device, as far as is known.
    pub open: usize,
    /// The oldest answer about what is in scope.
    pub oldest: Option<Timestamp>,
}

impl Tally {
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let mut components: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        let mut oldest: Option<Timestamp> = None;
        for finding in findings.into_iter().filter(|finding| finding.drift != Drift::NotForPlatform) {
            let (differs, open) = components.entry(&finding.component).or_default();
            *differs |= finding.drift.differs();
            *open |= finding.drift.is_open();
            // Not every agent looks at what left the scope: its age says nothing about the rest.
            if finding.drift != Drift::Unwanted {
                oldest = oldest.into_iter().chain(finding.observed_at).min();
            }
        }
        Self {
            components: components.len(),
            differ: components.values().filter(|(differs, _)| *differs).count(),
            open: components.values().filter(|(differs, open)| !differs && *open).count(),
            oldest,
        }
    }
}
