//! Sealing to a device: HPKE base mode (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{ByteString, sha256};
use crate::catalog::Tag;
use crate::ids::{ClientId, DeliveryId, DeviceId, EnrollmentId};
use crate::random::{self, Random};
use crate::secret::Secret;
use crate::time::Timestamp;

const MAGIC: &[u8; 4] = b"BSD1";
const ENCAPPED_LEN: usize = 32;

/// `BSD1`, encapsulated key and tag: how much longer a sealed value is than the value, in bytes.
pub const SEALED_EXTRA: usize = MAGIC.len() + ENCAPPED_LEN + 16;

/// What a value was sealed for. What was sealed for one doesn't open as the other.
pub(super) const DELIVER: &str = "board/deliver/v1";
pub(super) const PASTE: &str = "board/paste/v1";

/// The device's X25519 key. It never leaves the device.
pub struct SealingKey(StaticSecret);

/// The public half of a device's sealing key: 32 bytes, as in RFC 7748.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealingPublicKey([u8; 32]);

impl SealingKey {
    pub fn generate(random: &dyn Random) -> Self {
        Self(StaticSecret::from(random::bytes::<32>(random)))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    pub fn to_bytes(&self) -> Secret<[u8; 32]> {
        Secret::new(self.0.to_bytes())
    }

    pub fn public_key(&self) -> SealingPublicKey {
        SealingPublicKey(PublicKey::from(&self.0).to_bytes())
    }
}

impl SealingPublicKey {
    /// `None` unless these are 32 bytes that can be sealed to.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(bytes).ok()?;
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Everything a sealed delivery or paste is bound to. Change one field on either side and it doesn't open.
#[derive(Clone, Debug)]
pub struct DeliveryContext<'a> {
    pub client_id: ClientId,
    pub device_id: DeviceId,
    pub component_key: &'a str,
    pub slot_key: &'a str,
    pub tag: Tag,
    /// From 1; 0 for a paste, which has none.
    pub version: u64,
    pub delivery_id: DeliveryId,
    pub expires: Timestamp,
}

impl DeliveryContext<'_> {
    pub(super) fn info(&self, label: &'static str, recipient: &SealingPublicKey) -> Vec<u8> {
        ByteString::labelled(label)
            .fixed(self.client_id.as_bytes())
            .fixed(self.device_id.as_bytes())
            .fixed(&sha256(recipient.as_bytes()))
            .finish()
    }

    pub(super) fn aad(&self) -> Vec<u8> {
        ByteString::empty()
            .part(self.component_key.as_bytes())
            .part(self.slot_key.as_bytes())
            .part(self.tag.as_str().as_bytes())
            .u64(self.version)
            .fixed(self.delivery_id.as_bytes())
            .fixed(&self.expires.to_be_bytes())
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value could not be sealed to this key")]
pub struct SealError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was not sealed for this device and purpose, or it was changed on the way")]
pub struct OpenError;

/// `BSD1 ‖ encapsulated key 32 ‖ ciphertext ‖ tag 16`, with a fresh encapsulation each time.
pub fn seal_delivery(
    recipient: &SealingPublicKey,
    context: &DeliveryContext<'_>,
    value: &Secret<Vec<u8>>,
) -> Result<Vec<u8>, SealError> {
    seal(recipient, &context.info(DELIVER, recipient), &context.aad(), value.expose())
}

pub fn open_delivery(
    key: &SealingKey,
    context: &DeliveryContext<'_>,
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, OpenError> {
    open(key, &context.info(DELIVER, &key.public_key()), &context.aad(), sealed)
}

/// The same for a value that a consultant enters elsewhere than on the device: the board passes it on and can't open it.
pub fn seal_paste(
    recipient: &SealingPublicKey,
    context: &DeliveryContext<'_>,
    value: &Secret<Vec<u8>>,
) -> Result<Vec<u8>, SealError> {
    seal(recipient, &context.info(PASTE, recipient), &context.aad(), value.expose())
}

pub fn open_paste(
    key: &SealingKey,
    context: &DeliveryContext<'_>,
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, OpenError> {
    open(key, &context.info(PASTE, &key.public_key()), &context.aad(), sealed)
}

/// Seals the nonce by which a device proves that it holds its sealing key.
pub fn seal_nonce(
    recipient: &SealingPublicKey,
    enrollment_id: EnrollmentId,
    nonce: &[u8; 32],
) -> Result<Vec<u8>, SealError> {
    seal(recipient, &nonce_info(recipient, enrollment_id), &[], nonce)
}

pub fn open_nonce(
    key: &SealingKey,
    enrollment_id: EnrollmentId,
    sealed: &[u8],
) -> Result<[u8; 32], OpenError> {
    let nonce = open(key, &nonce_info(&key.public_key(), enrollment_id), &[], sealed)?;
    nonce.expose().as_slice().try_into().map_err(|_| OpenError)
}

fn nonce_info(recipient: &SealingPublicKey, enrollment_id: EnrollmentId) -> Vec<u8> {
    ByteString::labelled("board/enroll-nonce/v1")
        .fixed(enrollment_id.as_bytes())
        .fixed(&sha256(recipient.as_bytes()))
        .finish()
}

fn seal(recipient: &SealingPublicKey, info: &[u8], aad: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
    let recipient =
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(recipient.as_bytes()).map_err(|_| SealError)?;
    let (encapped, ciphertext) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        info,
        value,
        aad,
    )
    .map_err(|_| SealError)?;
    Ok([MAGIC.as_slice(), &encapped.to_bytes(), &ciphertext].concat())
}

pub(super) fn open(
    key: &SealingKey,
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, OpenError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(OpenError)?;
    let (encapped, ciphertext) = rest.split_at_checked(ENCAPPED_LEN).ok_or(OpenError)?;
    let encapped = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapped).map_err(|_| OpenError)?;
    let private =
        <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(key.to_bytes().expose()).map_err(|_| OpenError)?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapped,
        info,
        ciphertext,
        aad,
    )
    .map(Secret::new)
    .map_err(|_| OpenError)
}
