//! The device's half: join, status, prove. Every body is signed by the device's TLS key.

use std::time::Duration;

use shared::catalog::Platform;
use shared::crypto::{SealingPublicKey, seal_nonce, verify_p256};
use shared::ids::EnrollmentId;
use shared::protocol::enroll::{
    Enrolled, EnrollmentStatus, Facts, JoinAnswer, JoinRequest, ProveRequest, StatusRequest,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::ca::{Authority, CaError};
use super::{Enrollment, EnrollmentState, PENDING_TTL, rotation, same, store};
use crate::access::Throttle;
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::clients;
use crate::error::Failure;
use crate::jobs::Wake;
use crate::keys::Purpose;

const JOIN: Throttle =
    Throttle { bucket: "join", per_source: 20, in_total: 200, window: Duration::from_secs(3600) };
/// id-ecPublicKey with the curve P-256, as a SubjectPublicKeyInfo begins.
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(
        "Too many wrong join codes from this address. Wait an hour, or use a code on another connection."
    )]
    TooMany,
    #[error("This join code is not known, or its hour is over. Make a new one in the client's page.")]
    Code,
    #[error(
        "This join code was used by another device. If that was not you, somebody else has the code: tell the consultant, and make a new one."
    )]
    CodeUsed,
    #[error(
        "The board goes over to its new certificate authority at this moment. Try again in a few seconds; if the pin doesn't fit then, take the new command from the client's page."
    )]
    NewAuthority,
    #[error("The certificate request was refused: {0}.")]
    Csr(&'static str),
    #[error("The device's facts were refused: {0}.")]
    Facts(&'static str),
    #[error("The sealing key is not a 32-byte X25519 public key.")]
    SealingKey,
    #[error("The request's signature doesn't fit the device's key and the body.")]
    Signature,
    #[error("There is no such enrollment. Join again with a new code.")]
    Unknown,
    #[error("The enrollment is {0}, so its keys can't be proven now.")]
    NotApproved(EnrollmentState),
    #[error("The nonce is not the one that was sealed to this device.")]
    Nonce,
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the nonce can't be sealed")]
    Seal,
    #[error("facts can't be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Client(String),
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        let text = error.to_string();
        match error {
            EnrollError::TooMany => Self::new(429, "too-many-tries", "Wait a little", text),
            EnrollError::Code => Self::new(404, "join-code", "The join code was refused", text),
            EnrollError::CodeUsed => Self::conflict("join-code-used", "The join code was used already", text),
            EnrollError::Csr(_) => Self::invalid("csr", "The certificate request was refused", text),
            EnrollError::Facts(_) => Self::invalid("facts", "The facts were refused", text),
            EnrollError::SealingKey => Self::invalid("sealing-key", "The sealing key was refused", text),
            EnrollError::Signature => Self::new(401, "signature", "The signature was refused", text),
            EnrollError::Unknown => Self::new(404, "enrollment", "No such enrollment", text),
            EnrollError::NotApproved(_) => Self::conflict("not-approved", "Not approved", text),
            EnrollError::Nonce => Self::new(401, "nonce", "The proof was refused", text),
            EnrollError::NewAuthority => Self::new(503, "new-authority", "Try again", text),
            EnrollError::Database(error) | EnrollError::Ca(CaError::Database(error)) => error.into(),
            EnrollError::Audit(error) => error.into(),
            EnrollError::Ca(CaError::Key(error)) => error.into(),
            other @ (EnrollError::Ca(_)
            | EnrollError::Seal
            | EnrollError::Json(_)
            | EnrollError::Client(_)) => Self::internal(other),
        }
    }
}

/// Takes a join request. The same keys with the same code get the same answer; other keys are refused.
pub async fn join(
    app: &App,
    request: &JoinRequest,
    body: &[u8],
    signature: &[u8],
    address: &str,
) -> Result<JoinAnswer, EnrollError> {
    let tls_spki = public_key_of(&request.csr)?;
    let sealing = SealingPublicKey::from_bytes(&request.sealing_public_key).ok_or(EnrollError::SealingKey)?;
    verify_p256(&tls_spki, body, signature).map_err(|_| EnrollError::Signature)?;
    check_facts(&request.facts)?;

    let now = app.now();
    let mut tx = app.db.write().await?;
    if !JOIN.allows(&mut tx, address, now).await? {
        return Err(EnrollError::TooMany);
    }
    let typed = request.code.trim().to_uppercase();
    let mut code = None;
    for hmac in app.root.hashes(Purpose::JoinCode, &typed) {
        code = store::code(&mut tx, &hmac, now).await?;
        if code.is_some() {
            break;
        }
    }
    let Some(code) = code else {
        JOIN.record(&mut tx, address, now).await?;
        tx.commit().await?;
        return Err(EnrollError::Code);
    };
    let client = clients::get(&mut tx, code.client_id)
        .await
        .map_err(|failure| EnrollError::Client(failure.public.detail))?;
    let answer = |enrollment_id, expires| JoinAnswer {
        board_id: app.board_id,
        client_id: client.id,
        client_name: client.name.clone(),
        enrollment_id,
        expires,
    };
    if let Some(before) = store::by_code(&mut tx, code.id).await? {
        if same(&before.tls_spki, &tls_spki) && same(&before.sealing_public_key, sealing.as_bytes()) {
            return Ok(answer(before.id, before.expires_at));
        }
        let entry = Entry::new(now, Who::device("unknown", address), Action::DeviceRefused)
            .client(client.id)
            .reason("a used join code came with other keys")
            .detail("enrollment", before.id);
        JOIN.record(&mut tx, address, now).await?;
        store::note_code_reuse(&mut tx, before.id, now).await?;
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        app.jobs.wake(Wake::Enrollment(before.id));
        return Err(EnrollError::CodeUsed);
    }
    // The one that this device met and pinned has to be the one that is active: it is told of the next by its number.
    let authority = rotation::hold_active(&mut tx).await?;
    if authority != app.ca().number {
        return Err(EnrollError::NewAuthority);
    }
    let id = EnrollmentId::new(&*app.clock, &*app.random);
    let expires = now.after(PENDING_TTL);
    store::insert(
        &mut tx,
        store::NewEnrollment {
            id,
            client_id: client.id,
            join_code_id: code.id,
            tls_spki: &tls_spki,
            sealing_public_key: sealing.as_bytes(),
            facts: serde_json::to_string(&request.facts)?,
            address,
            authority,
            now,
            expires,
        },
    )
    .await?;
    let entry = Entry::new(now, Who::device("unknown", address), Action::JoinAsked)
        .client(client.id)
        .detail("enrollment", id)
        .detail("hardware_uuid", &request.facts.hardware_uuid);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Enrollment(id));
    Ok(answer(id, expires))
}

/// How an enrollment stands, for its own device.
pub async fn status(
    app: &App,
    request: &StatusRequest,
    body: &[u8],
    signature: &[u8],
) -> Result<EnrollmentStatus, EnrollError> {
    let mut tx = app.db.write().await?;
    let enrollment = own(&mut tx, request.enrollment_id, body, signature).await?;
    Ok(match enrollment.state {
        EnrollmentState::Pending if enrollment.is_open(app.now()) => EnrollmentStatus::Pending,
        EnrollmentState::Pending => {
            store::expire(&mut tx, enrollment.id).await?;
            tx.commit().await?;
            EnrollmentStatus::Expired
        }
        EnrollmentState::Approved => {
            let key = SealingPublicKey::from_bytes(&enrollment.sealing_public_key)
                .ok_or(EnrollError::SealingKey)?;
            let nonce = enrollment.nonce.ok_or(EnrollError::Seal)?;
            let sealed = seal_nonce(&key, enrollment.id, &nonce).map_err(|_| EnrollError::Seal)?;
            EnrollmentStatus::Approved { sealed_nonce: sealed }
        }
        EnrollmentState::Enrolled => EnrollmentStatus::Enrolled,
        EnrollmentState::Rejected => {
            EnrollmentStatus::Rejected { reason: enrollment.reason.unwrap_or_default() }
        }
        EnrollmentState::Expired => EnrollmentStatus::Expired,
        EnrollmentState::Revoked => EnrollmentStatus::Revoked,
    })
}

/// The device opened the nonce: it is enrolled, and gets its certificate. The same proof again gives the same one.
pub async fn prove(
    app: &App,
    request: &ProveRequest,
    body: &[u8],
    signature: &[u8],
    address: &str,
) -> Result<Enrolled, EnrollError> {
    let now = app.now();
    // So that no provider is asked for the authority's key while the database is locked. A failure is one where it's needed.
    let _ = app.root.look(&mut app.db.read().await?).await;
    let mut tx = app.db.write().await?;
    let enrollment = own(&mut tx, request.enrollment_id, body, signature).await?;
    let device_id = match (enrollment.state, enrollment.device_id) {
        (EnrollmentState::Approved | EnrollmentState::Enrolled, Some(device_id)) => device_id,
        (state, _) => return Err(EnrollError::NotApproved(state)),
    };
    if !enrollment.nonce.is_some_and(|nonce| same(&nonce, &request.nonce)) {
        return Err(EnrollError::Nonce);
    }
    if let Some((certificate, not_after)) = enrollment.certificate {
        return Ok(Enrolled { device_id, certificate, not_after });
    }
    let authority = Authority::load(&mut tx, &app.root, app.board_id).await?;
    let issued = authority.issue_device(app.board_id, device_id, &enrollment.tls_spki, now, &*app.random)?;
    if store::enroll(&mut tx, enrollment.id, &issued).await? != 1 {
        return Err(EnrollError::NotApproved(enrollment.state));
    }
    store::device_enrolled(&mut tx, device_id).await?;
    let entry = Entry::new(now, Who::device(device_id, address), Action::DeviceEnrolled)
        .client(enrollment.client_id)
        .device(device_id)
        .detail("serial", shared::crypto::hex(&issued.serial));
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Enrollment(enrollment.id));
    app.jobs.wake(Wake::Client(enrollment.client_id));
    Ok(Enrolled { device_id, certificate: issued.der, not_after: issued.not_after })
}

/// The enrollment, if the body was signed by its device.
async fn own(
    tx: &mut crate::db::Tx,
    id: EnrollmentId,
    body: &[u8],
    signature: &[u8],
) -> Result<Enrollment, EnrollError> {
    let enrollment = store::get(tx, id).await?.ok_or(EnrollError::Unknown)?;
    verify_p256(&enrollment.tls_spki, body, signature).map_err(|_| EnrollError::Signature)?;
    Ok(enrollment)
}

/// The P-256 public key of a CSR that asks for nothing else: no name, no extensions.
fn public_key_of(der: &[u8]) -> Result<Vec<u8>, EnrollError> {
    let (rest, csr) =
        X509CertificationRequest::from_der(der).map_err(|_| EnrollError::Csr("it is not PKCS#10 in DER"))?;
    if !rest.is_empty() {
        return Err(EnrollError::Csr("there are bytes after its end"));
    }
    let info = &csr.certification_request_info;
    if info.subject.iter().next().is_some() {
        return Err(EnrollError::Csr("it asks for a name of its own; the board names devices"));
    }
    if !info.attributes().is_empty() {
        return Err(EnrollError::Csr("it asks for extensions; the board decides what a certificate may do"));
    }
    let spki = info.subject_pki.raw;
    if !spki.starts_with(P256_SPKI_PREFIX) || spki.len() != P256_SPKI_PREFIX.len() + 64 {
        return Err(EnrollError::Csr("its key is not ECDSA P-256"));
    }
    csr.verify_signature().map_err(|_| EnrollError::Csr("its own signature doesn't fit its key"))?;
    Ok(spki.to_vec())
}

fn check_facts(facts: &Facts) -> Result<(), EnrollError> {
    let texts = [
        &facts.hardware_uuid,
        &facts.serial,
        &facts.model,
        &facts.os_version,
        &facts.host_name,
        &facts.managed_user,
        &facts.agent_version,
    ];
    if texts.iter().any(|text| text.chars().count() > 255 || text.chars().any(char::is_control)) {
        return Err(EnrollError::Facts("one is longer than 255 characters or has control characters"));
    }
    if facts.hardware_uuid.is_empty() || facts.host_name.is_empty() || facts.managed_user.is_empty() {
        return Err(EnrollError::Facts("hardware UUID, host name and managed user must be there"));
    }
    if facts.platform == Platform::Linux && !facts.dev {
        return Err(EnrollError::Facts("Linux devices are for development: they join with --dev"));
    }
    Ok(())
}
