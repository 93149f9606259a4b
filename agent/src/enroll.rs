//! Joining a board: make the keys, ask, show the fingerprint, wait, prove, keep the certificate.
//!
//! Everything can be run again: the keys and the answers are kept until the identity is saved, so a lost reply
//! strands nobody.

pub mod certificate;

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use serde::{Deserialize, Serialize};
use shared::catalog::Platform;
use shared::crypto::{Fingerprint, FingerprintParts, SealingKey, base64, hex, open_nonce, sha256};
use shared::ids::{DeviceId, EnrollmentId};
use shared::protocol::enroll::{
    Enrolled, EnrollmentStatus, Facts, JoinAnswer, JoinRequest, ProveRequest, StatusRequest,
};
use shared::random::Random;
use shared::time::{Clock, Timestamp};

use crate::config::{self, ConfigError, Identity, ManagedUser, Paths, Trusted};
use crate::http::{self, HttpError};
use crate::platform::{self, PlatformError};
use crate::tls::{self, Board, Pin, TlsError};
use crate::vault::{self, DeviceKeys, StoreError, Vault};

/// Between two tries when the board can't be reached.
const RETRY: Duration = Duration::from_secs(2);

pub struct JoinOptions {
    pub board: String,
    pub pin: String,
    pub code: String,
    pub publisher_key: Option<PathBuf>,
    /// Releases of the agent are believed by it.
    pub release_key: Option<PathBuf>,
    /// Its word on the other two is believed.
    pub recovery_key: Option<PathBuf>,
    pub dev: bool,
    pub managed_user: Option<String>,
    pub hardware_uuid: Option<String>,
}

/// What a person wants to see while joining goes on.
pub enum Progress {
    Waiting {
        client: String,
        fingerprint: Fingerprint,
        until: Timestamp,
    },
    Approved,
    /// Passing trouble; it is tried again.
    Trouble(String),
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(
        "this data folder belongs to device {0} already. Use another --data folder, or remove this one to join again"
    )]
    AlreadyJoined(DeviceId),
    #[error(
        "no publisher key: without one no catalog can be trusted. Name the publisher's public key with --publisher-key FILE"
    )]
    NoPublisherKey,
    #[error(
        "on Linux secrets go to files, which is for development and tests only: add --dev if this is such a machine"
    )]
    NeedsDev,
    #[error(
        "the software is for an account that people use, not for root. Name it with --managed-user NAME, or join with sudo from that account"
    )]
    ManagedRoot,
    #[error("this operating system is not supported")]
    Platform,
    #[error("the enrollment was rejected: {0}")]
    Rejected(String),
    #[error("the request to join has expired. Make a new join code on the board's page and join again")]
    Expired,
    #[error("this enrollment was revoked. Make a new join code on the board's page and join again")]
    Revoked,
    #[error("the board answered with a state that this agent does not know; it may need a newer agent")]
    UnknownState,
    #[error("the board's proof can't be opened with this device's key: {0}")]
    Nonce(#[from] shared::crypto::OpenError),
    #[error(
        "the board says that this device is enrolled, but the proof was never made here: use a new join code"
    )]
    NoNonce,
    #[error("the certificate from the board is refused: {0}")]
    Certificate(&'static str),
    #[error("the keys can't be made: {0}")]
    Keys(#[from] rcgen::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Machine(#[from] PlatformError),
}

/// A join that has begun: kept so that running it again continues it.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    /// SHA-256 over board, pin and code: another code means another enrollment, with other keys.
    request: String,
    /// The proof, once it was opened.
    nonce: Option<String>,
}

pub async fn join(
    paths: &Paths,
    options: &JoinOptions,
    clock: &dyn Clock,
    random: &dyn Random,
    progress: &mut dyn FnMut(Progress),
) -> Result<DeviceId, JoinError> {
    let platform = Platform::current().ok_or(JoinError::Platform)?;
    match Identity::load(paths) {
        Ok(identity) => return Err(JoinError::AlreadyJoined(identity.device_id)),
        Err(ConfigError::NotJoined { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if platform == Platform::Linux && !options.dev {
        return Err(JoinError::NeedsDev);
    }
    if options.publisher_key.is_none() && config::load_publisher_keys(paths)?.is_empty() {
        return Err(JoinError::NoPublisherKey);
    }
    let pin: Pin = options.pin.parse()?;
    let board = Board::new(&options.board, pin, None)?;
    let managed_user = managed_user(paths, options)?;

    paths.create()?;
    for (what, file) in [
        (Trusted::Publisher, &options.publisher_key),
        (Trusted::Release, &options.release_key),
        (Trusted::Recovery, &options.recovery_key),
    ] {
        file.iter().try_for_each(|file| config::add_key(paths, what, file))?;
    }
    let vault = vault::open(paths, options.dev)?;
    let (keys, mut begun) = begin(paths, &vault, options, random)?;

    let request = JoinRequest {
        code: options.code.trim().to_uppercase(),
        csr: csr(&keys.tls)?,
        sealing_public_key: keys.sealing.public_key().as_bytes().to_vec(),
        facts: facts(options, &managed_user, platform, clock)?,
    };
    let joined: http::Answered<JoinAnswer> =
        http::post_signed(&board, "/enroll/join", &request, &keys.tls).await?;
    let (ca, answer) = (joined.ca, joined.answer);
    let ca_spki = tls::spki_of(&ca).ok_or(JoinError::Certificate("the CA can't be read"))?;
    progress(Progress::Waiting {
        client: answer.client_name.clone(),
        fingerprint: Fingerprint::of(&FingerprintParts {
            ca_spki: &ca_spki,
            board_id: answer.board_id,
            client_id: answer.client_id,
            enrollment_id: answer.enrollment_id,
            tls_spki: &keys.tls.subject_public_key_info(),
            sealing_public_key: keys.sealing.public_key().as_bytes(),
        }),
        until: answer.expires,
    });

    let nonce = match wait_for_approval(&board, answer.enrollment_id, &keys.tls, clock, progress).await? {
        Some(sealed) => open_nonce(&keys.sealing, answer.enrollment_id, &sealed)?.to_vec(),
        None => {
            begun.nonce.as_deref().and_then(|nonce| base64::decode(nonce).ok()).ok_or(JoinError::NoNonce)?
        }
    };
    begun.nonce = Some(base64::encode(&nonce));
    config::save_json(&paths.join(), &begun)?;
    progress(Progress::Approved);

    let enrolled = prove(&board, answer.enrollment_id, &nonce, &keys.tls, clock, progress).await?;
    certificate::check(&enrolled, &keys.tls, &ca, answer.board_id, clock.now())
        .map_err(JoinError::Certificate)?;
    Identity {
        board: options.board.clone(),
        pin: options.pin.trim().to_lowercase(),
        next_ca: None,
        board_id: answer.board_id,
        client_id: answer.client_id,
        client_name: answer.client_name,
        enrollment_id: answer.enrollment_id,
        device_id: enrolled.device_id,
        certificate: enrolled.certificate,
        not_after: enrolled.not_after,
        managed_user,
        dev: options.dev,
        hardware_uuid: options.hardware_uuid.clone(),
        extra_path: if options.dev { node_folder() } else { Vec::new() },
    }
    .save(paths)?;
    // The identity is what counts; a left-over file would only make the next join look begun.
    let _ = std::fs::remove_file(paths.join());
    Ok(enrolled.device_id)
}

/// The keys of this request: those of a begun join, else new ones, stored before anything is sent.
fn begin(
    paths: &Paths,
    vault: &Vault,
    options: &JoinOptions,
    random: &dyn Random,
) -> Result<(DeviceKeys, Begun), JoinError> {
    let request = [&options.board, &options.pin.trim().to_lowercase(), &options.code.trim().to_uppercase()]
        .map(String::as_str)
        .join("\n");
    let request = hex(&sha256(request.as_bytes()));
    if let Some(begun) = config::load_json::<Begun>(&paths.join())?
        && begun.request == request
        && let Some(keys) = vault.keys()?
    {
        return Ok((keys, begun));
    }
    let keys = DeviceKeys {
        tls: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        sealing: SealingKey::generate(random),
    };
    // A keychain outlives its data folder: what is in it was for an earlier enrollment.
    vault.clear()?;
    vault.set_keys(&keys)?;
    let begun = Begun { request, nonce: None };
    config::save_json(&paths.join(), &begun)?;
    Ok((keys, begun))
}

/// A PKCS#10 that asks for nothing: the board takes the public key and nothing else.
fn csr(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn facts(
    options: &JoinOptions,
    user: &ManagedUser,
    platform: Platform,
    clock: &dyn Clock,
) -> Result<Facts, JoinError> {
    let machine = platform::machine()?;
    Ok(Facts {
        hardware_uuid: options.hardware_uuid.clone().unwrap_or(machine.hardware_uuid),
        serial: machine.serial,
        model: machine.model,
        platform,
        os_version: machine.os_version,
        host_name: machine.host_name,
        managed_user: user.name.clone(),
        agent_version: crate::version().to_owned(),
        clock: clock.now(),
        dev: options.dev,
    })
}

/// In development the managed user's home is below the data folder: nothing outside it is changed.
fn managed_user(paths: &Paths, options: &JoinOptions) -> Result<ManagedUser, JoinError> {
    let mut user = ManagedUser::find(options.managed_user.as_deref())?;
    if options.dev {
        user.home = paths.dev_home();
    } else if user.uid == 0 {
        return Err(JoinError::ManagedRoot);
    }
    Ok(user)
}

/// The sealed nonce, or nothing when the board says that this enrollment is proven already.
async fn wait_for_approval(
    board: &Board,
    enrollment_id: EnrollmentId,
    key: &KeyPair,
    clock: &dyn Clock,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Vec<u8>>, JoinError> {
    let mut in_trouble = false;
    loop {
        let asked = clock.now();
        let request = StatusRequest { enrollment_id, at: asked };
        match http::post_signed::<EnrollmentStatus>(board, "/enroll/status", &request, key).await {
            Ok(answered) => {
                in_trouble = false;
                match answered.answer {
                    EnrollmentStatus::Pending => {}
                    EnrollmentStatus::Approved { sealed_nonce } => return Ok(Some(sealed_nonce)),
                    EnrollmentStatus::Enrolled => return Ok(None),
                    EnrollmentStatus::Rejected { reason } => return Err(JoinError::Rejected(reason)),
                    EnrollmentStatus::Expired => return Err(JoinError::Expired),
                    EnrollmentStatus::Revoked => return Err(JoinError::Revoked),
                    EnrollmentStatus::Unknown => return Err(JoinError::UnknownState),
                }
                if clock.now().since(asked) < Duration::from_secs(1) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Err(error) if error.is_passing() => {
                if !std::mem::replace(&mut in_trouble, true) {
                    progress(Progress::Trouble(error.to_string()));
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn prove(
    board: &Board,
    enrollment_id: EnrollmentId,
    nonce: &[u8],
    key: &KeyPair,
    clock: &dyn Clock,
    progress: &mut dyn FnMut(Progress),
) -> Result<Enrolled, JoinError> {
    loop {
        let request = ProveRequest { enrollment_id, nonce: nonce.to_vec(), at: clock.now() };
        match http::post_signed(board, "/enroll/prove", &request, key).await {
            Ok(answered) => return Ok(answered.answer),
            Err(error) if error.is_passing() => {
                progress(Progress::Trouble(error.to_string()));
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn node_folder() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| {
            std::env::split_paths(&path)
                .filter(|folder| folder.is_absolute() && folder.join("node").is_file())
                .take(1)
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
