//! Joining: `POST /enroll/join`, `/enroll/status`, `/enroll/prove`. Every body is signed by the device's TLS key
//! ([`super::SIGNATURE_HEADER`]); errors are problem+json. And renewing: `POST /renew/challenge`, then `POST /renew` on
//! the same connection, whose proof covers the board's nonce and the connection itself.

use serde::{Deserialize, Serialize};

use crate::catalog::Platform;
use crate::crypto::{ByteString, base64};
use crate::ids::{BoardId, ClientId, DeviceId, EnrollmentId};
use crate::time::Timestamp;

/// Letters and digits of a join code: none that look or sound alike.
pub const JOIN_CODE_ALPHABET: &[u8; 30] = b"23456789ABCDEFGHJKMNPQRSTVWXYZ";
pub const JOIN_CODE_LEN: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    pub code: String,
    /// PKCS#10 in DER, for the P-256 TLS key; no name, no extensions.
    #[serde(with = "base64")]
    pub csr: Vec<u8>,
    /// X25519, 32 bytes.
    #[serde(with = "base64")]
    pub sealing_public_key: Vec<u8>,
    pub facts: Facts,
}

/// What the device says of itself. Claimed, not proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub hardware_uuid: String,
    #[serde(default)]
    pub serial: String,
    #[serde(default)]
    pub model: String,
    pub platform: Platform,
    #[serde(default)]
    pub os_version: String,
    pub host_name: String,
    pub managed_user: String,
    pub agent_version: String,
    pub clock: Timestamp,
    /// Secrets go to files instead of a keychain: for development and tests.
    #[serde(default)]
    pub dev: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    pub board_id: BoardId,
    pub client_id: ClientId,
    pub client_name: String,
    pub enrollment_id: EnrollmentId,
    pub expires: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {
    pub enrollment_id: EnrollmentId,
    pub at: Timestamp,
}

/// The answer to a status request, given at once or when the state changes (long poll, 25 s).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EnrollmentStatus {
    Pending,
    /// Approved: prove the sealing key by opening this.
    Approved {
        #[serde(with = "base64")]
        sealed_nonce: Vec<u8>,
    },
    Enrolled,
    Rejected {
        reason: String,
    },
    Expired,
    Revoked,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveRequest {
    pub enrollment_id: EnrollmentId,
    #[serde(with = "base64")]
    pub nonce: Vec<u8>,
    pub at: Timestamp,
}

/// The device's identity. The same proof again gives the same certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    pub device_id: DeviceId,
    /// DER.
    #[serde(with = "base64")]
    pub certificate: Vec<u8>,
    pub not_after: Timestamp,
}

/// Label of the TLS exporter (RFC 5705, RFC 8446 section 7.5) whose 32 bytes, without a context, a renewal's proof covers.
pub const RENEWAL_EXPORTER: &[u8] = b"EXPORTER-board-renew-v1";

/// The answer to `POST /renew/challenge`, good for one renewal on this connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalChallenge {
    /// 32 bytes.
    #[serde(with = "base64")]
    pub nonce: Vec<u8>,
}

/// `POST /renew`: a new certificate for the same keys, with or without a valid one on the connection. The answer is
/// [`Enrolled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub enrollment_id: EnrollmentId,
    /// ECDSA P-256 by the device's TLS key over [`renewal_bytes`], DER.
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

/// What a renewal's signature covers. `exporter` binds it to one TLS connection, the nonce to one moment.
pub fn renewal_bytes(
    board_id: BoardId,
    enrollment_id: EnrollmentId,
    nonce: &[u8; 32],
    exporter: &[u8; 32],
) -> Vec<u8> {
    ByteString::labelled("board/renew/v1")
        .fixed(board_id.as_bytes())
        .fixed(enrollment_id.as_bytes())
        .fixed(nonce)
        .fixed(exporter)
        .finish()
}
