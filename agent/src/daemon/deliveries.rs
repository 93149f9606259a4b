//! Opening a delivery: decrypt, check, write, read back, sign.

use rcgen::SigningKey as _;
use regex::bytes::Regex;
use shared::catalog::Tag;
use shared::crypto::{DeliveryContext, open_delivery};
use shared::protocol::link::{Deliver, Receipt};
use shared::secret::MAX_LEN;

use super::Daemon;

impl Daemon {
    /// The reason of a refusal never shows anything of the value.
    pub(super) fn store(
        &self,
        deliver: &Deliver,
        tag: Tag,
        pattern: Option<&str>,
    ) -> Result<Receipt, String> {
        let context = DeliveryContext {
            client_id: self.identity.client_id,
            device_id: self.identity.device_id,
            component_key: &deliver.component,
            slot_key: &deliver.slot,
            tag,
            version: deliver.version,
            delivery_id: deliver.delivery_id,
            expires: deliver.expires,
        };
        let value = open_delivery(&self.keys.sealing, &context, &deliver.sealed)
            .map_err(|error| format!("the delivery can't be opened: {error}"))?;
        if value.expose().len() > MAX_LEN {
            return Err("the value is larger than 16 KiB".to_owned());
        }
        if let Some(pattern) = pattern {
            let pattern = Regex::new(&format!("^(?:{pattern})$"))
                .map_err(|_| "the manifest's pattern can't be understood".to_owned())?;
            if !pattern.is_match(value.expose()) {
                return Err("the value does not fit the slot's pattern".to_owned());
            }
        }
        self.context
            .vault
            .write(&deliver.component, &deliver.slot, deliver.version, &value)
            .map_err(|error| error.to_string())?;
        let mut receipt = Receipt {
            delivery_id: deliver.delivery_id,
            component: deliver.component.clone(),
            slot: deliver.slot.clone(),
            version: deliver.version,
            time: self.clock.now(),
            signature: Vec::new(),
        };
        let message = receipt.signed_bytes(self.identity.board_id, self.identity.device_id);
        receipt.signature =
            self.keys.tls.sign(&message).map_err(|_| "the receipt can't be signed".to_owned())?;
        tracing::info!(component = %deliver.component, slot = %deliver.slot, version = deliver.version, "a secret was delivered");
        Ok(receipt)
    }
}
