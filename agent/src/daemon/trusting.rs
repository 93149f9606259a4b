//! A new certificate authority of the board's: kept beside the pinned one, then alone. And new keys of the publisher's and
//! of the agent's releases.

use std::sync::{Arc, PoisonError};

use shared::protocol::link::Refused;
use shared::signing::SignedSuccession;

use super::{Daemon, DaemonError};
use crate::authority::Trust;
use crate::config::{Identity, NextCa};
use crate::engine::Effect;
use crate::keyring::HoldError;
use crate::renew;
use crate::status;
use crate::tls::Pin;

impl Daemon {
    /// Statements about the keys that are believed: each that is signed as it must be is on disk before it counts.
    pub(super) fn succeed(&mut self, statements: &[SignedSuccession]) -> Result<(), DaemonError> {
        let mut changed = false;
        for statement in statements {
            match self.held.accept(&self.paths, statement) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(statement = statement.digest(), "the keys that are believed changed");
                    changed = true;
                }
                Err(HoldError::Kept(error)) => return Err(error.into()),
                Err(HoldError::Refused(error)) => {
                    let reason = format!("statement {}: {error}", statement.digest());
                    self.perform_all(vec![Effect::Refuse(Refused {
                        what: "key succession".to_owned(),
                        reason,
                    })])?;
                }
            }
        }
        if changed {
            self.key_changes += 1;
            self.shelf.trust(self.held.ring.publishers());
            // It may be signed by a key that is retired now; it is back as soon as it verifies.
            self.current.write().unwrap_or_else(PoisonError::into_inner).catalog = None;
            let effects = self.engine.keys_changed();
            self.perform_all(effects)?;
        }
        Ok(())
    }

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
