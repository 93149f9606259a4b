//! The signed bundle. The publisher's key is never on the board; the agent believes nobody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Manifest;
use crate::crypto::{base64, hex, sha256};
use crate::random::Random;
use crate::secret::Secret;
use crate::signing::{self, BadKey, key_for};
use crate::time::Timestamp;

const LABEL: &[u8] = b"board/bundle/v1";

/// The payload: everything that a signature covers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Grows with every bundle; an agent refuses a lower one than it has seen.
    pub serial: u64,
    pub min_serial: u64,
    pub not_after: Timestamp,
    /// `component/step` names that must not run any more.
    #[serde(default)]
    pub revoked_steps: Vec<String>,
    /// The text of `tiers.toml`.
    pub tiers: String,
    /// Component key = TOML text of its manifest.
    pub manifests: BTreeMap<String, String>,
}

/// A bundle as it travels: the exact bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBundle {
    #[serde(with = "base64")]
    pub payload: Vec<u8>,
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the key is not an Ed25519 key in PEM")]
    Key,
    #[error(
        "the bundle's signature does not fit any publisher key that we trust: it was changed, or somebody else signed it"
    )]
    Signature,
    #[error("the bundle is signed, but its content can't be read: {0}")]
    Payload(#[from] serde_json::Error),
    #[error("the manifest of {key} in the bundle can't be read: {error}")]
    Manifest { key: String, error: Box<toml::de::Error> },
    #[error(
        "the bundle has serial {got}, but serial {seen} was seen already: an older catalog is not accepted"
    )]
    Older { got: u64, seen: u64 },
    #[error("the bundle ended on {0}: a newer one must be signed and imported")]
    Ended(Timestamp),
}

key_for! {
    /// A key that bundles are verified with (SPKI PEM, `PUBLIC KEY`). It verifies no release.
    PublisherKey, BundleError, BundleError::Key
}

impl From<BadKey> for BundleError {
    fn from(_: BadKey) -> Self {
        Self::Key
    }
}

impl SignedBundle {
    pub fn digest(&self) -> String {
        digest_of(&self.payload)
    }

    /// The content, if one of `keys` signed it.
    pub fn verify(&self, keys: &[PublisherKey]) -> Result<Bundle, BundleError> {
        self.verify_by(keys).map(|(bundle, _)| bundle)
    }

    /// The same, and whose signature it is.
    pub fn verify_by(&self, keys: &[PublisherKey]) -> Result<(Bundle, PublisherKey), BundleError> {
        let signer = keys
            .iter()
            .find(|key| key.public().verifies(LABEL, &self.payload, &self.signature))
            .ok_or(BundleError::Signature)?;
        Ok((serde_json::from_slice(&self.payload)?, *signer))
    }
}

impl Bundle {
    pub fn parse_manifests(&self) -> Result<BTreeMap<String, Manifest>, BundleError> {
        self.manifests
            .iter()
            .map(|(key, text)| match toml::from_str(text) {
                Ok(manifest) => Ok((key.clone(), manifest)),
                Err(error) => Err(BundleError::Manifest { key: key.clone(), error: Box::new(error) }),
            })
            .collect()
    }

    /// Refuses a bundle older than `seen`, and one whose time is over.
    pub fn check_fresh(&self, seen: u64, now: Timestamp) -> Result<(), BundleError> {
        if self.serial < seen {
            return Err(BundleError::Older { got: self.serial, seen });
        }
        if now > self.not_after {
            return Err(BundleError::Ended(self.not_after));
        }
        Ok(())
    }

    pub fn is_revoked(&self, component: &str, step: &str) -> bool {
        self.revoked_steps.iter().any(|name| name.split_once('/') == Some((component, step)))
    }
}

/// SHA-256 of a payload's bytes, in hex: what runbooks and offers name a bundle by.
pub fn digest_of(payload: &[u8]) -> String {
    hex(&sha256(payload))
}

/// A new publisher key: the private half as PKCS#8 PEM, the public half as SPKI PEM.
pub fn generate_publisher_key(random: &dyn Random) -> Result<(Secret<String>, String), BundleError> {
    Ok(signing::generate_key(random)?)
}

/// Signs a bundle with the publisher's private key in PKCS#8 PEM.
pub fn sign(bundle: &Bundle, private_pem: &Secret<String>) -> Result<SignedBundle, BundleError> {
    let payload = serde_json::to_vec(bundle)?;
    let signature = signing::sign_bytes(LABEL, &payload, private_pem)?;
    Ok(SignedBundle { payload, signature })
}
