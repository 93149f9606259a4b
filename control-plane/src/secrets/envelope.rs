//! `BSE1 ‖ root_version u32 ‖ nonce 12 ‖ ciphertext ‖ tag 16`, AES-256-GCM, bound to client, slot and version.

use shared::crypto::ByteString;
use shared::ids::{ClientId, SlotId};
use shared::random::Random;
use shared::secret::Secret;

use crate::aead;
use crate::keys::Key;

const MAGIC: &[u8; 4] = b"BSE1";

/// Where an envelope belongs. Moved anywhere else, it doesn't open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub client_id: ClientId,
    pub slot_id: SlotId,
    pub version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("this is not a BSE1 envelope")]
    Format,
    #[error("the envelope doesn't open here: it was changed, or moved to another client, slot or version")]
    Closed,
}

pub fn seal(
    key: &Key,
    root_version: u32,
    place: Place,
    value: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, EnvelopeError> {
    let sealed =
        aead::seal(key, &aad(root_version, place), value, random).map_err(|_| EnvelopeError::Closed)?;
    Ok([MAGIC.as_slice(), &root_version.to_be_bytes(), &sealed].concat())
}

pub fn open(key: &Key, place: Place, envelope: &[u8]) -> Result<Secret<Vec<u8>>, EnvelopeError> {
    let rest = envelope.strip_prefix(MAGIC).ok_or(EnvelopeError::Format)?;
    let (version, sealed) = rest.split_first_chunk::<4>().ok_or(EnvelopeError::Format)?;
    aead::open(key, &aad(u32::from_be_bytes(*version), place), sealed).map_err(|_| EnvelopeError::Closed)
}

/// The version of the root key that an envelope was made under.
pub fn root_version(envelope: &[u8]) -> Result<u32, EnvelopeError> {
    let rest = envelope.strip_prefix(MAGIC).ok_or(EnvelopeError::Format)?;
    rest.first_chunk::<4>().map(|version| u32::from_be_bytes(*version)).ok_or(EnvelopeError::Format)
}

fn aad(root_version: u32, place: Place) -> Vec<u8> {
    ByteString::labelled("board/cred/v1")
        .u32(root_version)
        .fixed(place.client_id.as_bytes())
        .fixed(place.slot_id.as_bytes())
        .u64(place.version)
        .finish()
}
