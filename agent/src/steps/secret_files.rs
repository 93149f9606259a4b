//! Secrets as files, for tools that insist: 0600, in a 0700 folder of the attempt, deleted with it.

use std::fs;
use std::io;
use std::path::PathBuf;

use shared::ids::AttemptId;
use shared::secret::Secret;

use super::environment::give_to;
use crate::config::{ManagedUser, Paths};
use crate::files;

pub struct Folder {
    path: PathBuf,
    user: ManagedUser,
    made: bool,
}

impl Folder {
    /// Nothing is made until something is added.
    pub fn new(paths: &Paths, attempt: AttemptId, user: &ManagedUser) -> Self {
        Self { path: paths.attempts().join(attempt.to_string()), user: user.clone(), made: false }
    }

    pub fn add(&mut self, slot: &str, value: &Secret<Vec<u8>>) -> io::Result<PathBuf> {
        if slot.contains(['/', '.']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the key of a slot"));
        }
        if !self.made {
            files::folder(&self.path, 0o700)?;
            self.made = true;
        }
        let path = self.path.join(slot);
        files::write_atomic(&path, value.expose(), 0o600)?;
        give_to(&path, &self.user)?;
        give_to(&self.path, &self.user)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::error!(path = %self.path.display(), %error, "the folder of an attempt's secrets can't be removed");
        }
    }
}

/// Removes what a killed agent left behind.
pub fn sweep(paths: &Paths) -> io::Result<()> {
    let folder = paths.attempts();
    if folder.exists() {
        for entry in fs::read_dir(&folder)? {
            fs::remove_dir_all(entry?.path())?;
        }
    }
    Ok(())
}
