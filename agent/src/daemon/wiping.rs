//! The end of this device's enrollment: the secrets go, the board gets a signed receipt.
//!
//! What is to go is in the journal before anything is removed, and the receipt after; a daemon that was killed between
//! goes on with it when it starts.

use std::sync::PoisonError;

use rcgen::SigningKey as _;
use shared::protocol::link::{FromAgent, ReportBody};
use shared::protocol::wipe::{Leave, Wipe, WipeReceipt};

use super::{Daemon, DaemonError};
use crate::broker::{Current, LeaveAsked};
use crate::config;
use crate::journal::{Params, WipeBegun};
use crate::wipe;

impl Daemon {
    pub(super) fn go_on_wiping(&mut self) -> Result<(), DaemonError> {
        match self.journal.wipe()? {
            Some(begun) if begun.receipt.is_none() => {
                tracing::warn!(wipe = %begun.wipe.wipe_id, "a wipe was interrupted; going on with it");
                self.perform_wipe(begun)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The same wipe again gets the same receipt.
    pub(super) fn wipe(&mut self, wipe: &Wipe) -> Result<(), DaemonError> {
        let known = self.journal.wipe()?.filter(|begun| begun.wipe.wipe_id == wipe.wipe_id);
        if let Some(receipt) = known.and_then(|begun| begun.receipt) {
            self.journal.record(&[receipt])?;
            return self.pump();
        }
        tracing::warn!(wipe = %wipe.wipe_id, pasted = wipe.pasted, "this device leaves its board: its secrets are removed");
        match wipe::plan(&self.context.vault, wipe) {
            Ok(begun) => {
                self.journal.begin_wipe(&begun)?;
                self.perform_wipe(begun)
            }
            Err(error) => {
                tracing::error!(%error, "the store can't be read; the wipe is tried again with the next link");
                Ok(())
            }
        }
    }

    fn perform_wipe(&mut self, begun: WipeBegun) -> Result<(), DaemonError> {
        if let Err(error) = wipe::perform(&self.context.vault, &self.paths, &begun) {
            tracing::error!(%error, "the secrets can't be removed; this is tried again with the next link");
            return Ok(());
        }
        self.memory.forget_all()?;
        self.last_inventory = None;
        let nothing = config::no_scope();
        config::save_scope(&self.paths, &nothing)?;
        self.scope = nothing;
        self.journal.set_params(&Params::default())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current::default();
        let mut receipt = WipeReceipt {
            wipe_id: begun.wipe.wipe_id,
            removed: begun.removed,
            left: begun.left,
            time: self.clock.now(),
            signature: Vec::new(),
        };
        let message = receipt.signed_bytes(self.identity.board_id, self.identity.device_id);
        receipt.signature = self.keys.tls.sign(&message).map_err(|_| DaemonError::Sign)?;
        let report = self.with_id(ReportBody::Wiped(receipt));
        self.journal.wiped(&report)?;
        self.pump()
    }

    /// A person on the device wants it to leave; the board answers with a wipe.
    pub(super) fn leave(&mut self, asked: LeaveAsked) {
        match asked {
            LeaveAsked::Board { pasted, sent } => {
                let link = self.link.as_ref().filter(|link| link.welcomed);
                let frame = FromAgent::Leave(Leave { pasted });
                // Whoever asked may be gone.
                let _ = sent.send(link.is_some_and(|link| link.sender.try_send(frame).is_ok()));
            }
            LeaveAsked::End => self.over = true,
        }
    }
}
