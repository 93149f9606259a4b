//! Whether a sealed paste may be stored: only in a client-supplied slot of this device's own scope, and in time. Its tag
//! comes from the signed manifest. What was sent before, the journal knows.

use std::time::{Duration, Instant};

use shared::catalog::{Slot, Tag};
use shared::crypto::SEALED_EXTRA;
use shared::protocol::link::{Paste, Pasted};
use shared::secret::MAX_LEN;

use super::{Effect, Engine};

/// Nobody needs longer between sealing and storing. A paste that says so wants to be kept by somebody.
const LONGEST: Duration = Duration::from_secs(600);

impl Engine {
    pub(super) fn paste(&self, paste: Paste, now: Instant, effects: &mut Vec<Effect>) {
        match self.judge_paste(&paste, now) {
            Ok(slot) => effects.push(Effect::StorePaste { slot: Box::new(slot.clone()), paste }),
            Err(reason) => effects
                .push(Effect::TellPasted(Pasted { delivery_id: paste.delivery_id, refused: Some(reason) })),
        }
    }

    fn judge_paste(&self, paste: &Paste, now: Instant) -> Result<&Slot, String> {
        let key = format!("{}/{}", paste.component, paste.slot);
        let digest = self.scope.bundle_digest.as_ref();
        let catalog = digest.and_then(|digest| self.catalogs.get(digest)).ok_or(
            "the agent has no catalog yet, so it doesn't know this slot. Nothing was changed; try again in a minute",
        )?;
        if let Some(reason) = self.too_old(catalog) {
            return Err(reason);
        }
        let slot = catalog
            .of_scope(&self.scope.components, self.machine.platform)
            .find(|manifest| manifest.key == paste.component)
            .and_then(|manifest| manifest.slot(&paste.slot))
            .ok_or_else(|| format!("this device's scope has no slot {key}. Nothing was changed"))?;
        if slot.tag != Tag::ClientSupplied {
            return Err(format!("{key}: this one is delivered by the board, and never pasted"));
        }
        if paste.sealed.len() > MAX_LEN + SEALED_EXTRA {
            return Err("the value is larger than 16 KiB. Nothing was changed".to_owned());
        }
        let Some(board_now) = self.board_now(now) else {
            return Err("the board hasn't told its time yet. Nothing was changed; try again".to_owned());
        };
        if board_now > paste.expires {
            return Err("it came too late: it was sealed for a time that is over. Nothing was changed; paste it again"
                .to_owned());
        }
        if paste.expires > board_now.after(LONGEST) {
            return Err(
                "it is good for longer than a paste may be. Nothing was changed; paste it again".to_owned()
            );
        }
        Ok(slot)
    }
}
