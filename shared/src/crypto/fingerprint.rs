use data_encoding::BASE32_NOPAD;

use super::{ByteString, sha256};
use crate::ids::{BoardId, ClientId, EnrollmentId};

/// What the fingerprint stands for: the board, the client, this enrollment and both of the device's keys.
#[derive(Clone, Copy, Debug)]
pub struct FingerprintParts<'a> {
    /// DER of the CA's SubjectPublicKeyInfo.
    pub ca_spki: &'a [u8],
    pub board_id: BoardId,
    pub client_id: ClientId,
    pub enrollment_id: EnrollmentId,
    /// DER of the device TLS key's SubjectPublicKeyInfo.
    pub tls_spki: &'a [u8],
    pub sealing_public_key: &'a [u8; 32],
}

/// 16 characters of RFC 4648 base32 (no 0, 1, 8 or 9 to confuse with letters): the first 80 bits of SHA-256 over [`FingerprintParts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub fn of(parts: &FingerprintParts<'_>) -> Self {
        Self::under_pin(&sha256(parts.ca_spki), parts)
    }

    /// The same for whoever knows the CA by its pin, which is the SHA-256 of its SPKI: `parts.ca_spki` isn't looked at.
    pub fn under_pin(pin: &[u8; 32], parts: &FingerprintParts<'_>) -> Self {
        let bytes = ByteString::labelled("board/fingerprint/v1")
            .fixed(pin)
            .fixed(parts.board_id.as_bytes())
            .fixed(parts.client_id.as_bytes())
            .fixed(parts.enrollment_id.as_bytes())
            .part(parts.tls_spki)
            .fixed(parts.sealing_public_key)
            .finish();
        Self(BASE32_NOPAD.encode(&sha256(&bytes)[..10]))
    }

    /// Whether a person typed this fingerprint; spaces, dashes and case are forgiven.
    pub fn matches(&self, typed: &str) -> bool {
        normalize_fingerprint(typed) == self.0
    }
}

impl std::fmt::Display for Fingerprint {
    /// Four groups of four, as the Mac shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, c) in self.0.chars().enumerate() {
            if i > 0 && i % 4 == 0 {
                f.write_str(" ")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

/// Upper case, without spaces and dashes.
pub fn normalize_fingerprint(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_whitespace() && *c != '-').flat_map(char::to_uppercase).collect()
}
