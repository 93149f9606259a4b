//! How the processes of an attempt are told from all others, whatever sessions and groups its scripts make, and also
//! after the agent that started them was killed.
//!
//! On Linux by a variable in their environment. On macOS the environment of Apple's own programs is hidden, from root
//! too, and asking `ps` for environments would carry everybody's secrets through a pipe; there it is a file of the
//! attempt that they inherited open. Only root can open it, so nobody else can pass for one of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use shared::ids::AttemptId;

use super::{PlatformError, system};
use crate::config::Paths;

#[derive(Clone, Debug)]
pub struct Mark {
    attempt: String,
    file: Option<PathBuf>,
}

impl Mark {
    pub fn of(paths: &Paths, attempt: AttemptId) -> Self {
        let attempt = attempt.to_string();
        let file = system::MARKED_BY_FILE.then(|| paths.marks().join(&attempt));
        Self { attempt, file }
    }

    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Before the first process of the attempt starts.
    pub fn make(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map(drop)
    }

    /// When nothing of the attempt will be looked for any more.
    pub fn remove(&self) {
        if let Some(file) = &self.file {
            // One that is left over is an empty file.
            let _ = std::fs::remove_file(file);
        }
    }

    /// Process ids of whatever there is of the attempt.
    pub fn processes(&self) -> Result<Vec<i32>, PlatformError> {
        system::processes_of_attempt(self)
    }
}

/// This process and all that it starts hold the file open from here on.
pub fn bear(file: &Path) -> io::Result<()> {
    let file = File::open(file)?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    // Never closed: that is the mark.
    let _ = file.into_raw_fd();
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_started_inherits_the_mark() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark { attempt: "an-attempt".to_owned(), file: Some(folder.path().join("an-attempt")) };
        mark.make().unwrap();
        bear(mark.file().unwrap()).unwrap();
        let script = "setsid sh -c 'exec readlink /proc/self/fd/*'";
        let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        let open = String::from_utf8(output.stdout).unwrap();
        assert!(open.lines().any(|line| Path::new(line) == mark.file().unwrap()), "{open}");
        mark.remove();
        assert!(!mark.file().unwrap().exists());
    }
}
