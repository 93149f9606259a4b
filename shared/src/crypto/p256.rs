use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit the key and the message")]
pub struct BadSignature;

/// Checks an ECDSA P-256 signature (SHA-256, DER-encoded) against the signer's SubjectPublicKeyInfo in DER.
pub fn verify_p256(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let (rest, spki) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| BadSignature)?;
    if !rest.is_empty() {
        return Err(BadSignature);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki.subject_public_key.as_ref())
        .verify(message, signature)
        .map_err(|_| BadSignature)
}
