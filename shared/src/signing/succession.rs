//! A statement of succession: from now on this key is believed beside the others, and those are not believed any more.
//!
//! It is signed by a key that is believed for the same purpose, or by the recovery key that came with the agent's package.
//! The board relays it and can't make one. Whether it is believed is the [`super::Keyring`]'s to say.

use serde::{Deserialize, Serialize};

use super::{BadKey, PublicKey, key_for, sign_bytes};
use crate::crypto::{base64, hex, sha256};
use crate::secret::Secret;
use crate::text_enum;

const LABEL: &[u8] = b"board/succession/v1";

/// Most keys that one statement retires.
const MOST: usize = 16;

text_enum! {
    /// What a key is believed for.
    pub enum Purpose {
        /// Signs bundles.
        Publisher = "publisher",
        /// Signs releases of the agent.
        Release = "release",
    }
}

key_for! {
    /// The offline key whose word on the other keys is believed when those are lost or stolen. It signs nothing else.
    RecoveryKey, BadKey, BadKey
}

/// The payload. Keys are raw, 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    pub purpose: Purpose,
    /// Grows with every statement for this purpose by an ordinary key, and with every one by the recovery key: an older one
    /// is not believed.
    pub serial: u64,
    /// Believed from now on.
    #[serde(default, with = "optional_key", skip_serializing_if = "Option::is_none")]
    pub adds: Option<PublicKey>,
    /// Not believed any more, for good.
    #[serde(default, with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub retires: Vec<PublicKey>,
}

/// A statement as it travels: the exact bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedSuccession {
    #[serde(with = "base64")]
    pub payload: Vec<u8>,
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    #[error(transparent)]
    Key(#[from] BadKey),
    #[error("the statement is signed, but its content can't be read: {0}")]
    Payload(#[from] serde_json::Error),
    #[error("a statement that neither adds a key nor retires one says nothing")]
    Empty,
    #[error("a statement can't retire the key that it adds")]
    AddsRetired,
    #[error("a statement retires {MOST} keys at most")]
    TooMany,
    #[error(
        "the statement is signed neither by a key that is believed for this nor by the recovery key: it was changed, or \
         somebody else made it"
    )]
    Signature,
    #[error("the statement has serial {got}, but serial {seen} was seen already")]
    Older { got: u64, seen: u64 },
    #[error("key {0} was retired; a retired key is never believed again")]
    Retired(String),
    #[error("key {0} is believed for something else; each purpose has keys of its own")]
    OtherPurpose(String),
    #[error("the statement would leave no key that is believed for this")]
    LeavesNone,
}

impl Succession {
    pub fn check(&self) -> Result<(), SuccessionError> {
        if self.adds.is_none() && self.retires.is_empty() {
            return Err(SuccessionError::Empty);
        }
        if self.adds.is_some_and(|added| self.retires.contains(&added)) {
            return Err(SuccessionError::AddsRetired);
        }
        if self.retires.len() > MOST {
            return Err(SuccessionError::TooMany);
        }
        Ok(())
    }
}

impl SignedSuccession {
    /// SHA-256 of the payload, in hex: what both sides name it by.
    pub fn digest(&self) -> String {
        hex(&sha256(&self.payload))
    }

    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(LABEL, &self.payload, &self.signature)
    }

    /// What it says. Nothing of it is believed before its signature fits.
    pub fn read(&self) -> Result<Succession, SuccessionError> {
        let said: Succession = serde_json::from_slice(&self.payload)?;
        said.check()?;
        Ok(said)
    }
}

/// Signs a statement with an ordinary key of its purpose, or with the recovery key: PKCS#8 PEM.
pub fn sign_succession(
    said: &Succession,
    private_pem: &Secret<String>,
) -> Result<SignedSuccession, SuccessionError> {
    said.check()?;
    let payload = serde_json::to_vec(said)?;
    let signature = sign_bytes(LABEL, &payload, private_pem)?;
    Ok(SignedSuccession { payload, signature })
}

mod keys {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::crypto::base64;
    use crate::signing::PublicKey;

    pub fn serialize<S: Serializer>(keys: &[PublicKey], serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = keys.iter().map(|key| base64::encode(key.as_bytes())).collect();
        texts.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| read(text)).collect()
    }

    pub fn read<E: serde::de::Error>(text: &str) -> Result<PublicKey, E> {
        let bytes = base64::decode(text).map_err(|_| E::custom("not base64"))?;
        PublicKey::from_bytes(&bytes).map_err(|_| E::custom("not an Ed25519 key"))
    }
}

mod optional_key {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::crypto::base64;
    use crate::signing::PublicKey;

    pub fn serialize<S: Serializer>(key: &Option<PublicKey>, serializer: S) -> Result<S::Ok, S::Error> {
        key.map(|key| base64::encode(key.as_bytes())).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PublicKey>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| super::keys::read(&text)).transpose()
    }
}
