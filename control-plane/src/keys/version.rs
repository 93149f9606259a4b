//! One version of the root key in memory, and how a new one is made.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use shared::crypto::{ByteString, hex, sha256};
use shared::ids::{BoardId, ClientId};
use shared::random::{self, Random};
use shared::secret::Secret;
use shared::time::Timestamp;

use super::{Binding, Key, KeyError, Provider, ProviderError, Purpose, Source, store};
use crate::db::Tx;

#[derive(Debug)]
pub struct RootVersion {
    /// What envelopes name.
    pub version: u32,
    pub(super) key: Key,
}

impl RootVersion {
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

    pub(super) fn expand(&self, salt: &[u8], info: &[u8]) -> Key {
        let mut key = [0; 32];
        if Hkdf::<Sha256>::new(Some(salt), self.key.expose()).expand(info, &mut key).is_err() {
            unreachable!("32 bytes are within HKDF's reach");
        }
        Secret::new(key)
    }
}

/// HMAC-SHA-256 of a token or code: what the database holds instead of the text.
pub(super) fn mac(key: &Key, token: &str) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else {
        unreachable!("HMAC takes keys of any length")
    };
    mac.update(token.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A root key that was just made and wrapped, and isn't stored yet.
#[derive(Debug)]
pub struct NewVersion {
    pub(super) root: RootVersion,
    provider: String,
    wrapped: Vec<u8>,
}

impl NewVersion {
    /// Makes a root key and lets the provider wrap it. Believed only after the provider gave the same key back, and
    /// refused it for another version.
    pub async fn make(
        source: &Source,
        provider: &dyn Provider,
        board_id: BoardId,
        version: u32,
        random: &dyn Random,
    ) -> Result<Self, KeyError> {
        let root = RootVersion { version, key: Secret::new(random::bytes(random)) };
        let binding = Binding { board_id, version };
        let wrapped = provider.wrap(binding, &root.key, random).await?;
        let back = RootVersion { version, key: provider.unwrap(binding, &wrapped).await? };
        if back.fingerprint() != root.fingerprint() {
            return Err(KeyError::WrongKey {
                provider: source.to_string(),
                expected: root.fingerprint(),
                got: back.fingerprint(),
            });
        }
        let elsewhere = Binding { version: version + 1, ..binding };
        match provider.unwrap(elsewhere, &wrapped).await {
            Ok(_) => return Err(ProviderError::Unbound(source.clone()).into()),
            Err(ProviderError::Unwrap | ProviderError::Refused { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        Ok(Self { root, provider: source.to_string(), wrapped })
    }

    pub fn version(&self) -> u32 {
        self.root.version
    }

    pub fn fingerprint(&self) -> String {
        self.root.fingerprint()
    }

    /// False when there is a root key of this version already.
    pub async fn store(&self, tx: &mut Tx, now: Timestamp) -> Result<bool, sqlx::Error> {
        let rows = store::insert(
            tx,
            self.root.version,
            &self.provider,
            &self.wrapped,
            &self.root.fingerprint(),
            now,
        )
        .await?;
        Ok(rows == 1)
    }
}
