//! Keys that must not work any more: of clients whose engagement ended, and of everybody while the board is frozen.

use std::collections::HashMap;
use std::time::Duration;

use shared::ids::ClientId;
use shared::time::Timestamp;

use super::make::job;
use super::{ProviderError, disable_for, store};
use crate::app::App;
use crate::freeze;

/// After one that couldn't be disabled: each try has an entry of its own.
const AGAIN: Duration = Duration::from_secs(600);

/// Which clients' keys could not be disabled, and when that is tried again.
#[derive(Debug, Default)]
pub(super) struct Ending {
    later: HashMap<ClientId, Timestamp>,
}

impl Ending {
    /// Disables what is to be disabled now. What OpenRouter refuses holds up nobody else's.
    pub async fn look(&mut self, app: &App) -> Result<(), ProviderError> {
        let mut tx = app.db.read().await?;
        let everybody = freeze::is_on(&mut tx).await?;
        let clients = store::to_end(&mut tx, everybody).await?;
        drop(tx);
        let now = app.now();
        self.later.retain(|client, again| *again > now && clients.contains(client));
        for client_id in clients {
            if self.later.contains_key(&client_id) {
                continue;
            }
            if let Err(error) = disable_for(app, job(), client_id).await {
                tracing::error!(%client_id, %error, "a client's key at OpenRouter could not be disabled: end it there");
                self.later.insert(client_id, now.after(AGAIN));
            }
        }
        Ok(())
    }
}
