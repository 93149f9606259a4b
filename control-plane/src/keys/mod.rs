//! The root key and what is derived from it (`design/security.md` section 1). Keys live in memory only; a row in the
//! database holds each version of the root key, wrapped by its provider.
//!
//! While `board rekey` runs there are two living versions: what is written is written under the newest, what is read
//! names its version. A running board finds a version that it doesn't know by itself ([`RootKey::at`],
//! [`RootKey::write`], [`RootKey::look`]).

mod kept;
mod provider;
mod root;
mod store;
#[cfg(test)]
mod tests;
mod version;

use shared::secret::Secret;

pub use kept::{TOKENS_LIVE, keep};
pub use provider::{Binding, Outside, Provider, ProviderError, Source};
pub use root::RootKey;
pub use version::{NewVersion, RootVersion};

use crate::db::Tx;

/// A 32-byte key for AES-256-GCM or HMAC-SHA-256.
pub type Key = Secret<[u8; 32]>;

/// What a derived key is for. Each has a label of its own, so that no key serves two purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Secrets of the board itself.
    Board,
    CaWrap,
    JoinCode,
    Token,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Board => "board/board-key/v1",
            Self::CaWrap => "board/ca-wrap/v1",
            Self::JoinCode => "board/join-code/v1",
            Self::Token => "board/token/v1",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the database has no root key yet: run `board init`")]
    NotInitialized,
    #[error(
        "the root key from {provider} has fingerprint {got}, but this database was made with {expected}: point --root-key at the right key; nothing was changed"
    )]
    WrongKey { provider: String, expected: String, got: String },
    #[error(
        "the root key (version {version}, fingerprint {fingerprint}) can't be had: {error}. Nothing was changed"
    )]
    Unusable { version: u32, fingerprint: String, error: Box<ProviderError> },
    #[error(
        "version {0} of the root key is not in this database, or was retired by `board rekey`: what needs it is older than that. A backup of before has it, and needs the provider of then"
    )]
    NoVersion(u32),
    #[error("the root key is being changed at this moment: try again")]
    Moving,
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A version of the root key as the database knows it: no key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub version: u32,
    /// The provider's URI.
    pub provider: String,
    pub fingerprint: String,
}

/// A living version as a backup holds it: wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    pub version: u32,
    pub provider: String,
    pub fingerprint: String,
    pub wrapped: Vec<u8>,
}

/// The living versions, the newest first.
pub async fn wrapped(tx: &mut Tx) -> Result<Vec<Wrapped>, sqlx::Error> {
    let rows = store::living(tx).await?;
    Ok(rows
        .into_iter()
        .map(|row| Wrapped {
            version: number(row.version),
            provider: row.provider,
            fingerprint: row.fingerprint,
            wrapped: row.wrapped,
        })
        .collect())
}

/// The versions that something may be encrypted under, the newest first.
pub async fn living(tx: &mut Tx) -> Result<Vec<Listed>, sqlx::Error> {
    let rows = store::living(tx).await?;
    Ok(rows
        .into_iter()
        .map(|row| Listed {
            version: number(row.version),
            provider: row.provider,
            fingerprint: row.fingerprint,
        })
        .collect())
}

/// The version that the next root key gets: above all that there were.
pub async fn next_version(tx: &mut Tx) -> Result<u32, sqlx::Error> {
    Ok(store::highest(tx).await?.map_or(1, |highest| number(highest) + 1))
}

/// Ends a version: its wrapped key is erased, the row stays. Waits for whoever is writing under it
/// ([`RootKey::for_writing`]), so that what is read after it in this transaction is complete. False when it was retired
/// already.
pub async fn retire(tx: &mut Tx, version: u32, now: shared::time::Timestamp) -> Result<bool, sqlx::Error> {
    Ok(store::retire(tx, version, now).await? == 1)
}

fn number(stored: i64) -> u32 {
    u32::try_from(stored).unwrap_or(0)
}
