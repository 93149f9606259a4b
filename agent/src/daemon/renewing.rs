//! Renewing the certificate while the agent runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::protocol::enroll::Enrolled;
use shared::random::{self, Random};
use shared::time::Timestamp;

use super::{Daemon, DaemonError, Happened};
use crate::config::Identity;
use crate::renew::{self, RenewError};

/// Between two looks at the clock. A Mac that slept through the time looks when it wakes.
pub const LOOK: Duration = Duration::from_secs(20);
const SOONEST: Duration = Duration::from_secs(30);
const LATEST: Duration = Duration::from_secs(3600);
/// The board says: this device is none of mine any more, or a consultant has to confirm first.
const REFUSED: u16 = 403;
const CONFLICT: u16 = 409;

pub struct Renewal {
    due: Timestamp,
    running: bool,
    failures: u32,
}

impl Renewal {
    pub fn new(identity: &Identity, random: &dyn Random) -> Self {
        let chance = u64::from_be_bytes(random::bytes(random));
        let due = renew::due(&identity.certificate, identity.not_after, chance);
        Self { due, running: false, failures: 0 }
    }

    /// After a failure: sooner at first, and sooner again for what a person may decide any minute.
    fn wait(&mut self, error: &RenewError, chance: u64) -> Duration {
        self.failures += 1;
        let longest = match error.status() {
            Some(CONFLICT) => SOONEST,
            Some(REFUSED) => LATEST,
            Some(_) | None => SOONEST.saturating_mul(1 << self.failures.clamp(1, 8)).min(LATEST),
        };
        let span = u64::try_from((longest / 2).as_millis()).unwrap_or(0);
        longest / 2 + Duration::from_millis(chance % span.saturating_add(1))
    }
}

impl Daemon {
    pub(super) fn renew_in_time(&mut self) {
        // The board's time counts for more than that of a machine whose battery was empty.
        let now = self.engine.board_now(Instant::now()).unwrap_or_else(|| self.clock.now());
        if self.renewal.running || now < self.renewal.due {
            return;
        }
        self.renewal.running = true;
        let (identity, context) = (Arc::clone(&self.identity), self.context.clone());
        let (happened, in_use) = (self.happened.clone(), Arc::clone(&self.in_use));
        tokio::spawn(async move {
            let result = match context.vault.keys() {
                Ok(Some(keys)) => renew::renew(&identity, &keys, now).await,
                Ok(None) | Err(_) => Err(RenewError::Sign),
            };
            // Only a stopping daemon doesn't listen.
            let _ = happened.send(Happened::Renewed(result, in_use.write_owned().await)).await;
        });
    }

    /// The board turned the certificate down again and again, so it is time, whatever the clock here says. A renewal that
    /// failed has its own time.
    pub(super) fn certificate_refused(&mut self) {
        if self.renewal.failures == 0 {
            self.renewal.due = Timestamp::from_micros(0);
            self.renew_in_time();
        }
    }

    pub(super) fn renewed(&mut self, result: Result<Enrolled, RenewError>) -> Result<(), DaemonError> {
        self.renewal.running = false;
        let trouble = match result {
            Ok(enrolled) => {
                let mut identity = Identity::clone(&self.identity);
                identity.certificate = enrolled.certificate;
                identity.not_after = enrolled.not_after;
                // On disk before it is shown: its first use retires the old one.
                identity.save(&self.paths)?;
                tracing::info!(until = %identity.not_after, "the certificate was renewed");
                self.renewal = Renewal::new(&identity, &*self.random);
                self.board.send_replace(renew::board(&identity, &self.keys)?);
                self.identity = Arc::new(identity);
                None
            }
            Err(error) => {
                let chance = u64::from_be_bytes(random::bytes(&*self.random));
                let wait = self.renewal.wait(&error, chance);
                let now = self.engine.board_now(Instant::now()).unwrap_or_else(|| self.clock.now());
                self.renewal.due = now.after(wait);
                tracing::warn!(%error, again_in_s = wait.as_secs(), "the certificate was not renewed");
                Some(error.to_string())
            }
        };
        if self.live.renewal != trouble {
            self.live.renewal = trouble;
            self.save_live();
        }
        Ok(())
    }
}
