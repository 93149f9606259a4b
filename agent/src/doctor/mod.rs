//! `board-agent doctor`: what stands between this device and an agent that does its work, a line each with what was seen
//! and what to do about it.
//!
//! Nothing is changed but one item of the store, which is written, read back and deleted; the certificate is not shown
//! to the board, because a look must not count as its use. To add a check: a function that returns [`Finding`]s, called
//! in [`examine`], and a test that makes it fail.

mod device;
mod service;
mod way;

use std::sync::Arc;

use nix::unistd::Uid;
pub use shared::doctor::{Finding, Report, State};
use shared::random::Random;
use shared::time::Clock;

use crate::config::{ConfigError, Identity, Paths};
use crate::install::System;
use crate::journal::{self, JournalError};
use crate::status::Live;
use crate::tls::{Pin, Pins};

/// What is examined, and with what.
pub struct Patient<'a> {
    pub paths: Paths,
    /// Before it has joined: which board it is to join.
    pub board: Option<String>,
    /// SHA-256 of that board's CA key, in hex. Without it who answers at another board than the joined one is only shown.
    pub pin: Option<String>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub system: &'a mut dyn System,
}

/// Makes every check that makes sense: a device that has not joined has no certificate, and where no connection comes
/// about there is no certificate of the board to look at.
pub async fn examine(patient: &mut Patient<'_>) -> Report {
    let mut findings = Vec::new();
    let identity = match Identity::load(&patient.paths) {
        Ok(identity) => {
            findings.push(Finding::ok(
                "joined",
                format!("device {} of {}", identity.device_id, identity.client_name),
            ));
            Some(identity)
        }
        Err(error) => {
            findings.push(not_joined(&error, patient.board.is_some()));
            None
        }
    };
    let board = patient.board.clone().or_else(|| identity.as_ref().map(|identity| identity.board.clone()));
    let joined = identity.as_ref().filter(|_| patient.board.is_none());
    let pins = match (&patient.pin, joined) {
        (Some(pin), _) => Some(pin.parse::<Pin>().map(Pins::from)),
        (None, Some(identity)) => Some(identity.pins()),
        (None, None) => None,
    };
    if let Some(board) = board {
        findings.extend(way::look(&board, pins, patient.clock.now()).await);
    }
    let live = Live::load(&patient.paths);
    let folders = identity.as_ref().map(|identity| device::folders(&patient.paths, identity.dev));
    // Root opens nothing that others could have put there: a link leads anywhere.
    let opens = !Uid::effective().is_root() || folders.as_ref().is_some_and(|found| found.state == State::Ok);
    let journal =
        (opens && patient.paths.journal().exists()).then(|| journal::peek(&patient.paths.journal()));
    if let Some(identity) = &identity {
        findings.extend(device::identity(identity, &live, patient.clock.now()));
        findings.extend(folders);
        if opens {
            findings.extend(device::look(patient, identity, journal.as_ref()));
        }
    }
    findings.push(device::disk(patient.paths.data()));
    let runs = matches!(journal, Some(Err(JournalError::InUse(_))));
    findings.extend(service::look(patient, identity.as_ref(), &live, runs));
    Report { findings }
}

fn not_joined(error: &ConfigError, wants_to: bool) -> Finding {
    let check = "joined";
    match error {
        ConfigError::NotJoined { path } if wants_to => {
            Finding::ok(check, format!("not yet: there is no {}", path.display()))
        }
        ConfigError::NotJoined { path } => Finding::problem(
            check,
            format!("this device has not joined a board: there is no {}", path.display()),
            "Join with the command that the client's page shows. `board-agent doctor --board URL --pin HEX` looks at the way to a board before that.",
        ),
        ConfigError::File { error: io, .. } if io.kind() == std::io::ErrorKind::PermissionDenied => {
            Finding::problem(check, error.to_string(), "Only root may look: `sudo board-agent doctor`.")
        }
        ConfigError::File { .. }
        | ConfigError::Content { .. }
        | ConfigError::PublisherKey { .. }
        | ConfigError::Keyring(_)
        | ConfigError::PrivateKey { .. }
        | ConfigError::NoUser(_) => Finding::problem(
            check,
            error.to_string(),
            "The file is damaged. Join again with the command that the client's page shows: the device keeps its history on the board.",
        ),
    }
}
