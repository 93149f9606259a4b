//! The scope's catalog and those that offers, deliveries and plans name: fetched when they are missing, kept while they are
//! used, and what waited for one goes on.

use std::sync::Arc;
use std::time::Instant;

use shared::protocol::link::{Refused, Scope};

use super::{Effect, Engine, Refusal};
use crate::bundles::Catalog;

/// In memory; more are read from disk when they are needed.
pub(super) const CATALOGS: usize = 4;

impl Engine {
    pub(super) fn set_scope(&mut self, scope: Scope, effects: &mut Vec<Effect>) {
        self.scope = scope.clone();
        let digest = scope.bundle_digest.clone();
        effects.push(Effect::SaveScope(scope));
        let Some(digest) = digest else { return };
        match self.catalogs.get(&digest) {
            Some(catalog) => self.scope_ready(Arc::clone(catalog), effects),
            None => self.fetch(&digest, effects),
        }
    }

    fn scope_ready(&self, catalog: Arc<Catalog>, effects: &mut Vec<Effect>) {
        match self.too_old(&catalog) {
            None => effects.extend([Effect::ScopeReady(catalog), Effect::Probe]),
            Some(reason) => effects.push(Effect::Refuse(Refused { what: "bundle".to_owned(), reason })),
        }
    }

    /// The newest bundle says how old another one may be that was accepted before it.
    pub(super) fn too_old(&self, catalog: &Catalog) -> Option<String> {
        let (serial, least) = (catalog.bundle.serial, self.seen.min_serial);
        (serial < least).then(|| format!("bundle {serial} is too old: the publisher wants at least {least}"))
    }

    pub(super) fn fetch(&mut self, digest: &str, effects: &mut Vec<Effect>) {
        if self.fetching.insert(digest.to_owned()) {
            effects.push(Effect::Fetch(digest.to_owned()));
        }
    }

    /// Other keys are believed than before: every catalog is verified again before anything in it is used.
    pub fn keys_changed(&mut self) -> Vec<Effect> {
        self.catalogs.clear();
        let mut effects = Vec::new();
        if let Some(digest) = self.scope.bundle_digest.clone() {
            self.fetch(&digest, &mut effects);
        }
        effects
    }

    pub(super) fn bundle(
        &mut self,
        digest: &str,
        result: Result<Arc<Catalog>, Refusal>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        self.fetching.remove(digest);
        let failed = match result {
            Ok(catalog) => {
                self.keep(catalog, effects);
                None
            }
            Err(refusal) => Some(refusal),
        };
        if self.scope.bundle_digest.as_deref() == Some(digest) {
            match (&failed, self.catalogs.get(digest)) {
                (None, Some(catalog)) => self.scope_ready(Arc::clone(catalog), effects),
                (refusal, _) => effects.push(Effect::Refuse(Refused {
                    what: "bundle".to_owned(),
                    reason: refusal.as_ref().map(|refusal| refusal.reason.clone()).unwrap_or_default(),
                })),
            }
        }
        if let Some(refusal) = &failed {
            let (mine, rest) = std::mem::take(&mut self.recovering)
                .into_iter()
                .partition::<Vec<_>, _>(|attempt| attempt.offer.bundle_digest == digest);
            self.recovering = rest;
            for attempt in mine {
                self.interrupted(&attempt, refusal.reason.clone(), effects);
            }
        }
        self.recover(now, effects);
        let (ready, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| waiting.offer.bundle_digest == digest);
        self.waiting = rest;
        for waiting in ready {
            match &failed {
                Some(refusal) => self.refuse_offer(waiting.offer, refusal.clone(), effects),
                None => self.offer(waiting, now, effects),
            }
        }
        self.plan_bundle(digest, failed.as_ref().map(|refusal| refusal.reason.as_str()), now, effects);
        let (ready, rest) = std::mem::take(&mut self.waiting_deliveries)
            .into_iter()
            .partition::<Vec<_>, _>(|deliver| deliver.bundle_digest == digest);
        self.waiting_deliveries = rest;
        for deliver in ready {
            match &failed {
                Some(refusal) => self.refuse_delivery(deliver.delivery_id, refusal.clone(), effects),
                None => self.deliver(deliver, now, effects),
            }
        }
    }

    fn keep(&mut self, catalog: Arc<Catalog>, effects: &mut Vec<Effect>) {
        if catalog.bundle.serial >= self.seen.serial {
            let seen = catalog.seen();
            if seen != self.seen {
                self.seen = seen.clone();
                effects.push(Effect::SaveSeen(seen));
            }
        }
        while self.catalogs.len() >= CATALOGS {
            let scope = self.scope.bundle_digest.as_ref();
            let Some(digest) = self.catalogs.keys().find(|digest| Some(*digest) != scope).cloned() else {
                break;
            };
            self.catalogs.remove(&digest);
        }
        self.catalogs.insert(catalog.digest.clone(), catalog);
    }
}
