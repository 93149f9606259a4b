//! A new certificate authority of the board's: kept beside the pinned one, then alone.

use std::sync::Arc;

use super::{Daemon, DaemonError};
use crate::authority::Trust;
use crate::config::{Identity, NextCa};
use crate::renew;
use crate::status;
use crate::tls::Pin;

impl Daemon {
    /// On disk before the board is told; connections from now on believe both.
    pub(super) fn keep_ca(&mut self, next: NextCa) -> Result<(), DaemonError> {
        let mut identity = Identity::clone(&self.identity);
        identity.next_ca = Some(next);
        tracing::info!(
            "the board goes over to a new certificate authority, which the pinned one vouches for"
        );
        self.trust(identity)
    }

    /// The board shows this authority: when it is the next one, the one before is not believed any more.
    pub(super) fn shown(&mut self, ca: &[u8]) -> Result<(), DaemonError> {
        let next = self.identity.next_ca.as_ref().and_then(|next| Pin::of(&next.certificate));
        let Some(pin) = next.filter(|next| Pin::of(ca) == Some(*next)) else { return Ok(()) };
        let mut identity = Identity::clone(&self.identity);
        identity.pin = pin.to_string();
        identity.next_ca = None;
        tracing::info!(
            "the board shows its new certificate authority; the one before is not believed any more"
        );
        self.trust(identity)
    }

    fn trust(&mut self, identity: Identity) -> Result<(), DaemonError> {
        identity.save(&self.paths)?;
        // It names the pinned authority.
        self.live.fingerprint = Some(status::fingerprint(&identity, &self.keys)?.to_string());
        self.save_live();
        let board = renew::board(&identity, &self.keys)?;
        // For the next connection: the one that is up goes on.
        self.board.send_if_modified(|current| {
            *current = board;
            false
        });
        self.engine.trust(Trust::of(&identity));
        self.identity = Arc::new(identity);
        Ok(())
    }
}
