//! All that a request may touch.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use shared::crypto::sha256;
use shared::ids::BoardId;
use shared::random::Random;
use shared::time::{Clock, Timestamp};
use url::Url;

use crate::audit::Watch;
use crate::db::Db;
use crate::jobs::Jobs;
use crate::keys::RootKey;
use crate::links::Links;
use crate::outbound::Outbound;

/// The authority that the agents' listener of this process shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCa {
    /// Counts up with each rotation.
    pub number: i64,
    /// SubjectPublicKeyInfo, in DER.
    pub spki: Vec<u8>,
}

impl ShownCa {
    /// SHA-256 of the SPKI: what devices pin.
    pub fn pin(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub root: RootKey,
    pub board_id: BoardId,
    /// The certificate authority that agents meet here.
    pub shown_ca: RwLock<ShownCa>,
    /// `https://host:port` that agents dial, for the join command.
    pub agents_url: String,
    /// The proxy that speaks TLS before the console: it is believed about who connects to it.
    pub proxy: Option<IpAddr>,
    /// Where browsers find the console: passkeys belong to its name.
    pub console_url: OnceLock<Url>,
    /// What keeps the audit log from being written, as far as anybody noticed.
    pub audit_watch: Watch,
    pub jobs: Jobs,
    /// How requests to providers leave this machine.
    pub outbound: Outbound,
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

    pub fn ca(&self) -> ShownCa {
        self.0.shown_ca.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The listener shows another authority now.
    pub fn show_ca(&self, ca: ShownCa) {
        *self.0.shown_ca.write().unwrap_or_else(PoisonError::into_inner) = ca;
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
