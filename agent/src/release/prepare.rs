//! A release's program on its way to the disk: it lies there unexecutable until everything about it fits, and then says its
//! own version.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shared::crypto::hex;
use shared::signing::{Release, ReleaseError};

use super::place::{Place, PlaceError};
use crate::http::{self, HttpError};
use crate::platform::{self, PlatformError};

/// A program that is to say its version.
const ANSWER: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A program that lies beside the old one and waits for its moment.
#[derive(Clone, Debug)]
pub struct Ready {
    pub digest: String,
    pub release: Release,
    pub place: Place,
}

#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("it could not be tried out: {0}")]
    Ended(String),
    #[error("the program can't be fetched: {0}")]
    Fetch(#[from] HttpError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the program has other bytes than the release says: expected SHA-256 {expected}, got {got}")]
    OtherProgram { expected: String, got: String },
    #[error("the program has another size than the release says: expected {expected} bytes, got {got}")]
    OtherSize { expected: u64, got: u64 },
    #[error("the program is not signed as the release says: {0}")]
    Team(#[from] PlatformError),
    #[error("the program does not start here, or says another version than {expected}: {said}")]
    Preflight { expected: String, said: String },
}

impl NotReady {
    /// Whether trying the same again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_passing(),
            Self::Release(_)
            | Self::Ended(_)
            | Self::Place(_)
            | Self::OtherProgram { .. }
            | Self::OtherSize { .. }
            | Self::Team(_)
            | Self::Preflight { .. } => false,
        }
    }
}

/// Where a program comes from, piece by piece.
pub trait Source {
    /// Nothing behind the last.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, HttpError>> + Send;
}

impl Source for http::Program {
    async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.chunk().await
    }
}

/// Writes what comes, and looks at it as it comes: never more than the release says.
pub async fn receive(release: &Release, place: &Place, source: &mut impl Source) -> Result<(), NotReady> {
    let io = |error| PlaceError::Io { path: place.fresh(), error };
    let mut file = place.create_fresh()?;
    let (mut hasher, mut got) = (Sha256::new(), 0);
    while let Some(bytes) = source.next().await? {
        got += bytes.len() as u64;
        if got > release.size {
            return Err(NotReady::OtherSize { expected: release.size, got });
        }
        hasher.update(&bytes);
        file.write_all(&bytes).map_err(io)?;
    }
    if got != release.size {
        return Err(NotReady::OtherSize { expected: release.size, got });
    }
    let sum = hex(&hasher.finalize());
    if sum != release.sha256 {
        return Err(NotReady::OtherProgram { expected: release.sha256.clone(), got: sum });
    }
    file.sync_all().map_err(io)?;
    drop(file);
    if let Some(team) = &release.team {
        platform::check_team(&place.fresh(), team)?;
    }
    Ok(())
}

/// Lets the program say its version: one that can't even do that isn't worth a trial.
pub fn preflight(release: &Release, place: &Place) -> Result<(), NotReady> {
    place.dress_fresh()?;
    let expected = format!("board-agent {}", release.version);
    let refused = |said: String| NotReady::Preflight { expected: expected.clone(), said };
    let until = Instant::now() + ANSWER;
    let mut command = Command::new(place.fresh());
    command.arg("--version").env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = loop {
        match command.spawn() {
            Ok(child) => break child,
            // A probe that was started while the file was written holds it open until it becomes its own program.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(refused(error.to_string())),
        }
    };
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(refused(format!("no answer in {} seconds", ANSWER.as_secs())));
            }
            Err(error) => return Err(refused(error.to_string())),
        }
    };
    let output = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
    let said: String = String::from_utf8_lossy(&output.stdout).trim().chars().take(200).collect();
    if !status.success() || said != expected {
        return Err(refused(format!("it ended with {status} and said {said:?}")));
    }
    Ok(())
}
