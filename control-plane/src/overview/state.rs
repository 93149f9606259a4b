//! How a client stands: one sentence, and a row for each component on each device.

use shared::protocol::inventory::{Presence, SlotState};
use shared::time::Timestamp;

use super::views::{DriftLink, InstalledRow, SlotRow};
use super::web::component_name;
use crate::access::Visitor;
use crate::catalog::Catalog;
use crate::inventory::drift::Tally;
use crate::inventory::{ClientFindings, Finding, Installed};
use crate::web::{Moment, RowState, count};

/// Components that the sentence names.
pub const LINKS: usize = 5;

/// What comes before what is installed.
#[derive(Clone, Copy)]
pub struct Pressing {
    pub devices: usize,
    /// A runbook isn't through.
    pub busy: bool,
    /// And none of these goes on by itself: somebody has to resume it.
    pub paused: bool,
    /// Macs that ask to join.
    pub pending: usize,
}

/// One sentence of state, the most pressing first; and whether it counts what differs from the scope.
pub fn sentence(
    pressing: Pressing,
    slots: &[SlotRow],
    tally: Tally,
    visitor: &Visitor,
) -> (RowState, String, bool) {
    if pressing.pending > 0 {
        let asks = count(pressing.pending, "Mac asks", "Macs ask");
        return (RowState::NeedsYou, format!("{asks} to join. Compare the fingerprint and decide."), false);
    }
    let is_ours = |slot: &&SlotRow| slot.tag == "our-managed" && slot.state_word == "empty";
    let empty = slots.iter().filter(is_ours).count();
    if empty > 0 {
        let lacks = count(empty, "secret of ours is", "secrets of ours are");
        return (RowState::NeedsYou, format!("{lacks} not entered yet."), false);
    }
    let refused = slots.iter().filter(|slot| slot.state_word == SlotState::Rejected.as_str()).count();
    if refused > 0 {
        let are = count(refused, "credential is", "credentials are");
        return (RowState::NeedsYou, format!("{are} refused by the provider."), false);
    }
    if pressing.devices == 0 {
        return (RowState::NeedsYou, "No Mac is enrolled. Make a join code.".into(), false);
    }
    let Some(oldest) = tally.oldest else {
        if pressing.paused {
            return (RowState::Waiting, "The runbook is paused; nothing was looked at yet.".into(), false);
        }
        return (RowState::Running, "The runbook runs; nothing was looked at yet.".into(), false);
    };
    let checked = Moment { at: oldest, now: visitor.now }.words();
    let all = count(tally.components, "component", "components");
    if tally.differ > 0 {
        let (state, so_far) = match (pressing.busy, pressing.paused) {
            (true, true) => (RowState::Waiting, "; the runbook is paused"),
            (true, false) => (RowState::Running, "; the runbook isn't through"),
            (false, _) => (RowState::NeedsYou, ""),
        };
        let differ = if tally.differ == 1 { "differs" } else { "differ" };
        let text = format!("{} of {all} {differ} from the scope{so_far}; checked {checked}:", tally.differ);
        return (state, text, true);
    }
    if tally.open > 0 {
        let are = if tally.open == 1 { "is" } else { "are" };
        let text = format!("{} of {all} {are} not known yet; checked {checked}.", tally.open);
        return (RowState::Waiting, text, false);
    }
    let are = if tally.components == 1 { format!("{all} is") } else { format!("All {all} are") };
    (RowState::Done, format!("{are} as wanted; checked {checked}."), false)
}

/// The components that differ, each once, at the device where it stands worst.
pub fn differing(found: &ClientFindings, catalog: Option<&Catalog>) -> Vec<DriftLink> {
    let mut worst: Vec<(&Finding, String)> = Vec::new();
    for one in &found.devices {
        for finding in one.findings.iter().filter(|finding| finding.drift.differs()) {
            let device = one.device.as_ref().map_or_else(String::new, |device| device.id.to_string());
            match worst.iter_mut().find(|(known, _)| known.component == finding.component) {
                Some(known) if finding.drift < known.0.drift => *known = (finding, device),
                Some(_) => {}
                None => worst.push((finding, device)),
            }
        }
    }
    worst
        .into_iter()
        .map(|(finding, device)| DriftLink {
            anchor: format!("{device}-{}", finding.component),
            name: component_name(catalog, &finding.component),
            word: finding.drift.word(),
        })
        .collect()
}

/// By device: what is wanted of it or was found on it, then what is neither.
pub fn rows(
    found: Option<&ClientFindings>,
    installed: &[Installed],
    catalog: Option<&Catalog>,
    now: Timestamp,
) -> Vec<InstalledRow> {
    let mut rows = Vec::new();
    for one in found.into_iter().flat_map(|found| &found.devices) {
        let Some(device) = &one.device else { continue };
        let looks: Vec<&Installed> = installed.iter().filter(|look| look.device_id == device.id).collect();
        let looked = |key: &str| looks.iter().copied().find(|look| look.component_key == key);
        let row = |key: &str, finding: Option<&Finding>| row(key, finding, looked(key), catalog, now);
        let is_found = |key: &str| one.findings.iter().any(|finding| finding.component == key);
        let wanted = one.findings.iter().map(|finding| row(&finding.component, Some(finding)));
        let rest = looks.iter().filter(|look| !is_found(&look.component_key));
        rows.extend(wanted.chain(rest.map(|look| row(&look.component_key, None))).map(|row| InstalledRow {
            anchor: format!("{}-{}", device.id, row.anchor),
            device: device.name.clone(),
            ..row
        }));
    }
    rows
}

fn row(
    key: &str,
    finding: Option<&Finding>,
    look: Option<&Installed>,
    catalog: Option<&Catalog>,
    now: Timestamp,
) -> InstalledRow {
    let evidence = look.into_iter().flat_map(|look| &look.evidence);
    let slots = finding.into_iter().flat_map(|finding| &finding.slots);
    InstalledRow {
        anchor: key.to_owned(),
        device: String::new(),
        component: component_name(catalog, key),
        drift: finding.map(|finding| finding.drift),
        slots: slots
            .map(|slot| format!("{} {}", slot.slot, slot.drift.word()))
            .collect::<Vec<_>>()
            .join(", "),
        presence: match look.map(|look| look.presence) {
            Some(Presence::Present) => "present",
            Some(Presence::Absent) => "absent",
            Some(Presence::Outdated) => "outdated",
            Some(Presence::Unknown) => "unknown",
            None => "not looked at",
        },
        version: look.and_then(|look| look.version.clone()),
        evidence: evidence.map(|one| format!("{}: {}", one.probe, one.saw)).collect::<Vec<_>>().join("; "),
        observed: look.map(|look| Moment { at: look.observed_at, now }),
    }
}
