//! The root key and what is derived from it (`design/security.md` section 1). Keys live in memory only; the row in the
//! database holds the root key wrapped by its provider.

mod provider;
mod store;
#[cfg(test)]
mod tests;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use shared::crypto::{ByteString, hex, sha256};
use shared::ids::ClientId;
use shared::random::{self, Random};
use shared::secret::Secret;
use shared::time::Clock;

pub use provider::{Provider, ProviderError, Source};

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
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// The root key in memory, with the version that envelopes name.
#[derive(Debug)]
pub struct RootKey {
    pub version: u32,
    key: Key,
}

impl RootKey {
    /// Makes the root key, wraps it with `provider` and stores it. Called once, by `init`.
    pub async fn create(
        tx: &mut Tx,
        provider: &Provider,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, KeyError> {
        let root = Self { version: 1, key: Secret::new(random::bytes(random)) };
        let wrapped = provider.wrap(root.version, &root.key, random)?;
        store::insert(tx, root.version, &provider.uri(), &wrapped, &root.fingerprint(), clock.now()).await?;
        Ok(root)
    }

    /// Unwraps the newest root key. A key that isn't the one the database was made with is refused.
    pub async fn unwrap(tx: &mut Tx, provider: &Provider) -> Result<Self, KeyError> {
        let row = store::newest(tx).await?.ok_or(KeyError::NotInitialized)?;
        let version = u32::try_from(row.version).unwrap_or(0);
        let wrong = |got: String| KeyError::WrongKey {
            provider: provider.uri(),
            expected: row.fingerprint.clone(),
            got,
        };
        let key = match provider.unwrap(version, &row.wrapped) {
            Ok(key) => key,
            Err(ProviderError::Unwrap) => return Err(wrong("another one".into())),
            Err(error) => return Err(error.into()),
        };
        let root = Self { version, key };
        if root.fingerprint() != row.fingerprint {
            return Err(wrong(root.fingerprint()));
        }
        Ok(root)
    }

    /// Names the key without telling anything about it.
    pub fn fingerprint(&self) -> String {
        let labelled = ByteString::labelled("board/root-fingerprint/v1").fixed(self.key.expose()).finish();
        hex(&sha256(&labelled)[..8])
    }

    pub fn derive(&self, purpose: Purpose) -> Key {
        self.expand(&[], purpose.label().as_bytes())
    }

    /// The key of one client: HKDF-SHA256 (RFC 5869) over the root key with the client's own salt.
    pub fn client_key(&self, salt: &[u8; 32], client_id: ClientId) -> Key {
        let info = ByteString::labelled("board/client-key/v1").fixed(client_id.as_bytes()).finish();
        self.expand(salt, &info)
    }

    /// HMAC-SHA-256 of a token or code under its purpose's key: what the database holds instead of the text.
    pub fn hash_token(&self, purpose: Purpose, token: &str) -> Vec<u8> {
        let key = self.derive(purpose);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(token.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    fn expand(&self, salt: &[u8], info: &[u8]) -> Key {
        let mut key = [0; 32];
        if Hkdf::<Sha256>::new(Some(salt), self.key.expose()).expand(info, &mut key).is_err() {
            unreachable!("32 bytes are within HKDF's reach");
        }
        Secret::new(key)
    }
}
