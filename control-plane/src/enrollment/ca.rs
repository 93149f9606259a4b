//! The board's certificate authority: ECDSA P-256, its key wrapped under a derived key. Certificates are built from a
//! public key alone; nothing that a requester writes gets into one.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use shared::crypto::ByteString;
use shared::ids::{BoardId, DeviceId};
use shared::protocol::LISTENER_NAME;
use shared::random::{self, Random};
use shared::secret::Secret;
use shared::time::{Clock, Timestamp};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::rotation::{self, AuthorityState};
use super::store;
use crate::aead;
use crate::db::Tx;
use crate::keys::{Key, KeyError, Purpose, RootKey, RootVersion};

const CA_YEARS: u64 = 10;
const BACKDATED: Duration = Duration::from_secs(60);
pub const DEVICE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
pub const LISTENER_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("this board has no certificate authority yet: run `board init`")]
    Missing,
    #[error("the authority's key doesn't open under this root key")]
    Closed,
    #[error("a certificate can't be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the authority's certificate can't be read")]
    Unreadable,
    #[error("the authority was changed at this moment: try again")]
    Raced,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

pub struct Authority {
    /// Counts up with each rotation.
    pub number: i64,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The next authority, not stored yet.
pub struct Successor {
    pub certificate: Vec<u8>,
    pub wrapped: Vec<u8>,
    /// Its key, certified by the authority before it.
    pub proof: Vec<u8>,
}

/// A certificate that was just made.
#[derive(Clone, Debug)]
pub struct Issued {
    pub der: Vec<u8>,
    pub serial: Vec<u8>,
    pub not_after: Timestamp,
}

impl Authority {
    /// Makes the authority and stores it. Called once, by `init`.
    pub async fn create(
        tx: &mut Tx,
        root: &RootKey,
        board_id: BoardId,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let now = clock.now();
        let certificate =
            params(board_id, now.before(BACKDATED), now, random).self_signed(&key)?.der().clone();
        let wrapped = wrap(&root.newest(), board_id, &key, random)?;
        store::insert_authority(tx, &certificate, &wrapped, now).await?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { number: 1, certificate, issuer })
    }

    /// A new key and certificate, and this authority's word for it. The proof's beginning is when it was made: of two, the
    /// later one counts.
    pub fn successor(
        &self,
        root: &RootVersion,
        board_id: BoardId,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<Successor, CaError> {
        let key = KeyPair::generate()?;
        let certificate = params(board_id, now.before(BACKDATED), now, random).self_signed(&key)?;
        let proof = params(board_id, now, now, random).signed_by(&key, &self.issuer)?;
        Ok(Successor {
            certificate: certificate.der().to_vec(),
            wrapped: wrap(root, board_id, &key, random)?,
            proof: proof.der().to_vec(),
        })
    }

    /// The authority that issues, and that the listener shows.
    pub async fn load(tx: &mut Tx, root: &RootKey, board_id: BoardId) -> Result<Self, CaError> {
        Self::load_in(tx, root, board_id, AuthorityState::Active).await
    }

    /// The authority that a device's certificates come from: the coming one as soon as the device keeps its pin.
    pub async fn load_for(
        tx: &mut Tx,
        root: &RootKey,
        board_id: BoardId,
        device_id: DeviceId,
    ) -> Result<Self, CaError> {
        let state = rotation::issuer_of(tx, device_id).await?;
        Self::load_in(tx, root, board_id, state).await
    }

    async fn load_in(
        tx: &mut Tx,
        root: &RootKey,
        board_id: BoardId,
        state: AuthorityState,
    ) -> Result<Self, CaError> {
        let (number, certificate, wrapped) = store::authority(tx, state).await?.ok_or(CaError::Missing)?;
        let pkcs8 = match unwrap(&root.keys_for(Purpose::CaWrap), board_id, &wrapped) {
            Some(pkcs8) => pkcs8,
            // Another process may have moved it to a root key that this one hasn't seen.
            None => {
                root.refresh(tx).await?;
                unwrap(&root.keys_for(Purpose::CaWrap), board_id, &wrapped).ok_or(CaError::Closed)?
            }
        };
        let key = KeyPair::try_from(pkcs8.expose().as_slice())?;
        let certificate = CertificateDer::from(certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { number, certificate, issuer })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether this authority signed a certificate.
    pub fn issued(&self, certificate: &[u8]) -> bool {
        let Ok((_, own)) = X509Certificate::from_der(&self.certificate) else { return false };
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, parsed)| parsed.verify_signature(Some(own.public_key())).is_ok())
    }

    /// DER of the SubjectPublicKeyInfo: what agents pin.
    pub fn spki(&self) -> Result<Vec<u8>, CaError> {
        spki_of(&self.certificate)
    }

    /// For a device's TLS key: URI SAN `spiffe://BOARD/device/DEVICE`, client authentication only, seven days.
    pub fn issue_device(
        &self,
        board_id: BoardId,
        device_id: DeviceId,
        tls_spki: &[u8],
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<Issued, CaError> {
        let uri = format!("spiffe://{board_id}/device/{device_id}");
        let san = SanType::URI(uri.try_into()?);
        let key = SubjectPublicKeyInfo::from_der(tls_spki)?;
        self.issue(san, ExtendedKeyUsagePurpose::ClientAuth, DEVICE_TTL, &key, now, random)
    }

    /// For the agents' listener, with a fresh key.
    pub fn issue_listener(&self, now: Timestamp, random: &dyn Random) -> Result<(Issued, KeyPair), CaError> {
        let key = KeyPair::generate()?;
        let san = SanType::DnsName(LISTENER_NAME.try_into()?);
        let issued = self.issue(san, ExtendedKeyUsagePurpose::ServerAuth, LISTENER_TTL, &key, now, random)?;
        Ok((issued, key))
    }

    fn issue(
        &self,
        san: SanType,
        usage: ExtendedKeyUsagePurpose,
        ttl: Duration,
        key: &impl rcgen::PublicKeyData,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<Issued, CaError> {
        let serial = serial(random);
        let not_after = now.after(ttl);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![san];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now.before(BACKDATED).to_datetime();
        params.not_after = not_after.to_datetime();
        params.serial_number = Some(serial.clone());
        let der = params.signed_by(key, &self.issuer)?.der().to_vec();
        Ok(Issued { der, serial: serial.to_bytes(), not_after })
    }
}

/// Wraps every authority's key under `newest` instead of `old`; one that is there already stays. Gives how many moved.
pub async fn rewrap(
    tx: &mut Tx,
    old: &RootVersion,
    newest: &RootVersion,
    board_id: BoardId,
    random: &dyn Random,
) -> Result<u64, CaError> {
    let (from, to) = (old.derive(Purpose::CaWrap), newest.derive(Purpose::CaWrap));
    let mut moved = 0;
    for (number, wrapped) in store::wrapped_authorities(tx).await? {
        if aead::open(&to, &aad(board_id), &wrapped).is_ok() {
            continue;
        }
        let pkcs8 = aead::open(&from, &aad(board_id), &wrapped).map_err(|_| CaError::Closed)?;
        let again = aead::seal(&to, &aad(board_id), pkcs8.expose(), random).map_err(|_| CaError::Closed)?;
        if store::rewrap_authority(tx, number, &wrapped, &again).await? != 1 {
            return Err(CaError::Raced);
        }
        moved += 1;
    }
    Ok(moved)
}

fn unwrap(keys: &[Key], board_id: BoardId, wrapped: &[u8]) -> Option<Secret<Vec<u8>>> {
    keys.iter().find_map(|key| aead::open(key, &aad(board_id), wrapped).ok())
}

/// DER of a certificate's SubjectPublicKeyInfo.
pub fn spki_of(certificate: &[u8]) -> Result<Vec<u8>, CaError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CaError::Unreadable)?;
    Ok(parsed.public_key().raw.to_vec())
}

/// What an authority's certificate says, whoever signs it.
fn params(
    board_id: BoardId,
    not_before: Timestamp,
    now: Timestamp,
    random: &dyn Random,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Board {board_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = not_before.to_datetime();
    params.not_after = now.after(Duration::from_secs(CA_YEARS * 365 * 24 * 3600)).to_datetime();
    params.serial_number = Some(serial(random));
    params
}

fn wrap(
    root: &RootVersion,
    board_id: BoardId,
    key: &KeyPair,
    random: &dyn Random,
) -> Result<Vec<u8>, CaError> {
    let pkcs8 = Secret::new(key.serialize_der());
    aead::seal(&root.derive(Purpose::CaWrap), &aad(board_id), pkcs8.expose(), random)
        .map_err(|_| CaError::Closed)
}

/// 127 random bits, positive, without a leading zero byte (RFC 5280 section 4.1.2.2).
fn serial(random: &dyn Random) -> SerialNumber {
    let mut bytes: [u8; 16] = random::bytes(random);
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn aad(board_id: BoardId) -> Vec<u8> {
    ByteString::labelled("board/ca-wrap/v1").fixed(board_id.as_bytes()).finish()
}
