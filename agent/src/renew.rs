//! A new certificate for the same keys, in time or late: the device signs the board's nonce and the TLS connection.

use std::time::Duration;

use rcgen::SigningKey as _;
use shared::protocol::enroll::{Enrolled, RenewRequest, RenewalChallenge, renewal_bytes};
use shared::time::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::Identity;
use crate::enroll::certificate;
use crate::http::{Connection, HttpError};
use crate::tls::{Board, ClientIdentity, TlsError};
use crate::vault::DeviceKeys;

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the board's challenge is not 32 bytes")]
    Challenge,
    #[error("the renewal could not be signed")]
    Sign,
    #[error("the new certificate from the board is refused: {0}")]
    Certificate(&'static str),
}

impl RenewError {
    /// The connection didn't come to stand, or broke off before the board said anything.
    fn without_an_answer(&self) -> bool {
        match self {
            Self::Http(HttpError::Tls(_) | HttpError::Broken(_)) | Self::Tls(_) => true,
            Self::Http(
                HttpError::Problem(_)
                | HttpError::Status(_)
                | HttpError::Timeout
                | HttpError::Answer(_)
                | HttpError::Sign,
            )
            | Self::Challenge
            | Self::Sign
            | Self::Certificate(_) => false,
        }
    }

    /// With which status the board said no.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Http(HttpError::Problem(problem)) => Some(problem.status),
            Self::Http(_) | Self::Tls(_) | Self::Challenge | Self::Sign | Self::Certificate(_) => None,
        }
    }
}

/// The board as this device meets it: with its certificate.
pub fn board(identity: &Identity, keys: &DeviceKeys) -> Result<Board, TlsError> {
    let client = ClientIdentity { certificate: &identity.certificate, key_pkcs8: keys.tls.serialized_der() };
    Board::new(&identity.board, identity.pins()?, Some(client))
}

/// When half of the certificate's life is over, give or take a tenth of it, so that a fleet doesn't come at once.
/// `chance` is any number. A certificate that can't be read is renewed at once.
pub fn due(certificate: &[u8], not_after: Timestamp, chance: u64) -> Timestamp {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Timestamp::from_micros(0) };
    let validity = parsed.validity();
    let seconds = validity.not_after.timestamp().saturating_sub(validity.not_before.timestamp());
    let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let fifth = u64::try_from((life / 5).as_micros()).unwrap_or(0);
    let left = life * 2 / 5 + Duration::from_micros(chance % fifth.saturating_add(1));
    not_after.before(left)
}

/// Asks for a new certificate, and checks that it is ours. One that has ended isn't shown: the handshake would fail. The
/// board may see that otherwise than this machine's clock; then it is asked once more without.
pub async fn renew(identity: &Identity, keys: &DeviceKeys, now: Timestamp) -> Result<Enrolled, RenewError> {
    if now < identity.not_after {
        match ask(&board(identity, keys)?, identity, keys, now).await {
            Err(error) if error.without_an_answer() => {
                tracing::info!(%error, "asking for a new certificate without showing the old one");
            }
            said => return said,
        }
    }
    ask(&Board::new(&identity.board, identity.pins()?, None)?, identity, keys, now).await
}

async fn ask(
    board: &Board,
    identity: &Identity,
    keys: &DeviceKeys,
    now: Timestamp,
) -> Result<Enrolled, RenewError> {
    let mut connection = Connection::open(board).await?;
    let challenge: RenewalChallenge = connection.post("/renew/challenge", &serde_json::Map::new()).await?;
    let nonce: [u8; 32] = challenge.nonce.try_into().map_err(|_| RenewError::Challenge)?;
    let signed = renewal_bytes(identity.board_id, identity.enrollment_id, &nonce, &connection.exporter);
    let signature = keys.tls.sign(&signed).map_err(|_| RenewError::Sign)?;
    let request = RenewRequest { enrollment_id: identity.enrollment_id, signature };
    let enrolled: Enrolled = connection.post("/renew", &request).await?;
    if enrolled.device_id != identity.device_id {
        return Err(RenewError::Certificate("it is for another device"));
    }
    // Once this device said that it has the next authority's pin, its certificates may come from there.
    let by = |ca: &[u8]| certificate::check(&enrolled, &keys.tls, ca, identity.board_id, now);
    let checked = by(&connection.ca).or_else(|refused| match &identity.next_ca {
        Some(next) => by(&next.certificate),
        None => Err(refused),
    });
    checked.map_err(RenewError::Certificate)?;
    Ok(enrolled)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use shared::time::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn it_is_due_around_half_of_its_life() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let now = SystemClock.now();
        let mut params = CertificateParams::default();
        params.not_before = now.to_datetime();
        params.not_after = now.after(week).to_datetime();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut seen = Vec::new();
        for chance in [0, 1, 999_999_999_999, u64::MAX / 3, u64::MAX] {
            let share =
                due(certificate.der(), now.after(week), chance).since(now).as_secs_f64() / week.as_secs_f64();
            assert!((0.399..=0.601).contains(&share), "{chance}: {share}");
            seen.push(share);
        }
        assert!(seen[0] > 0.59 && seen.iter().any(|share| *share < 0.55), "it spreads: {seen:?}");
        assert!(due(b"nothing", now.after(week), 0) < now);
    }
}
