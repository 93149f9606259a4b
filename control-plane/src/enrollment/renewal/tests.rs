use std::sync::Arc;
use std::time::Duration;

use rcgen::{PublicKeyData as _, SigningKey as _};
use shared::ids::EnrollmentId;
use shared::protocol::enroll::{Enrolled, RenewRequest, renewal_bytes};
use shared::random::SystemRandom;

use super::{Channel, RenewError, SILENCE, confirm_renewal, late_renewals, renew, store};
use crate::audit::{self, Action};
use crate::db::Db;
use crate::db::testing::on_both;
use crate::enrollment::api::{Peer, PeerCertificate};
use crate::enrollment::ca::Authority;
use crate::enrollment::{CertificateRefused, Standing, approve, check_certificate, revoke, seen, standing};
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
            authority: 1,
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
        assert_eq!(joined.count(Action::DeviceRefused).await, 1, "a stolen copy shows");
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
    })
    .await;
}

#[tokio::test]
async fn strangers_are_held_up_and_nobody_behind_their_address_with_them() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        joined.fixture.clock.advance(DAY * 4);
        let app = &joined.fixture.app;
        let peer = joined.peer(None);
        let ask = async |unknown: bool| {
            let nonce = peer.channel.challenge(&SystemRandom);
            let mut request = joined.request(&nonce, &[4; 32]);
            if unknown {
                request.enrollment_id = EnrollmentId::new(&*app.clock, &SystemRandom);
            }
            renew(app, &request, &peer).await
        };
        for n in 0..30 {
            let refused = ask(n % 2 == 0).await.unwrap_err();
            assert!(matches!(refused, RenewError::Unknown | RenewError::Signature), "{refused}");
        }
        for unknown in [true, false] {
            assert!(matches!(ask(unknown).await, Err(RenewError::TooMany)));
        }
        let renewed = joined.renew(None).await.unwrap();
        assert_ne!(renewed.certificate, joined.enrolled.certificate);
        joined.fixture.clock.advance(Duration::from_secs(3601));
        assert!(matches!(ask(true).await, Err(RenewError::Unknown)));
    })
    .await;
}

#[tokio::test]
async fn asking_over_and_over_makes_no_certificate_and_no_entry() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        let first = joined.enrolled.certificate.clone();
        for _ in 0..5 {
            assert!(joined.used(&first).await);
            assert_eq!(joined.renew(Some(&first)).await.unwrap().certificate, first);
        }
        assert_eq!(joined.count(Action::CertificateRenewed).await, 0);
        joined.fixture.clock.advance(DAY * 4);
        let second = joined.renew(Some(&first)).await.unwrap().certificate;
        assert_ne!(second, first);
        assert!(joined.used(&second).await);
        for _ in 0..5 {
            assert_eq!(joined.renew(Some(&second)).await.unwrap().certificate, second);
            assert!(!joined.used(&first).await);
        }
        assert_eq!(joined.count(Action::CertificateRenewed).await, 1);
        assert_eq!(joined.count(Action::DeviceRefused).await, 1, "a stale one is written once an hour");
        joined.fixture.clock.advance(Duration::from_secs(3601));
        assert!(!joined.used(&first).await);
        assert_eq!(joined.count(Action::DeviceRefused).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_while_it_is_looked_at_is_stale() {
    on_both(|db| async move {
        let joined = Joined::new(db).await;
        let (app, device) = (joined.fixture.app.clone(), joined.enrolled.device_id);
        let first = serial(&joined.enrolled.certificate);
        let mut tx = app.db.write().await.unwrap();
        let serials = crate::enrollment::store::serials(&mut tx, device).await.unwrap().unwrap();
        assert_eq!(serials, (None, Some(first.clone())), "it wasn't used yet");
        let authority = Authority::load(&mut tx, &app.root, app.board_id).await.unwrap();
        let spki = joined.device.tls.subject_public_key_info();
        let issued = authority.issue_device(app.board_id, device, &spki, app.now(), &SystemRandom).unwrap();
        assert_eq!(store::issue(&mut tx, joined.enrollment_id, &issued, &serials).await.unwrap(), 1);
        let looked =
            tokio::spawn(async move { check_certificate(&app, device, &first, ADDRESS).await.map(|_| ()) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!looked.is_finished(), "it waits for whoever writes");
        tx.commit().await.unwrap();
        assert!(matches!(looked.await.unwrap(), Err(CertificateRefused::Stale)));
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
        let renewed = joined.renew(None).await.unwrap();
        assert_eq!(joined.renew(None).await.unwrap(), renewed, "the answer was lost: it is given again");
        clock.advance(DAY * 6);
        let later = joined.renew(None).await.unwrap();
        assert_ne!(later, renewed, "it is confirmed, also when the first one is nearly over");
        assert!(joined.used(&later.certificate).await);
        assert_eq!(joined.count(Action::RenewalAsked).await, 1);
        let mut tx = app.db.read().await.unwrap();
        assert!(late_renewals(&mut tx).await.unwrap().is_empty());
        drop(tx);
        for times in 2..4 {
            clock.advance(SILENCE + DAY);
            assert!(
                matches!(joined.renew(None).await, Err(RenewError::Waits(_))),
                "it confirmed one, not all"
            );
            assert_eq!(joined.count(Action::RenewalAsked).await, times);
            // Confirmed, and then it doesn't come: it has to be confirmed again.
            confirm_renewal(app, Fixture::who(), device).await.unwrap();
        }
        joined.renew(None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_mac_that_joined_again_after_a_long_silence_has_just_been_heard() {
    on_both(|db| async move {
        let mut joined = Joined::new(db).await;
        let fixture = &joined.fixture;
        let device = joined.enrolled.device_id;
        let mut tx = fixture.app.db.write().await.unwrap();
        seen(&mut tx, device, fixture.app.now()).await.unwrap();
        let client = crate::enrollment::client_of(&mut tx, device).await.unwrap();
        tx.commit().await.unwrap();
        fixture.clock.advance(SILENCE + DAY);
        let again = TestDevice::new("A-UUID", fixture.app.now());
        let answer = again.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        let typed = again.fingerprint(&fixture.app, &answer);
        approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
        let enrolled = again.prove(&fixture.app, &answer).await.unwrap();
        assert_eq!(enrolled.device_id, device);
        fixture.clock.advance(DAY * 4);
        (joined.device, joined.enrollment_id, joined.enrolled) = (again, answer.enrollment_id, enrolled);
        joined.renew(None).await.unwrap();
    })
    .await;
}
