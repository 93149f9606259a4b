//! AES-256-GCM (NIST SP 800-38D) with a random nonce: `nonce 12 ‖ ciphertext ‖ tag 16`.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use shared::random::{self, Random};
use shared::secret::Secret;

pub const NONCE_LEN: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not what was sealed with this key for this place")]
pub struct NotSealedHere;

pub fn seal(
    key: &Secret<[u8; 32]>,
    aad: &[u8],
    plain: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, NotSealedHere> {
    let nonce: [u8; NONCE_LEN] = random::bytes(random);
    let ciphertext = Aes256Gcm::new(key.expose().into())
        .encrypt(&nonce.into(), Payload { msg: plain, aad })
        .map_err(|_| NotSealedHere)?;
    Ok([nonce.as_slice(), &ciphertext].concat())
}

pub fn open(key: &Secret<[u8; 32]>, aad: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, NotSealedHere> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(NotSealedHere)?;
    let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| NotSealedHere)?;
    Aes256Gcm::new(key.expose().into())
        .decrypt(&nonce.into(), Payload { msg: ciphertext, aad })
        .map(Secret::new)
        .map_err(|_| NotSealedHere)
}
