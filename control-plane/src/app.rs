//! All that a request may touch.

use std::net::IpAddr;
use std::sync::Arc;

use shared::ids::BoardId;
use shared::random::Random;
use shared::time::{Clock, Timestamp};

use crate::audit::Watch;
use crate::db::Db;
use crate::jobs::Jobs;
use crate::keys::RootKey;
use crate::links::Links;

#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub root: RootKey,
    pub board_id: BoardId,
    /// SHA-256 of the CA's SPKI, and the SPKI in DER.
    pub ca_pin: [u8; 32],
    pub ca_spki: Vec<u8>,
    /// `https://host:port` that agents dial, for the join command.
    pub agents_url: String,
    /// The proxy that speaks TLS before the console: it is believed about who connects to it.
    pub proxy: Option<IpAddr>,
    /// What keeps the audit log from being written, as far as anybody noticed.
    pub audit_watch: Watch,
    pub jobs: Jobs,
    pub links: Links,
    /// How many days a backup is kept, for what the page says after a purge; `None` when the operator didn't say.
    pub backup_retention_days: Option<u32>,
}

impl App {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Before the app is shared: says how long backups are kept.
    #[must_use]
    pub fn with_backups_kept(mut self, days: Option<u32>) -> Self {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.backup_retention_days = days;
        }
        self
    }

    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

impl std::ops::Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
