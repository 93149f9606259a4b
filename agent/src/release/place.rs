//! Where the program lies, and the two beside it: the one that is to take its place, and the one that it took it from. Each
//! move is one rename: there is a whole program at every moment.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use sha2::{Digest as _, Sha256};
use shared::crypto::hex;

use crate::trust::{self, TrustError};

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} is not the program that was kept: expected SHA-256 {expected}, got {got}")]
    Other { path: PathBuf, expected: String, got: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    program: PathBuf,
}

impl Place {
    /// Of a program that runs: its path without links. What root runs must be root's from the top.
    pub fn of(program: &Path) -> Result<Self, PlaceError> {
        if Uid::effective().is_root() {
            return Ok(Self::at(trust::check(program, trust::ROOT, Path::new("/"))?));
        }
        let program =
            program.canonicalize().map_err(|error| PlaceError::Io { path: program.to_owned(), error })?;
        Ok(Self::at(program))
    }

    pub fn at(program: PathBuf) -> Self {
        Self { program }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What is to take its place.
    pub fn fresh(&self) -> PathBuf {
        self.beside("new")
    }

    /// The program that ran before.
    pub fn previous(&self) -> PathBuf {
        self.beside("previous")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.program.file_name().unwrap_or_default());
        name.push(".");
        name.push(ending);
        self.program.with_file_name(name)
    }

    /// An empty file for the new program, which nobody can execute.
    pub fn create_fresh(&self) -> Result<File, PlaceError> {
        let path = self.fresh();
        let created = remove(&path)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path));
        created.map_err(|error| PlaceError::Io { path, error })
    }

    pub fn remove_fresh(&self) {
        let _ = fs::remove_file(self.fresh());
    }

    /// Owner and mode of the old program for the new one, after which it can be executed.
    pub fn dress_fresh(&self) -> Result<(), PlaceError> {
        let fresh = self.fresh();
        let dressed = || {
            let old = fs::metadata(&self.program)?;
            std::os::unix::fs::chown(&fresh, Some(old.uid()), Some(old.gid()))?;
            fs::set_permissions(&fresh, Permissions::from_mode(old.mode() & 0o7777))?;
            File::open(&fresh)?.sync_all()
        };
        dressed().map_err(|error| PlaceError::Io { path: fresh.clone(), error })
    }

    /// Keeps the old program under its second name; gives its SHA-256.
    pub fn keep_previous(&self) -> Result<String, PlaceError> {
        let (previous, half) = (self.previous(), self.beside("previous.new"));
        let keep = || {
            remove(&half)?;
            fs::hard_link(&self.program, &half)?;
            fs::rename(&half, &previous)?;
            self.sync_folder()?;
            digest(&previous)
        };
        keep().map_err(|error| PlaceError::Io { path: previous.clone(), error })
    }

    /// The new program takes the old one's place, when it still is what was verified.
    pub fn exchange(&self, sha256: &str) -> Result<(), PlaceError> {
        self.put(&self.fresh(), sha256)
    }

    /// The old program is where it was.
    pub fn put_back(&self, sha256: &str) -> Result<(), PlaceError> {
        // A kill between the rename and the note of it.
        if !self.previous().exists() && digest(&self.program).is_ok_and(|got| got == sha256) {
            return Ok(());
        }
        self.put(&self.previous(), sha256)
    }

    fn put(&self, from: &Path, sha256: &str) -> Result<(), PlaceError> {
        let io = |error| PlaceError::Io { path: from.to_owned(), error };
        let got = digest(from).map_err(io)?;
        if got != sha256 {
            return Err(PlaceError::Other { path: from.to_owned(), expected: sha256.to_owned(), got });
        }
        fs::rename(from, &self.program).and_then(|()| self.sync_folder()).map_err(io)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.program.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// SHA-256 of a file, in hex. A link is not followed.
pub fn digest(path: &Path) -> io::Result<String> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}
