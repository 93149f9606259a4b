//! The checks that the device makes before it believes a certificate to be its own.

use rcgen::{KeyPair, PublicKeyData as _};
use shared::ids::BoardId;
use shared::protocol::enroll::Enrolled;
use shared::time::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Our key, our name, signed by the pinned CA, valid now.
pub fn check(
    enrolled: &Enrolled,
    key: &KeyPair,
    ca: &[u8],
    board_id: BoardId,
    now: Timestamp,
) -> Result<(), &'static str> {
    let (rest, certificate) =
        X509Certificate::from_der(&enrolled.certificate).map_err(|_| "it can't be read")?;
    if !rest.is_empty() {
        return Err("it has bytes behind its end");
    }
    let (_, ca) = X509Certificate::from_der(ca).map_err(|_| "the CA can't be read")?;
    if certificate.tbs_certificate.subject_pki.raw != key.subject_public_key_info() {
        return Err("it is for another key");
    }
    if certificate.issuer() != ca.subject()
        || certificate.verify_signature(Some(&ca.tbs_certificate.subject_pki)).is_err()
    {
        return Err("the pinned CA did not sign it");
    }
    let expected = format!("spiffe://{board_id}/device/{}", enrolled.device_id);
    let named = certificate.subject_alternative_name().ok().flatten().is_some_and(
        |names| matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == expected),
    );
    if !named {
        return Err("it does not name this device");
    }
    let seconds = now.as_micros() / 1_000_000;
    let validity = certificate.validity();
    if validity.not_after.timestamp() <= seconds {
        return Err("it has ended already; is this machine's clock right?");
    }
    Ok(())
}
