//! Whether a delivery may be stored. Its tag comes from the signed manifest, never from the frame.

use std::time::Instant;

use shared::catalog::{Slot, Tag};
use shared::crypto::SEALED_EXTRA;
use shared::ids::DeliveryId;
use shared::protocol::link::{Deliver, Receipt, ReportBody};
use shared::secret::MAX_LEN;

use super::{Effect, Engine, Refusal};
use crate::bundles::Catalog;

impl Engine {
    pub(super) fn deliver(&mut self, deliver: Deliver, now: Instant, effects: &mut Vec<Effect>) {
        let id = deliver.delivery_id;
        if self.received.contains(&id) {
            effects.push(Effect::RepeatDelivery(id));
            return;
        }
        if self.waiting_deliveries.iter().any(|waiting| waiting.delivery_id == id) {
            return;
        }
        let Some(catalog) = self.catalogs.get(&deliver.bundle_digest) else {
            self.fetch(&deliver.bundle_digest, effects);
            self.waiting_deliveries.push(deliver);
            return;
        };
        match self.judge_delivery(catalog, &deliver, now) {
            Ok(slot) => {
                effects.push(Effect::Store { tag: slot.tag, pattern: slot.pattern.clone(), deliver });
            }
            Err(refusal) => self.refuse_delivery(id, refusal, effects),
        }
    }

    /// The slot that it is for, when it may be stored there.
    fn judge_delivery<'c>(
        &self,
        catalog: &'c Catalog,
        deliver: &Deliver,
        now: Instant,
    ) -> Result<&'c Slot, Refusal> {
        let Deliver { component, slot, version, .. } = deliver;
        if let Some(reason) = self.too_old(catalog) {
            return Err(Refusal::verdict(reason));
        }
        let held = self.held.get(&(component.clone(), slot.clone())).copied().flatten();
        let Some(slot) = catalog.manifests.get(component).and_then(|manifest| manifest.slot(slot)) else {
            return Err(Refusal::verdict(format!("the manifest has no slot {component}/{slot}")));
        };
        if slot.tag == Tag::ClientSupplied {
            return Err(Refusal::verdict(
                "this slot is client-supplied: the board must not have a value for it",
            ));
        }
        if deliver.sealed.len() > MAX_LEN + SEALED_EXTRA {
            return Err(Refusal::verdict("the value is larger than 16 KiB"));
        }
        if *version == 0 {
            return Err(Refusal::verdict("versions of secrets begin with 1"));
        }
        if let Some(held) = held.filter(|held| held > version) {
            return Err(Refusal::verdict(format!("version {held} is held already; {version} is older")));
        }
        if self.board_now(now).is_some_and(|now| now > deliver.expires) {
            return Err(Refusal::passing("the delivery has expired"));
        }
        Ok(slot)
    }

    /// Not remembered: whoever delivers it again wants it judged again.
    pub(super) fn refuse_delivery(
        &self,
        delivery_id: DeliveryId,
        refusal: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        let Refusal { reason, passing } = refusal;
        effects.push(Effect::Report(ReportBody::DeliveryRefused { delivery_id, reason, passing }));
    }

    pub(super) fn stored(
        &mut self,
        deliver: Deliver,
        result: Result<Receipt, Refusal>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(receipt) => {
                self.received.insert(deliver.delivery_id);
                self.held.insert((deliver.component, deliver.slot), Some(deliver.version));
                effects.extend([Effect::Report(ReportBody::Receipt(receipt)), Effect::Probe]);
            }
            Err(refusal) => self.refuse_delivery(deliver.delivery_id, refusal, effects),
        }
    }
}
