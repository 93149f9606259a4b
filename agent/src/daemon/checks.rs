//! Asking providers whether credentials work: what is due, beside the loop, and what they said.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use shared::catalog::Manifest;

use super::{Daemon, DaemonError, Happened};
use crate::bundles::Catalog;
use crate::inventory::Inventory;
use crate::vault::StoreError;
use crate::verify::{self, Due, Finding, Question};

impl Daemon {
    /// Asks about every secret that is here and that nobody was asked about lately.
    pub(super) fn ask_what_is_due(&mut self) {
        let current = Arc::clone(&self.current);
        let current = current.read().unwrap_or_else(PoisonError::into_inner);
        let Some(catalog) = current.catalog.clone() else { return };
        for manifest in catalog.of_scope(&self.scope.components, self.platform) {
            let params = current.params.get(&manifest.key);
            for slot in manifest.verify_secret.keys() {
                let due = self.due(manifest, slot, params).unwrap_or_else(|error| {
                    tracing::error!(component = manifest.key, slot, %error, "a slot can't be read");
                    None
                });
                let Some(due) = due.filter(|due| !self.asking.contains(due)) else { continue };
                self.asking.insert(due.clone());
                self.ask(due, Arc::clone(&catalog), params.cloned().unwrap_or_default());
            }
        }
    }

    fn due(
        &self,
        manifest: &Manifest,
        slot: &str,
        params: Option<&BTreeMap<String, String>>,
    ) -> Result<Option<Due>, StoreError> {
        match self.context.vault.read(&manifest.key, slot)? {
            Some(_) => self.memory.due(manifest, slot, params, &self.context.vault, self.clock.now()),
            None => Ok(None),
        }
    }

    fn ask(&self, due: Due, catalog: Arc<Catalog>, params: BTreeMap<String, String>) {
        let (context, happened) = (self.context.clone(), self.happened.clone());
        tokio::spawn(async move {
            let asked = catalog
                .manifests
                .get(&due.component)
                .and_then(|manifest| Some((manifest, manifest.verify_secret.get(&due.slot)?)));
            let mut finding = None;
            if let Some((manifest, check)) = asked {
                let (slot, vault) = (due.slot.as_str(), &*context.vault);
                let question = Question { manifest, slot, check, params: &params, vault };
                finding = verify::ask(&context.outbound, &question, verify::TIMEOUT)
                    .await
                    .inspect_err(|error| tracing::error!(%error, "a credential can't be checked"))
                    .ok();
            }
            // Only a stopping daemon doesn't listen.
            let _ = happened.send(Happened::Asked { due, finding }).await;
        });
    }

    pub(super) fn asked(&mut self, due: Due, finding: Option<Finding>) -> Result<(), DaemonError> {
        self.asking.remove(&due);
        // The store failed: the next look asks again.
        let Some(finding) = finding else { return Ok(()) };
        let Finding { verdict, said, .. } = &finding;
        tracing::info!(
            component = due.component,
            slot = due.slot,
            ?verdict,
            said,
            "a credential was checked"
        );
        if !self.memory.keep(due, finding, self.clock.now()) {
            // Another value came meanwhile.
            self.ask_what_is_due();
            return Ok(());
        }
        let Some(slots) = self.slots() else { return Ok(()) };
        let last = self.last_inventory.clone().unwrap_or_default();
        let inventory = Inventory { components: last.components.clone(), slots };
        if last.says_the_same_as(&inventory) { Ok(()) } else { self.report_inventory(inventory) }
    }
}
