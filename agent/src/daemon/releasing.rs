//! A release of the agent: fetched beside the loop, put in its place when nothing is under way, then this program ends and the
//! system starts the new one. And the new one, when the board has answered it.

use std::time::{Duration, Instant};

use shared::protocol::link::{ReleaseOutcome, ReleaseReport, ReportBody};
use shared::signing::{Arch, SignedRelease};

use super::{Daemon, DaemonError, Happened};
use crate::config::Paths;
use crate::release::{
    NotReady, OnTrial, Own, Place, PlaceError, Ready, Record, Refused, Trial, judge, preflight, receive,
};

/// How often it is looked whether the moment has come.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// After what may pass: a link that broke, a board that has too much to do.
const AGAIN: Duration = Duration::from_secs(300);

pub(super) struct Releasing {
    record: Record,
    on_trial: Option<OnTrial>,
    /// Offered, and neither in its place nor refused.
    offered: Option<SignedRelease>,
    state: State,
}

enum State {
    Nothing,
    Fetching,
    Ready(Ready),
    Again(Instant),
}

impl Releasing {
    pub(super) fn new(paths: &Paths, on_trial: Option<OnTrial>) -> Self {
        let record = Record::load(paths).unwrap_or_else(|error| {
            tracing::error!(%error, "what is known of releases can't be read; it is begun anew");
            Record::default()
        });
        Self { record, on_trial, offered: None, state: State::Nothing }
    }

    /// Digests of the releases that aren't to be offered again.
    pub(super) fn failed(&self) -> Vec<String> {
        self.record.failed.iter().map(|failed| failed.digest.clone()).collect()
    }
}

impl Daemon {
    /// Says what became of the programs before this one.
    pub(super) fn tell_of_failed(&mut self) -> Result<(), DaemonError> {
        let untold: Vec<_> = self.releasing.record.failed.iter().filter(|one| !one.told).cloned().collect();
        for failed in untold {
            let (digest, reason) = (failed.digest, failed.reason);
            self.report_release(digest, ReleaseOutcome::WentBack, reason)?;
        }
        let mut record = self.releasing.record.clone();
        record.failed.iter_mut().for_each(|failed| failed.told = true);
        self.keep_record(record)
    }

    fn keep_record(&mut self, record: Record) -> Result<(), DaemonError> {
        if record != self.releasing.record {
            record.save(&self.paths)?;
            self.releasing.record = record;
        }
        Ok(())
    }

    /// The board answered our hello: what ran before is kept beside, and nothing goes back any more.
    pub(super) fn proven(&mut self) -> Result<(), DaemonError> {
        let Some(on_trial) = self.releasing.on_trial.take() else { return Ok(()) };
        if !on_trial.proven() {
            return Ok(());
        }
        tracing::info!(version = crate::version(), "the new program has proven itself");
        self.report_release(on_trial.trial.digest, ReleaseOutcome::Installed, String::new())?;
        let record = Record { trial: None, ..self.releasing.record.clone() };
        self.keep_record(record)
    }

    pub(super) fn offered_release(&mut self, signed: SignedRelease) -> Result<(), DaemonError> {
        if self.releasing.offered.as_ref() == Some(&signed) {
            return Ok(());
        }
        if matches!(self.releasing.state, State::Fetching) {
            // One at a time; the board offers it again on the next link.
            return Ok(());
        }
        self.releasing.state = State::Nothing;
        match self.judged(&signed) {
            Ok((release, place)) => {
                tracing::info!(version = release.version, "a release of the agent; fetching it");
                self.releasing.offered = Some(signed);
                self.prepare(place);
                Ok(())
            }
            Err(reason) => self.refuse_release(signed.digest(), reason),
        }
    }

    fn judged(&self, signed: &SignedRelease) -> Result<(shared::signing::Release, Place), String> {
        let own = Own { version: crate::version(), platform: self.platform, arch: Arch::current() };
        let (keys, failed) = (self.held.ring.releases(), &self.releasing.record.failed);
        let release = judge(signed, &keys, own, failed).map_err(|error: Refused| error.to_string())?;
        let place =
            Place::of(self.context.launcher.program()).map_err(|error: PlaceError| error.to_string())?;
        Ok((release, place))
    }

    fn prepare(&mut self, place: Place) {
        let Some(signed) = self.releasing.offered.clone() else { return };
        let keys = self.held.ring.releases();
        self.releasing.state = State::Fetching;
        let (door, happened) = (self.door(), self.happened.clone());
        tokio::spawn(async move {
            let digest = signed.digest();
            let preparing = async {
                let release = match signed.verify(&keys) {
                    Ok(release) => release,
                    Err(error) => return Err(NotReady::Release(error)),
                };
                let mut program = door.program(&digest).await?;
                receive(&release, &place, &mut program).await?;
                let (trying, where_to) = (release.clone(), place.clone());
                let tried = tokio::task::spawn_blocking(move || preflight(&trying, &where_to)).await;
                tried.map_err(|error| NotReady::Ended(error.to_string())).flatten()?;
                Ok(Ready { digest: digest.clone(), release, place: place.clone() })
            };
            let result = preparing.await;
            if result.is_err() {
                place.remove_fresh();
            }
            // Only a stopping daemon doesn't listen.
            let _ = happened.send(Happened::Prepared { digest, result }).await;
        });
    }

    pub(super) fn prepared(
        &mut self,
        digest: &str,
        result: Result<Ready, NotReady>,
    ) -> Result<(), DaemonError> {
        match result {
            Ok(ready) => {
                tracing::info!(version = ready.release.version, "the new program is ready");
                self.releasing.state = State::Ready(ready);
                Ok(())
            }
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "the release waits");
                self.releasing.state = State::Again(Instant::now() + AGAIN);
                Ok(())
            }
            Err(error) => self.refuse_release(digest.to_owned(), error.to_string()),
        }
    }

    pub(super) fn has_release(&self) -> bool {
        matches!(self.releasing.state, State::Ready(_) | State::Again(_))
    }

    /// Puts a program that is ready in its place when nothing is under way. `true`: this one has to end.
    pub(super) fn release(&mut self) -> Result<bool, DaemonError> {
        match &self.releasing.state {
            State::Nothing | State::Fetching => Ok(false),
            State::Again(at) if Instant::now() < *at => Ok(false),
            State::Again(_) => {
                let signed = self.releasing.offered.take();
                self.releasing.state = State::Nothing;
                signed.map_or(Ok(()), |signed| self.offered_release(signed))?;
                Ok(false)
            }
            State::Ready(_) if !self.is_idle() => Ok(false),
            State::Ready(ready) => {
                let ready = ready.clone();
                self.exchange(ready)
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.engine.is_idle() && self.steps_running == 0 && self.planning.is_none()
    }

    fn exchange(&mut self, ready: Ready) -> Result<bool, DaemonError> {
        // The keys may be others than when it was offered.
        let signed = self.releasing.offered.clone();
        if let Some(Err(reason)) = signed.as_ref().map(|signed| self.judged(signed)) {
            ready.place.remove_fresh();
            self.refuse_release(ready.digest, reason)?;
            return Ok(false);
        }
        let exchanged = self.try_exchange(&ready);
        match exchanged {
            Ok(()) => {
                tracing::info!(
                    version = ready.release.version,
                    "the new program is in its place; ending for it"
                );
                Ok(true)
            }
            Err(reason) => {
                let record = Record { trial: None, ..self.releasing.record.clone() };
                self.keep_record(record)?;
                ready.place.remove_fresh();
                self.refuse_release(ready.digest, reason)?;
                Ok(false)
            }
        }
    }

    fn try_exchange(&mut self, ready: &Ready) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let previous = ready.place.keep_previous().map_err(|error| words(&error))?;
        let trial = Trial {
            digest: ready.digest.clone(),
            version: ready.release.version.clone(),
            program: ready.place.program().to_owned(),
            previous,
            starts: 0,
            going_back: None,
        };
        let record = Record { trial: Some(trial), ..self.releasing.record.clone() };
        self.keep_record(record).map_err(|error| words(&error))?;
        ready.place.exchange(&ready.release.sha256).map_err(|error| words(&error))
    }

    fn refuse_release(&mut self, digest: String, reason: String) -> Result<(), DaemonError> {
        tracing::warn!(digest, reason, "a release of the agent was refused");
        self.releasing.offered = None;
        self.releasing.state = State::Nothing;
        self.report_release(digest, ReleaseOutcome::Refused, reason)
    }

    fn report_release(
        &mut self,
        digest: String,
        outcome: ReleaseOutcome,
        reason: String,
    ) -> Result<(), DaemonError> {
        self.report(vec![ReportBody::Release(ReleaseReport { digest, outcome, reason })])
    }
}
