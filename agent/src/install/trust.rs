//! What root runs must be root's, from the top of the file system down: whoever can rename a folder above a program
//! can put another one in its place.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub const ROOT: u32 = 0;
const OTHERS_MAY_WRITE: u32 = 0o022;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{path} can't be looked at: {error}")]
    Look { path: PathBuf, error: io::Error },
    #[error(
        "{path} belongs to user {uid}, not to root: its owner could exchange what root runs. Put the program where \
         only root can write, for instance with `sudo install -d /opt/board-agent/bin` and \
         `sudo install -m 755 board-agent /opt/board-agent/bin`, and run it from there"
    )]
    Owner { path: PathBuf, uid: u32 },
    #[error(
        "{path} can be written by others than its owner (mode {mode:04o}): they could exchange what root runs. Put the \
         program where only root can write, for instance with `sudo install -d /opt/board-agent/bin` and \
         `sudo install -m 755 board-agent /opt/board-agent/bin`, and run it from there"
    )]
    Writable { path: PathBuf, mode: u32 },
}

/// The path with its links resolved, if it and everything above it up to `top` belongs to `owner` alone. Access control
/// lists are not looked at.
pub fn check(path: &Path, owner: u32, top: &Path) -> Result<PathBuf, TrustError> {
    let look = |error, path: &Path| TrustError::Look { path: path.to_owned(), error };
    let real = path.canonicalize().map_err(|error| look(error, path))?;
    let top = top.canonicalize().map_err(|error| look(error, top))?;
    for part in real.ancestors().take_while(|part| part.starts_with(&top)) {
        let metadata = part.symlink_metadata().map_err(|error| look(error, part))?;
        if metadata.uid() != owner {
            return Err(TrustError::Owner { path: part.to_owned(), uid: metadata.uid() });
        }
        if metadata.mode() & OTHERS_MAY_WRITE != 0 {
            return Err(TrustError::Writable { path: part.to_owned(), mode: metadata.mode() & 0o7777 });
        }
    }
    Ok(real)
}
