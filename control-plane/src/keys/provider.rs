//! Root-key providers wrap and unwrap the root key. `file:PATH` holds a key-encryption key of 32 bytes in a 0600 file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use shared::random::{self, Random};
use shared::secret::Secret;

use super::Key;
use crate::aead;

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("{0} is not a root-key provider: this board knows file:PATH")]
    Unknown(String),
    #[error("the root-key file {path} can't be used: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the root-key file {0} can be read by others: run `chmod 600` on it")]
    Mode(PathBuf),
    #[error("the root-key file {0} doesn't hold 32 bytes: it is not a root-key file, or it was cut")]
    Length(PathBuf),
    #[error("the provider's key doesn't open the root key of this database")]
    Unwrap,
}

/// `file:PATH`.
#[derive(Debug)]
pub struct FileProvider {
    path: PathBuf,
    key: Key,
}

impl FileProvider {
    /// The path behind a `file:` address.
    pub fn path_of(uri: &str) -> Result<PathBuf, ProviderError> {
        uri.strip_prefix("file:").map(PathBuf::from).ok_or_else(|| ProviderError::Unknown(uri.to_owned()))
    }

    pub fn open(path: &Path) -> Result<Self, ProviderError> {
        let fail = |error| ProviderError::File { path: path.to_owned(), error };
        let file = File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.permissions().mode() & 0o077 != 0 {
            return Err(ProviderError::Mode(path.to_owned()));
        }
        let mut bytes = Vec::with_capacity(33);
        file.take(33).read_to_end(&mut bytes).map_err(fail)?;
        let bytes = Secret::new(bytes);
        let key = bytes.expose().as_slice().try_into().map_err(|_| ProviderError::Length(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), key: Secret::new(key) })
    }

    /// Makes the key file. One that is there already is never overwritten.
    pub fn create(path: &Path, random: &dyn Random) -> Result<Self, ProviderError> {
        let fail = |error| ProviderError::File { path: path.to_owned(), error };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let key: Key = Secret::new(random::bytes(random));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
        file.write_all(key.expose()).and_then(|()| file.sync_all()).map_err(fail)?;
        Ok(Self { path: path.to_owned(), key })
    }

    pub fn uri(&self) -> String {
        format!("file:{}", self.path.display())
    }

    pub fn wrap(&self, version: u32, root: &Key, random: &dyn Random) -> Result<Vec<u8>, ProviderError> {
        aead::seal(&self.key, &aad(version), root.expose(), random).map_err(|_| ProviderError::Unwrap)
    }

    pub fn unwrap(&self, version: u32, wrapped: &[u8]) -> Result<Key, ProviderError> {
        let root = aead::open(&self.key, &aad(version), wrapped).map_err(|_| ProviderError::Unwrap)?;
        root.expose().as_slice().try_into().map(Secret::new).map_err(|_| ProviderError::Unwrap)
    }
}

fn aad(version: u32) -> Vec<u8> {
    shared::crypto::ByteString::labelled("board/root-wrap/v1").u32(version).finish()
}
