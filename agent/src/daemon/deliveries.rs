//! Values on their way into the vault. Opening a delivery: decrypt, check, write, read back, sign. What a person pasted
//! here was checked by the broker; what one sealed elsewhere is checked here.

use rcgen::SigningKey as _;
use shared::catalog::{Slot, Tag};
use shared::crypto::{DeliveryContext, open_delivery, open_paste};
use shared::protocol::link::{Deliver, Paste as SealedPaste, Receipt};
use shared::secret::Secret;

use super::{Daemon, DaemonError};
use crate::broker::Paste;
use crate::engine::{Event, Refusal};
use crate::journal::PasteNote;
use crate::slots;

impl Daemon {
    /// The reason of a refusal never shows anything of the value.
    pub(super) fn store(
        &mut self,
        deliver: &Deliver,
        tag: Tag,
        pattern: Option<&str>,
    ) -> Result<Receipt, Refusal> {
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
            .map_err(|error| Refusal::verdict(format!("the delivery can't be opened: {error}")))?;
        slots::check_value(pattern, value.expose()).map_err(|bad| Refusal::verdict(bad.to_string()))?;
        self.memory.forget(&deliver.component).map_err(|error| Refusal::passing(error.to_string()))?;
        self.context
            .vault
            .write(&deliver.component, &deliver.slot, deliver.version, &value)
            .map_err(|error| Refusal { reason: error.to_string(), passing: error.is_passing() })?;
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
            self.keys.tls.sign(&message).map_err(|_| Refusal::passing("the receipt can't be signed"))?;
        tracing::info!(component = %deliver.component, slot = %deliver.slot, version = deliver.version, "a secret was delivered");
        Ok(receipt)
    }

    /// The board hears of it at once.
    pub(super) fn pasted(&mut self, paste: Paste) -> Result<(), DaemonError> {
        if !paste.claim() {
            return Ok(());
        }
        let Paste { component, slot, value, written, .. } = paste;
        let result = self.write_pasted(component, slot, &value)?;
        // Whoever pasted may be gone.
        let _ = written.send(result);
        Ok(())
    }

    /// What a consultant sealed to this device; `slot` is the signed manifest's, which the engine found fit for it. A
    /// refusal never shows anything of the value.
    pub(super) fn store_paste(
        &mut self,
        paste: &SealedPaste,
        slot: &Slot,
    ) -> Result<Result<(), String>, DaemonError> {
        let context = DeliveryContext {
            client_id: self.identity.client_id,
            device_id: self.identity.device_id,
            component_key: &paste.component,
            slot_key: &paste.slot,
            tag: slot.tag,
            version: 0,
            delivery_id: paste.delivery_id,
            expires: paste.expires,
        };
        let Ok(value) = open_paste(&self.keys.sealing, &context, &paste.sealed) else {
            return Ok(Err(
                "it can't be opened: it was sealed for another device, client or slot, or changed on the \
                           way. Nothing was changed"
                    .to_owned(),
            ));
        };
        if let Err(unfit) = slots::check_entered(&paste.component, slot, value.expose()) {
            return Ok(Err(unfit.to_string()));
        }
        let (component, slot) = (paste.component.clone(), paste.slot.clone());
        let note = PasteNote { at: self.clock.now(), component: component.clone(), slot: slot.clone() };
        if !self.journal.first_paste(paste.delivery_id, &note)? {
            return Ok(Err(
                "this paste came before; it is good for one time only. Nothing was changed".to_owned()
            ));
        }
        self.write_pasted(component, slot, &value)
    }

    fn write_pasted(
        &mut self,
        component: String,
        slot: String,
        value: &Secret<Vec<u8>>,
    ) -> Result<Result<(), String>, DaemonError> {
        let result = match self.memory.forget(&component) {
            Ok(()) => {
                let written = self.context.vault.write_pasted(&component, &slot, value);
                written.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if result.is_ok() {
            tracing::info!(component, slot, "a secret was pasted");
            self.engine_event(Event::Pasted { component, slot })?;
        }
        Ok(result)
    }
}
