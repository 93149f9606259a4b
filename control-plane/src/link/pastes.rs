//! Who waits for a device's word on a sealed paste that its link carried. The paste itself is gone once it is sent; a
//! waiter hears nothing when the link ends before the word.

use std::collections::BTreeMap;

use shared::ids::DeliveryId;
use shared::protocol::link::{Paste, Pasted, Refused, UNKNOWN_FRAME};
use tokio::sync::oneshot;

use crate::links::Relayed;

/// The word of an agent that doesn't know the frame of a paste.
const TOO_OLD: &str = "its agent is older than sealed pastes. Nothing was changed; update the agent, or paste it on the Mac \
                       with `board-agent paste`";

#[derive(Debug, Default)]
pub struct Waiters(BTreeMap<DeliveryId, oneshot::Sender<Result<(), String>>>);

impl Waiters {
    /// What is to be sent; nothing when this one is on its way already.
    pub fn begin(&mut self, relayed: Relayed) -> Option<Paste> {
        let Relayed { paste, answer } = relayed;
        self.0.retain(|_, waiter| !waiter.is_closed());
        if self.0.contains_key(&paste.delivery_id) {
            let _ = answer.send(Err("this paste is on its way already".to_owned()));
            return None;
        }
        self.0.insert(paste.delivery_id, answer);
        Some(paste)
    }

    pub fn word(&mut self, pasted: Pasted) {
        if let Some(waiter) = self.0.remove(&pasted.delivery_id) {
            // Whoever waited may be gone.
            let _ = waiter.send(pasted.refused.map_or(Ok(()), Err));
        }
    }

    /// The agent refused a frame, which may have been a paste.
    pub fn refused(&mut self, refused: &Refused) {
        if refused.what == UNKNOWN_FRAME {
            for (_, waiter) in std::mem::take(&mut self.0) {
                let _ = waiter.send(Err(TOO_OLD.to_owned()));
            }
        }
    }
}
