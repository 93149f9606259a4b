//! Each effect of the engine, performed. What must survive a kill is in the journal before it is sent or started.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared::catalog::Wrapper;
use shared::ids::ReportId;
use shared::protocol::link::{FromAgent, Head, Pasted, Report, ReportBody, Scope, Welcome};
use shared::protocol::steps::{Offer, OfferKind};

use super::{Daemon, DaemonError};
use crate::bundles::Catalog;
use crate::config;
use crate::engine::{Effect, Event, bad_params};
use crate::journal::{Attempt, Params, Told};
use crate::undos;
use crate::wrappers;

/// Clocks further apart than this are worth a warning.
const SKEW: Duration = Duration::from_secs(120);
/// Left free in the link's queue for refusals.
const SPARE: usize = 8;

impl Daemon {
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) -> Result<(), DaemonError> {
        effects.into_iter().try_for_each(|effect| self.perform(effect))
    }

    fn perform(&mut self, effect: Effect) -> Result<(), DaemonError> {
        match effect {
            Effect::Welcomed(welcome) => self.welcomed(&welcome)?,
            Effect::Fetch(digest) => self.fetch(digest),
            Effect::Remember { offer, report } => self.remember(offer, report)?,
            Effect::Start(plan) => self.start(*plan),
            Effect::StartPlan { plan_id, steps } => self.start_plan(plan_id, steps),
            Effect::StopPlan => self.stop_plan(),
            Effect::Report(body) => {
                warn_of_refusal(&body);
                self.report(vec![body])?;
            }
            Effect::RepeatAttempt(id) => {
                let last = self.journal.attempt(id)?.and_then(|attempt| attempt.last);
                self.journal.record(last.as_slice())?;
                self.pump()?;
            }
            Effect::RepeatDelivery(id) => {
                let receipt = self.journal.receipt(id)?;
                self.journal.record(receipt.as_slice())?;
                self.pump()?;
            }
            Effect::Store { deliver, tag, pattern } => {
                let result = self.store(&deliver, tag, pattern.as_deref());
                self.engine_event(Event::Stored { deliver, result })?;
                self.ask_what_is_due();
            }
            Effect::StorePaste { paste, slot } => {
                let refused = self.store_paste(&paste, &slot)?.err();
                self.tell_pasted(Pasted { delivery_id: paste.delivery_id, refused });
            }
            Effect::Wipe(wipe) => self.wipe(&wipe)?,
            Effect::TellPasted(pasted) => self.tell_pasted(pasted),
            Effect::Acknowledged(reports) => {
                self.journal.acknowledged(&reports)?;
                self.pump()?;
            }
            Effect::Refuse(refused) => {
                tracing::warn!(what = %refused.what, reason = %refused.reason, "refused");
                if let Some(link) = &self.link {
                    // Only a courtesy: the board offers again what matters.
                    let _ = link.sender.try_send(FromAgent::Refused(refused));
                }
            }
            Effect::SaveScope(scope) => {
                if let Err(error) = config::save_scope(&self.paths, &scope) {
                    tracing::error!(%error, "the scope can't be kept; after a restart it must come from the board");
                }
                self.live.bundle_digest.clone_from(&scope.bundle_digest);
                self.scope = scope;
                self.save_live();
            }
            Effect::KeepCa(next) => self.keep_ca(next)?,
            Effect::Keys(statements) => self.succeed(&statements)?,
            Effect::Release(signed) => self.offered_release(signed)?,
            Effect::SaveSeen(seen) => {
                self.journal.set_seen(&seen)?;
                self.live.bundle_serial = seen.serial;
                self.save_live();
            }
            Effect::Witness(head) => self.witness(head)?,
            Effect::ScopeReady(catalog) => self.scope_ready(catalog)?,
            Effect::Probe => self.look(),
            Effect::ReportSlots => {
                self.report_slots()?;
                self.ask_what_is_due();
            }
        }
        Ok(())
    }

    /// Only whoever waits for it wants to know: after a cut nobody does, and the slots' report says the same.
    fn tell_pasted(&self, pasted: Pasted) {
        if let Some(reason) = &pasted.refused {
            tracing::warn!(delivery = %pasted.delivery_id, reason, "a sealed paste was refused");
        }
        if let Some(link) = &self.link {
            let _ = link.sender.try_send(FromAgent::Pasted(pasted));
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), DaemonError> {
        if welcome.device_id != self.identity.device_id || welcome.client_id != self.identity.client_id {
            tracing::error!(device = %welcome.device_id, "the board takes this device for another one");
        }
        let now = self.clock.now();
        let skew = now.since(welcome.time).max(welcome.time.since(now));
        if skew > SKEW {
            tracing::warn!(seconds = skew.as_secs(), "this machine's clock and the board's are apart");
        }
        self.live.last_link = Some(now);
        self.live.agent_version = Some(crate::version().to_owned());
        self.witness(welcome.audit_head.clone())?;
        if let Some(link) = &mut self.link {
            link.welcomed = true;
        }
        tracing::info!("the link is up");
        self.proven()?;
        self.pump()
    }

    fn witness(&mut self, head: Head) -> Result<(), DaemonError> {
        self.live.heads = self.journal.told(Told { head, at: self.clock.now() })?;
        self.save_live();
        Ok(())
    }

    fn remember(&mut self, offer: Offer, report: ReportBody) -> Result<(), DaemonError> {
        tracing::info!(attempt = %offer.attempt_id, component = %offer.component, step = %offer.step, "offered");
        warn_of_refusal(&report);
        let (component, params) = (offer.component.clone(), offer.params.clone());
        let accepted = matches!(report, ReportBody::AttemptStarted { .. });
        if accepted && offer.kind == OfferKind::Undo {
            self.journal.undo_begins(self.clock.now())?;
            undos::forget_allowed(&self.paths);
        }
        let report = self.with_id(report);
        self.journal.offered(&Attempt { offer, at: report.at, next_chunk: 0, last: None }, &report)?;
        if accepted && !params.is_empty() {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.params.get(&component) != Some(&params) {
                current.params.insert(component, params);
                self.journal.set_params(&current.params)?;
            }
        }
        self.pump()
    }

    fn scope_ready(&mut self, catalog: Arc<Catalog>) -> Result<(), DaemonError> {
        for key in &self.scope.components {
            if let Some(manifest) = catalog.manifests.get(key) {
                self.write_wrappers(key, &manifest.wrappers);
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let params = params_of(&self.scope, &catalog, &current.params);
        if params != current.params {
            self.journal.set_params(&params)?;
            current.params = params;
        }
        current.catalog = Some(catalog);
        current.components.clone_from(&self.scope.components);
        drop(current);
        self.tidy()
    }

    /// What `board-agent status` shows; nothing else depends on it.
    pub(super) fn save_live(&self) {
        if let Err(error) = self.live.save(&self.paths) {
            tracing::error!(%error, "the status can't be written");
        }
    }

    pub(super) fn write_wrappers(&self, component: &str, list: &[Wrapper]) {
        if let Err(error) = wrappers::write(&self.paths, self.context.launcher.program(), component, list) {
            tracing::error!(component, %error, "the wrappers can't be written");
        }
    }

    pub(super) fn report(&mut self, bodies: Vec<ReportBody>) -> Result<(), DaemonError> {
        let reports: Vec<Report> = bodies.into_iter().map(|body| self.with_id(body)).collect();
        self.journal.record(&reports)?;
        self.pump()
    }

    pub(super) fn with_id(&self, body: ReportBody) -> Report {
        Report { id: ReportId::new(&*self.clock, &*self.random), at: self.clock.now(), body }
    }

    /// Sends what waits in the journal, in order, as far as the link takes it.
    pub(super) fn pump(&mut self) -> Result<(), DaemonError> {
        let Some(link) = self.link.as_mut().filter(|link| link.welcomed) else { return Ok(()) };
        let room = link.sender.capacity().saturating_sub(SPARE);
        let waiting = self.journal.waiting(link.sent, room)?;
        link.backlog = waiting.len() == room;
        for (place, report) in waiting {
            if link.sender.try_send(FromAgent::Report(report)).is_err() {
                link.backlog = true;
                break;
            }
            link.sent = Some(place);
        }
        Ok(())
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.welcomed && link.backlog)
    }
}

/// The scope says everything: a param that it doesn't name is no more, nor are those of a component that left it. What it
/// says wrongly changes nothing.
fn params_of(scope: &Scope, catalog: &Catalog, before: &Params) -> Params {
    let (none, mut params) = (BTreeMap::new(), Params::new());
    for key in &scope.components {
        let Some(manifest) = catalog.manifests.get(key) else { continue };
        let told = scope.params.get(key).unwrap_or(&none);
        let values = match bad_params(manifest, told) {
            None => told,
            Some(reason) => {
                tracing::warn!(component = key, reason, "params were refused");
                before.get(key).unwrap_or(&none)
            }
        };
        if !values.is_empty() {
            params.insert(key.clone(), values.clone());
        }
    }
    params
}

fn warn_of_refusal(body: &ReportBody) {
    match body {
        ReportBody::OfferRefused { attempt_id, reason, passing } => {
            tracing::warn!(attempt = %attempt_id, reason, passing, "refused");
        }
        ReportBody::DeliveryRefused { delivery_id, reason, passing } => {
            tracing::warn!(delivery = %delivery_id, reason, passing, "refused");
        }
        ReportBody::AttemptStarted { .. }
        | ReportBody::Output(_)
        | ReportBody::AttemptEnded(_)
        | ReportBody::PlanStep(_)
        | ReportBody::PlanEnded(_)
        | ReportBody::Receipt(_)
        | ReportBody::Inventory { .. }
        | ReportBody::Wiped(_)
        | ReportBody::CaPinned { .. }
        | ReportBody::Replaced { .. }
        | ReportBody::Release(_)
        | ReportBody::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    use shared::catalog::Bundle;
    use shared::time::Timestamp;

    use super::*;

    fn catalog() -> Catalog {
        let manifest = |key: &str, required: bool| {
            let text = format!(
                "key = \"{key}\"\nname = \"x\"\ncategory = \"ai\"\nsummary = \"x\"\nplatforms = [\"linux\"]\n\
                 [[param]]\nkey = \"A\"\nname = \"x\"\npattern = \"^[a-z]+$\"\nrequired = {required}\n\
                 [[param]]\nkey = \"B\"\nname = \"x\"\npattern = \"^[a-z]+$\"\nrequired = false\n"
            );
            (key.to_owned(), text)
        };
        let bundle = Bundle {
            serial: 1,
            min_serial: 0,
            not_after: Timestamp::from_micros(0),
            revoked_steps: Vec::new(),
            tiers: String::new(),
            manifests: [manifest("free", false), manifest("strict", true)].into(),
        };
        let manifests = bundle.parse_manifests().unwrap();
        Catalog { digest: String::new(), bundle, manifests }
    }

    #[test]
    fn the_scope_says_which_params_there_are_and_which_are_no_more() {
        type Told<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];
        let params = |told: Told<'_>| -> Params {
            told.iter()
                .map(|(component, values)| {
                    let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
                    ((*component).to_owned(), values.collect())
                })
                .collect()
        };
        let both: Told<'_> = &[("free", &[("A", "a"), ("B", "b")]), ("strict", &[("A", "a")])];
        let table: &[(&[&str], Told<'_>, Told<'_>)] = &[
            (&["free", "strict"], both, both),
            (
                &["free", "strict"],
                &[("free", &[("B", "c")]), ("strict", &[("A", "a")])],
                &[("free", &[("B", "c")]), ("strict", &[("A", "a")])],
            ),
            (&["free", "strict"], &[("strict", &[("A", "a")])], &[("strict", &[("A", "a")])]),
            (&["free"], &[("free", &[("A", "a")]), ("strict", &[("A", "a")])], &[("free", &[("A", "a")])]),
            // What is refused doesn't take anything away.
            (&["free", "strict"], &[("free", &[("A", "1")])], both),
            (&[], &[], &[]),
        ];
        for (components, told, expected) in table {
            let components = components.iter().map(|&key| key.to_owned()).collect();
            let scope = Scope { bundle_digest: None, components, params: params(told), look_at: Vec::new() };
            assert_eq!(params_of(&scope, &catalog(), &params(both)), params(expected), "{told:?}");
        }
    }
}
