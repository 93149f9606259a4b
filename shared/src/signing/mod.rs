//! Ed25519 keys that are made and kept off the board, and what they sign: bundles, releases of the agent, and each other's
//! succession. Every signature is `verify_strict` over a label and the exact bytes of one JSON payload.

mod keyring;
mod release;
mod succession;
#[cfg(test)]
mod tests;

use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    spki::der::pem::LineEnding,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::crypto::{hex, sha256};
use crate::random::{self, Random};
use crate::secret::Secret;

pub use keyring::{Keyring, KeyringError};
pub use release::{
    Arch, LARGEST_PROGRAM, Release, ReleaseError, ReleaseKey, SignedRelease, Version, sign_release,
};
pub use succession::{Purpose, RecoveryKey, SignedSuccession, Succession, SuccessionError, sign_succession};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is not an Ed25519 key in PEM")]
pub struct BadKey;

/// A public key, whatever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// SPKI PEM, `PUBLIC KEY`.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        VerifyingKey::from_public_key_pem(pem).map(Self).map_err(|_| BadKey)
    }

    /// The raw key, 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadKey> {
        let raw: [u8; 32] = bytes.try_into().map_err(|_| BadKey)?;
        VerifyingKey::from_bytes(&raw).map(Self).map_err(|_| BadKey)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// First 16 hex digits of SHA-256 over the raw key, to name it by.
    pub fn name(&self) -> String {
        hex(&sha256(self.as_bytes())[..8])
    }

    pub fn verifies(&self, label: &[u8], payload: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        self.0.verify_strict(&[label, payload].concat(), &signature).is_ok()
    }
}

/// A key that is good for one purpose only: the others are other types.
macro_rules! key_for {
    ($(#[$meta:meta])* $name:ident, $error:ty, $bad:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name($crate::signing::PublicKey);

        impl $name {
            pub fn from_pem(pem: &str) -> Result<Self, $error> {
                $crate::signing::PublicKey::from_pem(pem).map(Self).map_err(|_| $bad)
            }

            /// First 16 hex digits of SHA-256 over the raw key, to name it by.
            pub fn name(&self) -> String {
                self.0.name()
            }

            pub fn public(&self) -> &$crate::signing::PublicKey {
                &self.0
            }
        }

        impl From<$crate::signing::PublicKey> for $name {
            fn from(key: $crate::signing::PublicKey) -> Self {
                Self(key)
            }
        }
    };
}
pub(crate) use key_for;

/// A new key: the private half as PKCS#8 PEM, the public half as SPKI PEM.
pub fn generate_key(random: &dyn Random) -> Result<(Secret<String>, String), BadKey> {
    let key = SigningKey::from_bytes(&random::bytes::<32>(random));
    let private = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| BadKey)?;
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|_| BadKey)?;
    Ok((Secret::new(private.as_str().to_owned()), public))
}

/// Signs with a private key in PKCS#8 PEM; gives the signature, 64 bytes.
pub(crate) fn sign_bytes(
    label: &[u8],
    payload: &[u8],
    private_pem: &Secret<String>,
) -> Result<Vec<u8>, BadKey> {
    let key = SigningKey::from_pkcs8_pem(private_pem.expose()).map_err(|_| BadKey)?;
    Ok(key.sign(&[label, payload].concat()).to_bytes().to_vec())
}

/// The public half of a private key in PKCS#8 PEM.
pub fn public_half(private_pem: &Secret<String>) -> Result<PublicKey, BadKey> {
    let key = SigningKey::from_pkcs8_pem(private_pem.expose()).map_err(|_| BadKey)?;
    Ok(PublicKey(key.verifying_key()))
}
