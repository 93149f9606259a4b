//! Root-key providers wrap and unwrap the root key. `file:PATH` and `keychain:NAME` each hold a key-encryption key of 32
//! bytes: in a 0600 file, or as an item of a Mac's System keychain.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use shared::keychain::{self, Item, Keychain, KeychainError};
use shared::random::{self, Random};
use shared::secret::Secret;

use super::Key;
use crate::aead;

/// The service of our items in a keychain.
const SERVICE: &str = "board root key";

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("{0} is not a root-key provider: this board knows file:PATH and, on macOS, keychain:NAME")]
    Unknown(String),
    #[error("the root-key file {path} can't be used: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the root-key file {0} can be read by others: run `chmod 600` on it")]
    Mode(PathBuf),
    #[error("{0} doesn't hold 32 bytes: it is not a root key's, or it was cut")]
    Length(Source),
    #[error("{source_uri} can't be used: {error}")]
    Keychain { source_uri: Source, error: KeychainError },
    #[error("there is no {0}: name the provider that this board was made with")]
    Missing(Source),
    #[error("{0} is there already, and is not overwritten")]
    Exists(Source),
    #[error("the provider's key doesn't open the root key of this database")]
    Unwrap,
}

/// Where a provider's key lies; as text, the provider's URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Keychain(Item),
}

impl FromStr for Source {
    type Err = ProviderError;

    fn from_str(uri: &str) -> Result<Self, ProviderError> {
        let unknown = || ProviderError::Unknown(uri.to_owned());
        match uri.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("keychain", name)) => Item::new(SERVICE, name).map(Self::Keychain).map_err(|_| unknown()),
            Some(_) | None => Err(unknown()),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Keychain(item) => write!(f, "keychain:{}", item.account()),
        }
    }
}

impl Source {
    /// The file, when it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Keychain(_) => None,
        }
    }
}

#[derive(Debug)]
pub struct Provider {
    source: Source,
    key: Key,
}

impl Provider {
    pub fn open(source: &Source) -> Result<Self, ProviderError> {
        match source {
            Source::File(path) => open_file(source, path),
            Source::Keychain(item) => open_item(source, item, &*system(source)?),
        }
    }

    /// Makes the key. One that is there already is never overwritten.
    pub fn create(source: &Source, random: &dyn Random) -> Result<Self, ProviderError> {
        match source {
            Source::File(path) => create_file(source, path, random),
            Source::Keychain(item) => create_item(source, item, &*system(source)?, random),
        }
    }

    /// Opens the key, or makes it when there is none.
    pub fn open_or_create(source: &Source, random: &dyn Random) -> Result<Self, ProviderError> {
        match Self::open(source) {
            Err(ProviderError::Missing(_)) => Self::create(source, random),
            Err(ProviderError::File { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::create(source, random)
            }
            opened => opened,
        }
    }

    pub fn uri(&self) -> String {
        self.source.to_string()
    }

    pub fn wrap(&self, version: u32, root: &Key, random: &dyn Random) -> Result<Vec<u8>, ProviderError> {
        aead::seal(&self.key, &aad(version), root.expose(), random).map_err(|_| ProviderError::Unwrap)
    }

    pub fn unwrap(&self, version: u32, wrapped: &[u8]) -> Result<Key, ProviderError> {
        let root = aead::open(&self.key, &aad(version), wrapped).map_err(|_| ProviderError::Unwrap)?;
        root.expose().as_slice().try_into().map(Secret::new).map_err(|_| ProviderError::Unwrap)
    }
}

fn open_file(source: &Source, path: &Path) -> Result<Provider, ProviderError> {
    let fail = |error| ProviderError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.permissions().mode() & 0o077 != 0 {
        return Err(ProviderError::Mode(path.to_owned()));
    }
    let mut bytes = Vec::with_capacity(33);
    file.take(33).read_to_end(&mut bytes).map_err(fail)?;
    with_key(source, &Secret::new(bytes))
}

fn create_file(source: &Source, path: &Path, random: &dyn Random) -> Result<Provider, ProviderError> {
    let fail = |error| ProviderError::File { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let key: Key = Secret::new(random::bytes(random));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(key.expose()).and_then(|()| file.sync_all()).map_err(fail)?;
    Ok(Provider { source: source.clone(), key })
}

fn system(source: &Source) -> Result<Box<dyn Keychain>, ProviderError> {
    keychain::system().map_err(|error| ProviderError::Keychain { source_uri: source.clone(), error })
}

pub(super) fn open_item(
    source: &Source,
    item: &Item,
    keychain: &dyn Keychain,
) -> Result<Provider, ProviderError> {
    let found = keychain
        .get(item)
        .map_err(|error| ProviderError::Keychain { source_uri: source.clone(), error })?
        .ok_or_else(|| ProviderError::Missing(source.clone()))?;
    with_key(source, &found)
}

pub(super) fn create_item(
    source: &Source,
    item: &Item,
    keychain: &dyn Keychain,
    random: &dyn Random,
) -> Result<Provider, ProviderError> {
    let fail = |error| ProviderError::Keychain { source_uri: source.clone(), error };
    if keychain.get(item).map_err(fail)?.is_some() {
        return Err(ProviderError::Exists(source.clone()));
    }
    let key: Key = Secret::new(random::bytes(random));
    keychain.set(item, &Secret::new(key.expose().to_vec())).map_err(fail)?;
    Ok(Provider { source: source.clone(), key })
}

fn with_key(source: &Source, bytes: &Secret<Vec<u8>>) -> Result<Provider, ProviderError> {
    let key = bytes.expose().as_slice().try_into().map_err(|_| ProviderError::Length(source.clone()))?;
    Ok(Provider { source: source.clone(), key: Secret::new(key) })
}

fn aad(version: u32) -> Vec<u8> {
    shared::crypto::ByteString::labelled("board/root-wrap/v1").u32(version).finish()
}
