use std::sync::Arc;
use std::time::Duration;

use rcgen::SigningKey as _;
use shared::ids::EnrollmentId;
use shared::protocol::enroll::{Enrolled, RenewRequest, renewal_bytes};
use shared::random::SystemRandom;

use super::{Channel, RenewError, SILENCE, confirm_renewal, late_renewals, renew};
use crate::audit::{self, Action};
use crate::db::Db;
use crate::db::testing::on_both;
use crate::enrollment::api::{Peer, PeerCertificate};
use crate::enrollment::{Standing, approve, check_certificate, revoke, seen, standing};
use crate::testing::{Fixture, TestDevice};

const ADDRESS: &str = "192.0.2.17";
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Joined {
    fixture: Fixture,
    device: TestDevice,
    enrollment_id: EnrollmentId,
    enrolled: Enrolled,
}

impl Joined {
    async fn new(db: Db) -> Self {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new("A-UUID", fixture.app.now());
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        let typed = device.fingerprint(&fixture.app, &answer);
        approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
        let enrolled = device.prove(&fixture.app, &answer).await.unwrap();
        Self { fixture, device, enrollment_id: answer.enrollment_id, enrolled }
    }

    /// Renews on a connection that shows this certificate, or none.
    async fn renew(&self, certificate: Option<&[u8]>) -> Result<Enrolled, RenewError> {
        let peer = self.peer(certificate);
        let nonce = peer.channel.challenge(&SystemRandom);
        renew(&self.fixture.app, &self.request(&nonce, &[3; 32]), &peer).await
    }

    fn peer(&self, certificate: Option<&[u8]>) -> Peer {
        Peer {
            address: ADDRESS.to_owned(),
            certificate: certificate
                .map(|der| PeerCertificate { device_id: self.enrolled.device_id, serial: serial(der) }),
            channel: Arc::new(Channel::new([3; 32])),
        }
    }

    fn request(&self, nonce: &[u8; 32], exporter: &[u8; 32]) -> RenewRequest {
        let signed = renewal_bytes(self.fixture.app.board_id, self.enrollment_id, nonce, exporter);
        RenewRequest { enrollment_id: self.enrollment_id, signature: self.device.tls.sign(&signed).unwrap() }
    }

    async fn used(&self, certificate: &[u8]) -> bool {
        let device = self.enrolled.device_id;
        check_certificate(&self.fixture.app, device, &serial(certificate), ADDRESS).await.is_ok()
    }

    async fn count(&self, action: Action) -> usize {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let entries = audit::page(&mut tx, None, 100).await.unwrap();
        entries.iter().filter(|stored| stored.entry.action == action).count()
    }
}

fn serial(der: &[u8]) -> Vec<u8> {
    x509_parser::parse_x509_certificate(der).unwrap().1.raw_serial().to_vec()
}

#[tokio::test]
async fn the_old_certificate_is_good_until_the_new_one_is_used_and_an_alarm_afterwards() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        let first = &joined.enrolled.certificate;
        assert!(joined.used(first).await);
        joined.fixture.clock.advance(DAY * 4);
        let second = joined.renew(Some(first)).await.unwrap();
        assert_eq!(second.device_id, joined.enrolled.device_id);
        assert_ne!(serial(&second.certificate), serial(first));
        assert!(joined.used(first).await, "a lost answer strands nobody");
        assert_eq!(joined.renew(Some(first)).await.unwrap(), second, "it gets the same one again");
        assert_eq!(joined.count(Action::CertificateRenewed).await, 1);

        assert!(joined.used(&second.certificate).await);
        let mut tx = joined.fixture.app.db.read().await.unwrap();
        let stands = standing(&mut tx, second.device_id, &serial(first)).await.unwrap();
        assert_eq!(stands, Standing::Replaced);
        drop(tx);
        assert!(!joined.used(first).await, "the first use of the new one retires the old");
        assert!(matches!(joined.renew(Some(first)).await, Err(RenewError::Certificate(_))));
        assert_eq!(joined.count(Action::DeviceRefused).await, 2, "a stolen copy shows");
    })
    .await;
}

#[tokio::test]
async fn an_expired_certificate_is_not_needed_and_keys_and_device_stay() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        joined.fixture.clock.advance(DAY * 30);
        let renewed = joined.renew(None).await.unwrap();
        assert_eq!(renewed.device_id, joined.enrolled.device_id);
        assert!(renewed.not_after > joined.fixture.app.now());
        assert!(joined.used(&renewed.certificate).await);
        let (_, parsed) = x509_parser::parse_x509_certificate(&renewed.certificate).unwrap();
        let (_, before) = x509_parser::parse_x509_certificate(&joined.enrolled.certificate).unwrap();
        assert_eq!(parsed.public_key().raw, before.public_key().raw);
        assert_eq!(parsed.subject_alternative_name().unwrap(), before.subject_alternative_name().unwrap());
    })
    .await;
}

#[tokio::test]
async fn only_the_devices_signature_over_this_nonce_and_this_connection_renews() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        let app = &joined.fixture.app;
        let peer = joined.peer(None);
        let unasked = renew(app, &joined.request(&[0; 32], &[3; 32]), &peer).await;
        assert!(matches!(unasked, Err(RenewError::NoChallenge)));

        let nonce = peer.channel.challenge(&SystemRandom);
        let other_connection = renew(app, &joined.request(&nonce, &[4; 32]), &peer).await;
        assert!(matches!(other_connection, Err(RenewError::Signature)));
        let again = renew(app, &joined.request(&nonce, &[3; 32]), &peer).await;
        assert!(matches!(again, Err(RenewError::NoChallenge)), "one try for each");

        let earlier = peer.channel.challenge(&SystemRandom);
        peer.channel.challenge(&SystemRandom);
        let stale = renew(app, &joined.request(&earlier, &[3; 32]), &peer).await;
        assert!(matches!(stale, Err(RenewError::Signature)));

        let nonce = peer.channel.challenge(&SystemRandom);
        let other = TestDevice::new("B-UUID", app.now());
        let signed = renewal_bytes(app.board_id, joined.enrollment_id, &nonce, &[3; 32]);
        let forged =
            RenewRequest { signature: other.tls.sign(&signed).unwrap(), ..joined.request(&nonce, &[3; 32]) };
        assert!(matches!(renew(app, &forged, &peer).await, Err(RenewError::Signature)));

        for _ in 0..30 {
            let nonce = peer.channel.challenge(&SystemRandom);
            let _ = renew(app, &joined.request(&nonce, &[4; 32]), &peer).await;
        }
        assert!(matches!(joined.renew(None).await, Err(RenewError::TooMany)));
        joined.fixture.clock.advance(Duration::from_secs(3601));
        joined.renew(None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_revoked_device_and_a_certificate_of_another_renew_nothing() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        let app = &joined.fixture.app;
        let client = joined.fixture.client("Another", &["base"]).await;
        let (_, other) = joined.fixture.enroll(client, "B-UUID").await;
        let mut peer = joined.peer(Some(&joined.enrolled.certificate));
        peer.certificate =
            Some(PeerCertificate { device_id: other.device_id, serial: serial(&other.certificate) });
        let nonce = peer.channel.challenge(&SystemRandom);
        let refused = renew(app, &joined.request(&nonce, &[3; 32]), &peer).await;
        assert!(matches!(refused, Err(RenewError::NotEnrolled)));

        revoke(app, Fixture::who(), joined.enrolled.device_id, "It was stolen").await.unwrap();
        assert!(matches!(joined.renew(None).await, Err(RenewError::NotEnrolled)));
    })
    .await;
}

#[tokio::test]
async fn after_ninety_days_of_silence_a_consultant_confirms() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        let (app, clock) = (&joined.fixture.app, &joined.fixture.clock);
        let device = joined.enrolled.device_id;
        clock.advance(DAY);
        let mut tx = app.db.write().await.unwrap();
        seen(&mut tx, device, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        clock.advance(SILENCE + DAY);
        assert_eq!(confirm_renewal(app, Fixture::who(), device).await.unwrap_err().public.status, 409);
        for _ in 0..2 {
            assert!(matches!(joined.renew(None).await, Err(RenewError::Waits(91))));
        }
        assert_eq!(joined.count(Action::RenewalAsked).await, 1);
        let mut tx = app.db.read().await.unwrap();
        let waiting = late_renewals(&mut tx).await.unwrap();
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].device_id, device);
        assert_eq!(crate::enrollment::pending_count(&mut tx, app.now()).await.unwrap(), 1);
        drop(tx);

        confirm_renewal(app, Fixture::who(), device).await.unwrap();
        joined.renew(None).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        assert!(late_renewals(&mut tx).await.unwrap().is_empty());
        drop(tx);
        clock.advance(SILENCE);
        assert!(matches!(joined.renew(None).await, Err(RenewError::Waits(_))), "it confirmed one, not all");
    })
    .await;
}
