//! `board-agent leave`: this device leaves its board.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shared::ids::WipeId;
use shared::protocol::wipe::Wipe;
use shared::random::Random;
use shared::time::Clock;

use crate::broker::{self, Answer, AskError, Request, Wiped};
use crate::config::{ConfigError, Identity, Paths};
use crate::journal::{Journal, JournalError};
use crate::vault::{self, StoreError};
use crate::wipe;

const BETWEEN: Duration = Duration::from_millis(200);
/// How long the board may take to answer with a wipe and to acknowledge its receipt.
const BOARD: Duration = Duration::from_secs(60);
/// How long the daemon may take to end: it lets a step finish that must not be killed.
const DAEMON: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Refused(String),
    #[error(
        "the board was told, and its wipe isn't through after {} seconds. Run the same command again: it goes on where this \
         one stopped. If the board's page shows this device as wiped already, `board-agent leave --offline` does the rest",
        BOARD.as_secs()
    )]
    Patience,
    #[error("the agent doesn't end. Stop its service and run the same command again")]
    StillRuns,
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tells the board, and waits until it has the receipt of the wipe. A device that was wiped already is done at once.
pub fn tell_the_board(paths: &Paths, pasted: bool) -> Result<Wiped, LeaveError> {
    let mut told = false;
    let deadline = Instant::now() + BOARD;
    loop {
        let wiped = wiped(broker::ask(paths, &Request::Wiped)?)?;
        match wiped {
            Some(wiped) if wiped.acknowledged => return Ok(wiped),
            None if !told => {
                expect_done(broker::ask(paths, &Request::Leave { pasted })?)?;
                told = true;
            }
            Some(_) | None => {}
        }
        if Instant::now() > deadline {
            return Err(LeaveError::Patience);
        }
        std::thread::sleep(BETWEEN);
    }
}

fn wiped(answer: Answer) -> Result<Option<Wiped>, LeaveError> {
    if let Answer::Wiped(wiped) = answer {
        return Ok(wiped);
    }
    expect_done(answer)?;
    Err(AskError::Answer.into())
}

fn expect_done(answer: Answer) -> Result<(), LeaveError> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Refused { reason } => Err(LeaveError::Refused(reason)),
        Answer::Environment { .. }
        | Answer::Missing { .. }
        | Answer::Slots(_)
        | Answer::Wiped(_)
        | Answer::Pasted
        | Answer::BadValue { .. } => Err(AskError::Answer.into()),
    }
}

/// Ends the daemon and removes the secrets, the keys and the state. Gives what of the client's stays in the store.
pub fn remove(
    paths: &Paths,
    pasted: bool,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<wipe::Named, LeaveError> {
    let identity = Identity::load(paths)?;
    let vault = vault::open(paths, identity.dev)?;
    match broker::ask(paths, &Request::End) {
        Ok(answer) => expect_done(answer)?,
        Err(AskError::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Its place as well: a service that is started again must find that the device has not joined.
    let journal = wait_for_journal(paths)?;
    let wipe = Wipe { wipe_id: WipeId::new(clock, random), pasted };
    let begun = wipe::plan(&vault, &wipe)?;
    wipe::perform(&vault, paths, &begun)?;
    remove_file(paths.identity())?;
    vault.remove_keys()?;
    drop(journal);
    for file in
        [paths.join(), paths.scope(), paths.status(), paths.slot_checks(), paths.socket(), paths.journal()]
    {
        remove_file(file)?;
    }
    for folder in [paths.bundles(), paths.wrappers(), paths.cache(), paths.attempts(), paths.marks()] {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LeaveError::File { path: folder, error });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(wipe::Named { removed: begun.removed, left: begun.left })
}

/// Free once the daemon has ended; held until the identity is gone.
fn wait_for_journal(paths: &Paths) -> Result<Journal, LeaveError> {
    let deadline = Instant::now() + DAEMON;
    loop {
        match Journal::open(&paths.journal()) {
            Ok(journal) => return Ok(journal),
            Err(JournalError::InUse(_)) if Instant::now() < deadline => std::thread::sleep(BETWEEN),
            Err(JournalError::InUse(_)) => return Err(LeaveError::StillRuns),
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove_file(path: PathBuf) -> Result<(), LeaveError> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LeaveError::File { path, error }),
        Ok(()) | Err(_) => Ok(()),
    }
}
