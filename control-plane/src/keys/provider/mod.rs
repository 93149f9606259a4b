//! Root-key providers wrap and unwrap the root key, and do nothing else. A URI names one; `ls` of this folder shows the
//! kinds. To add one: a variant of [`Source`], its `FromStr` and `Display`, and a [`Provider`] in a file of its own.
//!
//! What proves who the board is (tokens, access keys) comes from the environment or a file, never from the URI: the URI
//! is stored in the database and shown.

mod aws;
mod credentials;
mod http;
mod local;
#[cfg(test)]
mod tests;
mod vault;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use shared::ids::BoardId;
use shared::keychain::{Item, KeychainError};
use shared::random::Random;
use shared::time::Clock;

pub use aws::KmsKey;
#[cfg(test)]
pub(super) use local::{create_item, open_item};
pub use vault::TransitKey;

use super::Key;

/// The service of our items in a keychain.
const SERVICE: &str = "board root key";

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error(
        "{0} is not a root-key provider: this board knows file:PATH, keychain:NAME (macOS), awskms:KEY[?region=…&endpoint=…] and vault:MOUNT/KEY"
    )]
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
    /// Something in the board's surroundings is missing or wrong; no request was sent.
    #[error("{provider} can't be asked: {what}")]
    Setup { provider: String, what: String },
    #[error(
        "{provider} doesn't answer: {what}. Check that it runs and that this machine reaches it, then try again"
    )]
    Unreachable { provider: String, what: String },
    #[error("{provider} refuses: {what}")]
    Refused { provider: String, what: String },
    #[error("{provider} answers with something that is no answer to this question: {what}")]
    Answer { provider: String, what: String },
    #[error(
        "{0} opens the wrapped key for another board and version too, so it binds nothing: on Vault make the key with derived=true"
    )]
    Unbound(Source),
    #[error("the provider's key doesn't open the root key of this database")]
    Unwrap,
}

/// What a wrapped root key is bound to: unwrapping it for another board or version fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub board_id: BoardId,
    pub version: u32,
}

/// What a provider's answer is, once it comes.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

pub trait Provider: Debug + Send + Sync {
    fn wrap<'a>(&'a self, binding: Binding, root: &'a Key, random: &'a dyn Random) -> Answer<'a, Vec<u8>>;

    /// [`ProviderError::Unwrap`] when it isn't what this provider wrapped for this board and version.
    fn unwrap<'a>(&'a self, binding: Binding, wrapped: &'a [u8]) -> Answer<'a, Key>;
}

type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What providers need of the world: the time, to sign requests with, and the environment.
#[derive(Clone)]
pub struct Outside {
    pub clock: Arc<dyn Clock>,
    variables: Arc<Variables>,
}

impl Outside {
    /// The environment of this process.
    pub fn process(clock: Arc<dyn Clock>) -> Self {
        Self { clock, variables: Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty())) }
    }

    #[cfg(test)]
    pub fn of(clock: Arc<dyn Clock>, variables: &[(&str, &str)]) -> Self {
        let known: std::collections::BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { clock, variables: Arc::new(move |name| known.get(name).cloned()) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name)
    }
}

impl Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside(…)")
    }
}

/// Where a provider's key lies; as text, the provider's URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Keychain(Item),
    AwsKms(Box<KmsKey>),
    Vault(TransitKey),
}

impl FromStr for Source {
    type Err = ProviderError;

    fn from_str(uri: &str) -> Result<Self, ProviderError> {
        let unknown = || ProviderError::Unknown(uri.to_owned());
        match uri.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(absolute(path))),
            Some(("keychain", name)) => Item::new(SERVICE, name).map(Self::Keychain).map_err(|_| unknown()),
            Some(("awskms", rest)) => {
                KmsKey::parse(rest).map(|key| Self::AwsKms(Box::new(key))).ok_or_else(unknown)
            }
            Some(("vault", rest)) => TransitKey::parse(rest).map(Self::Vault).ok_or_else(unknown),
            Some(_) | None => Err(unknown()),
        }
    }
}

/// The database remembers the path, and the board may be started from another folder.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Keychain(item) => write!(f, "keychain:{}", item.account()),
            Self::AwsKms(key) => write!(f, "awskms:{key}"),
            Self::Vault(key) => write!(f, "vault:{key}"),
        }
    }
}

impl Source {
    /// The file, when it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Keychain(_) | Self::AwsKms(_) | Self::Vault(_) => None,
        }
    }

    /// Whether the key stays with somebody else's service.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::AwsKms(_) | Self::Vault(_) => true,
            Self::File(_) | Self::Keychain(_) => false,
        }
    }

    /// The provider, whose key is there already.
    pub fn open(&self, outside: &Outside) -> Result<Box<dyn Provider>, ProviderError> {
        Ok(match self {
            Self::File(path) => Box::new(local::open_file(self, path)?),
            Self::Keychain(item) => Box::new(local::open_item(self, item, &*local::system(self)?)?),
            Self::AwsKms(key) => Box::new(aws::Kms::open(key, outside)?),
            Self::Vault(key) => Box::new(vault::Transit::open(key, outside)?),
        })
    }

    /// The provider; a file or a keychain's item is made when there is none. A key in AWS or Vault has to be there.
    pub fn open_or_create(
        &self,
        outside: &Outside,
        random: &dyn Random,
    ) -> Result<Box<dyn Provider>, ProviderError> {
        match self.open(outside) {
            Err(ProviderError::Missing(_)) => self.create(random),
            Err(ProviderError::File { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                self.create(random)
            }
            opened => opened,
        }
    }

    /// One that is there already is never overwritten.
    pub(super) fn create(&self, random: &dyn Random) -> Result<Box<dyn Provider>, ProviderError> {
        match self {
            Self::File(path) => Ok(Box::new(local::create_file(path, random)?)),
            Self::Keychain(item) => {
                Ok(Box::new(local::create_item(self, item, &*local::system(self)?, random)?))
            }
            Self::AwsKms(_) | Self::Vault(_) => Err(ProviderError::Missing(self.clone())),
        }
    }
}
