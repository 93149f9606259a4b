//! Whether an offer may run at all. Everything that doesn't fit the signed manifest is refused with a reason.

use std::collections::BTreeMap;
use std::time::Instant;

use regex::Regex;
use shared::catalog::{As, Download, Manifest, Need, Step, StepKind, Wrapper};
use shared::protocol::link::FromBoard;
use shared::protocol::steps::{Offer, OfferKind};

use super::{Engine, Event};
use crate::bundles::Catalog;
use crate::platform::Met;
use crate::slots;
use crate::steps::Plan;

pub enum Verdict {
    /// Nothing of it is known before its bundle is here.
    NeedsBundle,
    Refused(String),
    /// Something that a person can change stands in the way: the board offers it again.
    NotYet(String),
    Fits(Box<Fit>),
}

/// What the signed manifest says about an offer that may run.
pub struct Fit {
    step: Step,
    wrappers: Vec<Wrapper>,
    downloads: Vec<Download>,
}

impl Fit {
    /// `next_chunk` is given for an attempt that a kill interrupted.
    pub fn plan(self, offer: &Offer, next_chunk: Option<u64>) -> Plan {
        Plan {
            attempt_id: offer.attempt_id,
            component: offer.component.clone(),
            step: self.step,
            wrappers: self.wrappers,
            downloads: self.downloads,
            params: offer.params.clone(),
            rerun: offer.kind == OfferKind::Rerun,
            undo: offer.kind == OfferKind::Undo,
            resume: next_chunk.is_some(),
            next_chunk: next_chunk.unwrap_or(0),
        }
    }
}

impl Engine {
    /// The offer against the bundle that it names, the newest bundle, this machine and what the vault holds.
    pub(super) fn judge(&self, offer: &Offer, now: Instant) -> Verdict {
        if offer.kind == OfferKind::Unknown {
            return Verdict::Refused("this agent does not know this kind of offer".to_owned());
        }
        let Some(catalog) = self.catalogs.get(&offer.bundle_digest) else {
            return Verdict::NeedsBundle;
        };
        let (manifest, step) = match self.find(catalog, &offer.component, &offer.step, now) {
            Ok(found) => found,
            Err(reason) => return Verdict::Refused(reason),
        };
        let takes_back = offer.kind == OfferKind::Undo;
        let unfit = self.unfit(manifest, step).or_else(|| match takes_back {
            true => step.undo.is_none().then(|| "the manifest has no way to undo this step".to_owned()),
            false => self.lacks_a_secret(manifest, step),
        });
        if let Some(reason) = unfit.or_else(|| bad_params(manifest, &offer.params)) {
            return Verdict::Refused(reason);
        }
        match self.unmet(step) {
            Some(verdict) => verdict,
            None if takes_back => Verdict::Fits(Box::new(Fit {
                // It gets no secret, and writes no wrapper of what is to go.
                step: Step { secrets: Vec::new(), ..step.clone() },
                wrappers: Vec::new(),
                downloads: self.downloads(manifest),
            })),
            None => Verdict::Fits(Box::new(Fit {
                step: step.clone(),
                wrappers: manifest.wrappers.clone(),
                downloads: self.downloads(manifest),
            })),
        }
    }

    /// The step as the signed bundle has it. Nothing of a bundle that is too old or ended, and no revoked step, may be
    /// started.
    pub(super) fn find<'c>(
        &self,
        catalog: &'c Catalog,
        component: &str,
        step: &str,
        now: Instant,
    ) -> Result<(&'c Manifest, &'c Step), String> {
        let bundle = &catalog.bundle;
        if let Some(reason) = self.too_old(catalog) {
            return Err(reason);
        }
        if self.board_now(now).is_some_and(|now| now > bundle.not_after) {
            return Err(format!("the bundle ended on {}", bundle.not_after));
        }
        let name = format!("{component}/{step}");
        if bundle.is_revoked(component, step) || self.seen.revoked_steps.contains(&name) {
            return Err(format!("the publisher revoked the step {name}"));
        }
        let Some(manifest) = catalog.manifests.get(component) else {
            return Err(format!("the bundle has no component {component}"));
        };
        match manifest.step(step) {
            Some(step) => Ok((manifest, step)),
            None => Err(format!("the bundle has no step {name}")),
        }
    }

    pub(super) fn downloads(&self, manifest: &Manifest) -> Vec<Download> {
        let platform = self.machine.platform;
        manifest.downloads.iter().filter(|download| download.is_for(platform)).cloned().collect()
    }

    pub(super) fn unfit(&self, manifest: &Manifest, step: &Step) -> Option<String> {
        if step.kind != StepKind::Auto {
            return Some("this step is done by a person".to_owned());
        }
        if !step.runs_on(self.machine.platform, manifest) {
            return Some("this step is not for this platform".to_owned());
        }
        match step.run_as {
            Some(As::Board) => Some("this step is the board's own".to_owned()),
            Some(As::Root) if !self.machine.is_root => {
                Some("this step must run as root, and this agent does not".to_owned())
            }
            Some(As::Root | As::User) | None => None,
        }
    }

    fn lacks_a_secret(&self, manifest: &Manifest, step: &Step) -> Option<String> {
        let listed: Vec<&str> = step.secrets.iter().map(|secret| secret.slot.as_str()).collect();
        slots::missing(manifest, &listed, |slot| {
            self.held.contains_key(&(manifest.key.clone(), slot.to_owned()))
        })
    }
}

impl Engine {
    /// What the steps need that may be judged because of this event: finding it out takes a moment, so nothing else is
    /// looked at.
    pub fn needed_by(&self, event: &Event) -> Vec<Need> {
        let (mut offers, mut came) = (Vec::new(), None);
        if let Event::Frame(FromBoard::Offer(offer)) = event {
            offers.push(offer);
        } else if let Event::Recover(attempt) = event {
            offers.push(&attempt.offer);
        } else if let Event::Bundle { digest, result: Ok(catalog) } = event {
            came = Some((digest, catalog));
        }
        offers.extend(self.waiting.iter().map(|waiting| &waiting.offer));
        offers.extend(self.recovering.iter().map(|attempt| &attempt.offer));
        let catalog = |digest: &String| match came {
            Some((new, catalog)) if new == digest => Some(catalog),
            _ => self.catalogs.get(digest),
        };
        let mut named: Vec<_> =
            offers.iter().map(|offer| (&offer.bundle_digest, &offer.component, &offer.step)).collect();
        let asked = if let Event::Frame(FromBoard::Plan(request)) = event { Some(request) } else { None };
        let planned = asked.or(self.waiting_plan.as_ref());
        if let Some(request) = planned {
            named.extend(
                request.steps.iter().map(|step| (&request.bundle_digest, &step.component, &step.step)),
            );
        }
        let steps = named
            .into_iter()
            .filter_map(|(digest, component, step)| catalog(digest)?.manifests.get(component)?.step(step));
        steps.flat_map(|step| step.needs.iter().copied()).collect()
    }

    /// The first of the step's needs that isn't there.
    pub(super) fn unmet(&self, step: &Step) -> Option<Verdict> {
        step.needs.iter().find_map(|need| {
            let met = match need {
                Need::Fda => &self.needs.fda,
                Need::Gui => &self.needs.gui,
            };
            match met {
                Met::Yes => None,
                Met::No(reason) => Some(Verdict::NotYet(reason.clone())),
                Met::Unknown(reason) => Some(Verdict::Refused(format!(
                    "this agent can't find out whether the step's needs are met: {reason}"
                ))),
            }
        })
    }
}

/// The first parameter that the manifest doesn't accept. The reason never repeats the value.
pub fn bad_params(manifest: &Manifest, params: &BTreeMap<String, String>) -> Option<String> {
    for (key, value) in params {
        let Some(param) = manifest.params.iter().find(|param| param.key == *key) else {
            return Some(format!("the manifest has no parameter {key}"));
        };
        // Anchored once more here: a pattern that forgot it must not let anything through.
        let Ok(pattern) = Regex::new(&format!("^(?:{})$", param.pattern)) else {
            return Some(format!("the manifest's pattern for {key} can't be understood"));
        };
        if !pattern.is_match(value) || value.contains('\0') {
            return Some(format!("the value of the parameter {key} does not fit its pattern"));
        }
    }
    manifest
        .params
        .iter()
        .find(|param| param.required && !params.contains_key(&param.key))
        .map(|param| format!("the parameter {} is missing", param.key))
}
