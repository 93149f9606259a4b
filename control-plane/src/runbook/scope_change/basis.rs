//! What a difference was computed from, as a short text that travels with the form and comes back when a person confirms.

use std::fmt;

use shared::crypto::{hex, sha256};

use super::super::Step;
use super::super::compose::Fitting;
use crate::clients::{Change, Package, Scope};
use crate::enrollment::Device;

/// Bytes of each part: enough that no two differences of one client are taken for each other.
const PART: usize = 8;

/// Four hashes: of the scope that is saved, of what is asked for, of the catalog, and of what changes in runbooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    saved: String,
    asked: String,
    catalog: String,
    runbooks: String,
}

/// What isn't as it was when the difference was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    Scope,
    Catalog,
    Runbooks,
    /// The form doesn't say what the page said.
    Form,
}

impl Moved {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Scope => {
                "Somebody else changed this client’s scope since this page was shown. This is the difference to theirs."
            }
            Self::Catalog => {
                "A new catalog was imported since this page was shown. This is the difference with it."
            }
            Self::Runbooks => {
                "A runbook moved on since this page was shown: a step began, or a device joined or left. This is what changes now."
            }
            Self::Form => {
                "What was sent isn’t what this page had shown. This is the difference that it makes."
            }
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.saved, self.asked, self.catalog, self.runbooks)
    }
}

impl Basis {
    pub(super) fn of(change: &Change, fittings: &[(Device, Fitting)]) -> Self {
        let mut runbooks = Vec::new();
        for (device, fitting) in fittings {
            runbooks.push(device.id.to_string());
            runbooks.push(fitting.runbook.bundle_digest.clone());
            let changes = &fitting.changes;
            runbooks
                .extend(changes.added.iter().map(|added| format!("+ {}/{}", added.component, added.step.id)));
            let name = |step: &Step| format!("{}/{}", step.component_key, step.step_key);
            runbooks.extend(changes.back.iter().map(|step| format!("< {}", name(step))));
            runbooks.extend(changes.again.iter().map(|step| format!("! {}", name(step))));
            runbooks.extend(changes.left.iter().map(|step| format!("- {}", name(step))));
            runbooks.extend(changes.rests.iter().map(|step| format!("= {}", name(step))));
        }
        let mut asked = scope_lines(&change.after);
        asked.extend(change.package.iter().flat_map(package_lines));
        let mut saved = scope_lines(&change.before);
        saved.extend(package_lines(&change.package_before));
        Self {
            saved: part(&saved),
            asked: part(&asked),
            catalog: part(std::slice::from_ref(&change.catalog.digest)),
            runbooks: part(&runbooks),
        }
    }

    /// Why a person who saw another basis has to look again.
    pub(super) fn moved(&self, seen: &str) -> Moved {
        let seen: Vec<&str> = seen.split('-').collect();
        match seen.as_slice() {
            [saved, ..] if *saved != self.saved && seen.len() == 4 => Moved::Scope,
            [_, _, catalog, _] if *catalog != self.catalog => Moved::Catalog,
            [_, asked, _, _] if *asked == self.asked => Moved::Runbooks,
            _ => Moved::Form,
        }
    }
}

fn scope_lines(scope: &Scope) -> Vec<String> {
    let components = scope.components.iter().map(|key| format!("component {key}"));
    let choices = scope.choices.iter().map(|((key, group), slot)| format!("choice {key} {group} {slot}"));
    let params = scope.params.iter().map(|((key, param), value)| format!("param {key} {param} {value}"));
    components.chain(choices).chain(params).collect()
}

fn package_lines(package: &Package) -> Vec<String> {
    let tier = package.tier.iter().map(|key| format!("tier {key}"));
    tier.chain(package.addons.iter().map(|key| format!("addon {key}"))).collect()
}

/// No line has a NUL in it, so that no two lists are joined to the same text.
fn part(lines: &[String]) -> String {
    hex(&sha256(lines.join("\0").as_bytes())[..PART])
}
