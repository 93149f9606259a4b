//! The trial of a new program: until the board answers its hello. It counts its own starts before it does anything else, so
//! that one which ends again and again is known, and a thread watches the time, so that one which hangs is.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use shared::time::Clock;

use super::place::Place;
use super::record::{Record, Trial};
use crate::config::{ConfigError, Paths};
use crate::platform;

/// How long a new program has from each of its starts.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How often it may have been started without proving itself.
pub const ENDS: u32 = 3;
const LOOK: Duration = Duration::from_millis(100);

/// How a start stands to the record.
#[derive(Debug)]
pub enum Begun {
    /// Nothing is on trial.
    Usual,
    OnTrial(OnTrial),
    /// The old program is in its place again: this one must end, and the system starts that one.
    WentBack(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Proven,
    GoingBack,
}

/// This program is new and hasn't proven itself.
#[derive(Clone, Debug)]
pub struct OnTrial {
    paths: Paths,
    pub trial: Trial,
    phase: Arc<Mutex<Phase>>,
}

/// The first thing that a start does, before anything that could fail.
pub fn begin(paths: &Paths, version: &str) -> Result<Begun, ConfigError> {
    let mut record = Record::load(paths)?;
    let Some(mut trial) = record.trial.take() else { return Ok(Begun::Usual) };
    if trial.version != version {
        // The old program, put back; or the new one never came into its place, or somebody installed another since.
        if let Some(reason) = trial.going_back.take() {
            record.fail(trial, reason);
        }
        record.save(paths)?;
        return Ok(Begun::Usual);
    }
    if trial.going_back.is_none() && trial.starts < ENDS {
        trial.starts += 1;
        record.trial = Some(trial.clone());
        if let Err(error) = record.save(paths) {
            // A full disk ends no trial: the time is watched all the same.
            tracing::error!(%error, "this start of a new program can't be counted");
        }
        return Ok(Begun::OnTrial(OnTrial::new(paths, trial)));
    }
    let reason = trial.going_back.clone().unwrap_or_else(|| {
        format!("it was started {ENDS} times and ended each time before the board answered its hello")
    });
    if go_back(paths, &mut trial, &reason) {
        return Ok(Begun::WentBack(reason));
    }
    // A program that may not work is better than none.
    Ok(Begun::OnTrial(OnTrial::new(paths, trial)))
}

/// Puts the old program back; `false` when that can't be done, and is tried again at the next start.
fn go_back(paths: &Paths, trial: &mut Trial, reason: &str) -> bool {
    trial.going_back = Some(reason.to_owned());
    let noted = Record::load(paths).and_then(|mut record| {
        record.trial = Some(trial.clone());
        record.save(paths)
    });
    if let Err(error) = noted {
        tracing::error!(%error, "why the old program is put back can't be written down");
    }
    match Place::at(trial.program.clone()).put_back(&trial.previous) {
        Ok(()) => {
            tracing::error!(
                version = trial.version,
                reason,
                "this program did not come up; the old one is back"
            );
            true
        }
        Err(error) => {
            tracing::error!(%error, "the old program can't be put back; this one goes on");
            false
        }
    }
}

impl OnTrial {
    fn new(paths: &Paths, trial: Trial) -> Self {
        Self { paths: paths.clone(), trial, phase: Arc::new(Mutex::new(Phase::Waiting)) }
    }

    /// Watches the time from now on; `end` is called after the old program is back, and has to end this one.
    pub fn watch(&self, clock: Arc<dyn Clock>, end: impl FnOnce() + Send + 'static) {
        let this = self.clone();
        let began = clock.now();
        thread::spawn(move || {
            // Asleep it could prove nothing.
            let _awake = platform::stay_awake();
            loop {
                if *this.phase() == Phase::Proven {
                    return;
                }
                if clock.now().since(began) >= PATIENCE {
                    break;
                }
                thread::sleep(LOOK);
            }
            let mut phase = this.phase();
            if *phase != Phase::Waiting {
                return;
            }
            let minutes = PATIENCE.as_secs() / 60;
            let reason = format!("the board answered no hello of it within {minutes} minutes");
            if go_back(&this.paths, &mut this.trial.clone(), &reason) {
                *phase = Phase::GoingBack;
                drop(phase);
                end();
            }
        });
    }

    /// The board answered. `false`: too late, the old program is being put back.
    pub fn proven(&self) -> bool {
        let mut phase = self.phase();
        if *phase == Phase::Waiting {
            *phase = Phase::Proven;
        }
        *phase == Phase::Proven
    }

    fn phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
