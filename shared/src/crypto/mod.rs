//! The byte strings that both sides sign, hash and seal, and how. `design/security.md` sections 2, 4 and 13 fix them;
//! vectors are frozen in `testdata`.

mod bytes;
mod fingerprint;
mod p256;
mod seal;
mod succession;
#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

pub use bytes::ByteString;
pub use fingerprint::{Fingerprint, FingerprintParts, normalize_fingerprint};
pub use p256::{BadSignature, verify_p256};
pub use seal::{
    DeliveryContext, OpenError, SEALED_EXTRA, SealError, SealingKey, SealingPublicKey, open_delivery,
    open_nonce, open_paste, seal_delivery, seal_nonce, seal_paste,
};
pub use succession::{Succession, SuccessionError, verify_succession};

/// SHA-256 (FIPS 180-4), 32 bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Base64 with padding (RFC 4648 section 4), in serde's `with` form, for bytes inside JSON.
pub mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn encode(bytes: &[u8]) -> String {
        BASE64.encode(bytes)
    }

    pub fn decode(text: &str) -> Result<Vec<u8>, data_encoding::DecodeError> {
        BASE64.decode(text.as_bytes())
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// Lower-case hexadecimal, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
