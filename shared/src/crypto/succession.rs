//! From one certificate authority to the next (`design/security.md` section 2.10): the proof is a cross-certificate, the new
//! authority's key certified by the old one.

use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A new authority that an older one vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// DER of the SubjectPublicKeyInfo of the old authority, which signed the proof.
    pub issuer_spki: Vec<u8>,
    /// The same of the new authority.
    pub spki: Vec<u8>,
    /// When the proof was made, in seconds since 1970.
    pub made_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    #[error("a certificate can't be read")]
    Unreadable,
    #[error("the new certificate is not an authority's")]
    NotAuthority,
    #[error("the new certificate is not signed by its own key")]
    NotItsOwn,
    #[error("the proof is for another key")]
    OtherKey,
    #[error("the old authority did not sign the proof")]
    NotSigned,
}

/// Checks the new authority's certificate, the old one's, and the proof that connects them; all in DER. Whether the old one
/// is to be believed is the caller's to know.
pub fn verify_succession(
    certificate: &[u8],
    issuer: &[u8],
    proof: &[u8],
) -> Result<Succession, SuccessionError> {
    let (certificate, issuer, proof) = (read(certificate)?, read(issuer)?, read(proof)?);
    // A device's certificate is signed by the old authority too, for a key that is no authority's.
    if [&certificate, &issuer, &proof].into_iter().any(|one| !is_authority(one)) {
        return Err(SuccessionError::NotAuthority);
    }
    if certificate.verify_signature(None).is_err() {
        return Err(SuccessionError::NotItsOwn);
    }
    let spki = certificate.tbs_certificate.subject_pki.raw;
    if proof.tbs_certificate.subject_pki.raw != spki {
        return Err(SuccessionError::OtherKey);
    }
    let key = &issuer.tbs_certificate.subject_pki;
    if proof.issuer() != issuer.subject() || proof.verify_signature(Some(key)).is_err() {
        return Err(SuccessionError::NotSigned);
    }
    Ok(Succession {
        issuer_spki: key.raw.to_vec(),
        spki: spki.to_vec(),
        made_at: proof.validity().not_before.timestamp(),
    })
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, SuccessionError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(SuccessionError::Unreadable),
    }
}

fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten();
    let usage = certificate.key_usage().ok().flatten();
    constraints.is_some_and(|constraints| constraints.critical && constraints.value.ca)
        && usage.is_some_and(|usage| usage.value.key_cert_sign())
}
