//! Whether a delivery may be stored. Its tag comes from the signed manifest, never from the frame.

use std::time::Instant;

use shared::catalog::Tag;
use shared::ids::DeliveryId;
use shared::protocol::link::{Deliver, Receipt, ReportBody};
use shared::secret::MAX_LEN;

use super::{Effect, Engine};

/// `BSD1`, encapsulated key and tag around a value.
pub(super) const SEALED_EXTRA: usize = 4 + 32 + 16;

impl Engine {
    pub(super) fn deliver(&mut self, deliver: Deliver, now: Instant, effects: &mut Vec<Effect>) {
        let id = deliver.delivery_id;
        if self.answered.contains(&id) {
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
        let slot = catalog.manifests.get(&deliver.component).and_then(|m| m.slot(&deliver.slot));
        let held = self.held.get(&(deliver.component.clone(), deliver.slot.clone())).copied().flatten();
        let refusal = match slot {
            _ if self.too_old(catalog).is_some() => self.too_old(catalog),
            None => Some(format!("the manifest has no slot {}/{}", deliver.component, deliver.slot)),
            Some(slot) if slot.tag == Tag::ClientSupplied => {
                Some("this slot is client-supplied: the board must not have a value for it".to_owned())
            }
            Some(_) if self.board_now(now).is_some_and(|now| now > deliver.expires) => {
                Some("the delivery has expired".to_owned())
            }
            Some(_) if deliver.sealed.len() > MAX_LEN + SEALED_EXTRA => {
                Some("the value is larger than 16 KiB".to_owned())
            }
            Some(_) if deliver.version == 0 => Some("versions of secrets begin with 1".to_owned()),
            Some(_) => held
                .filter(|held| *held > deliver.version)
                .map(|held| format!("version {held} is held already; {} is older", deliver.version)),
        };
        match (refusal, slot) {
            (None, Some(slot)) => {
                effects.push(Effect::Store { tag: slot.tag, pattern: slot.pattern.clone(), deliver });
            }
            (reason, _) => self.refuse_delivery(id, reason.unwrap_or_default(), effects),
        }
    }

    pub(super) fn refuse_delivery(
        &mut self,
        delivery_id: DeliveryId,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        self.answered.insert(delivery_id);
        effects.push(Effect::Report(ReportBody::DeliveryRefused { delivery_id, reason }));
    }

    pub(super) fn stored(
        &mut self,
        deliver: Deliver,
        result: Result<Receipt, String>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(receipt) => {
                self.answered.insert(deliver.delivery_id);
                self.held.insert((deliver.component, deliver.slot), Some(deliver.version));
                effects.extend([Effect::Report(ReportBody::Receipt(receipt)), Effect::Probe]);
            }
            Err(reason) => self.refuse_delivery(deliver.delivery_id, reason, effects),
        }
    }
}
