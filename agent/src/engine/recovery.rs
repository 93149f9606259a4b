//! Attempts that a kill left unfinished: one after the other, and before anything else runs.

use std::time::Instant;

use shared::protocol::steps::{AttemptEnded, Outcome};

use super::offers::Verdict;
use super::{Effect, Engine};
use crate::journal::Attempt;

impl Engine {
    /// Takes up the next attempt that a kill left unfinished.
    pub(super) fn recover(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.running.is_none() && !self.recovering.is_empty() {
            let attempt = self.recovering.remove(0);
            match self.judge(&attempt.offer, now) {
                Verdict::NeedsBundle => {
                    self.fetch(&attempt.offer.bundle_digest, effects);
                    self.recovering.insert(0, attempt);
                    return;
                }
                Verdict::Refused(reason) | Verdict::NotYet(reason) => {
                    self.interrupted(&attempt, reason, effects)
                }
                Verdict::Fits(fit) => {
                    self.running = Some(attempt.offer.attempt_id);
                    let plan = fit.plan(&attempt.offer, Some(attempt.next_chunk));
                    effects.push(Effect::Start(Box::new(plan)));
                }
            }
        }
    }

    pub(super) fn interrupted(&mut self, attempt: &Attempt, reason: String, effects: &mut Vec<Effect>) {
        self.end(
            AttemptEnded {
                attempt_id: attempt.offer.attempt_id,
                outcome: Outcome::Interrupted,
                exit_code: None,
                found: format!("the agent was stopped while this ran, and it can't go on: {reason}"),
                duration_ms: 0,
            },
            effects,
        );
    }
}
