use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SigningKey as _};
use shared::protocol::enroll::EnrollmentStatus;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    CertificateRefused, DecideError, DeviceState, EnrollError, approve, check_certificate, pending, reject,
    revoke,
};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::testing::{Fixture, TestDevice};

const MAC: &str = "A-UUID";

async fn actions(fixture: &Fixture) -> Vec<Action> {
    let mut tx = fixture.app.db.read().await.unwrap();
    audit::page(&mut tx, None, 100).await.unwrap().into_iter().map(|stored| stored.entry.action).collect()
}

#[tokio::test]
async fn a_device_joins_is_approved_by_its_fingerprint_and_gets_a_certificate() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let mut device = TestDevice::new(MAC, fixture.app.now());
        device.facts.host_name = "קבלה 🖥️".into();
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        assert_eq!(device.status(&fixture.app, &answer).await.unwrap(), EnrollmentStatus::Pending);
        let typed = device.fingerprint(&fixture.app, &answer).to_lowercase().replace(' ', " - ");
        let device_id =
            approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
        let enrolled = device.prove(&fixture.app, &answer).await.unwrap();
        assert_eq!(enrolled.device_id, device_id);

        let (_, certificate) = X509Certificate::from_der(&enrolled.certificate).unwrap();
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let expected = format!("spiffe://{}/device/{device_id}", answer.board_id);
        assert!(format!("{:?}", names.value.general_names).contains(&expected));
        let validity = certificate.validity();
        let span = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(span, 7 * 24 * 3600 + 60);
    })
    .await;
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_and_other_keys_are_refused() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let code = fixture.code(client).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let first = device.join(&fixture.app, &code).await.unwrap();
        assert_eq!(device.join(&fixture.app, &code.to_lowercase()).await.unwrap(), first);
        let other = TestDevice::new(MAC, fixture.app.now());
        assert!(matches!(other.join(&fixture.app, &code).await, Err(EnrollError::CodeUsed)));
        assert!(actions(&fixture).await.contains(&Action::DeviceRefused), "the page can warn");
        let typed = device.fingerprint(&fixture.app, &first);
        approve(&fixture.app, Fixture::who(), fixture.user, first.enrollment_id, &typed).await.unwrap();
        let proof = device.prove(&fixture.app, &first).await.unwrap();
        assert_eq!(device.join(&fixture.app, &code).await.unwrap(), first, "also after the approval");
        let nonce_again = device.status(&fixture.app, &first).await.unwrap();
        assert_eq!(nonce_again, EnrollmentStatus::Enrolled);
        assert!(proof.not_after > fixture.app.now());
    })
    .await;
}

#[tokio::test]
async fn the_same_proof_again_gives_the_same_certificate() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        let typed = device.fingerprint(&fixture.app, &answer);
        approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
        let EnrollmentStatus::Approved { sealed_nonce } = device.status(&fixture.app, &answer).await.unwrap()
        else {
            panic!("approved")
        };
        let nonce = shared::crypto::open_nonce(&device.sealing, answer.enrollment_id, &sealed_nonce)
            .unwrap()
            .to_vec();
        let wrong = device.prove_with(&fixture.app, &answer, vec![7; 32]).await;
        assert!(matches!(wrong, Err(EnrollError::Nonce)));
        let first = device.prove_with(&fixture.app, &answer, nonce.clone()).await.unwrap();
        assert_eq!(device.prove_with(&fixture.app, &answer, nonce).await.unwrap(), first);
    })
    .await;
}

#[tokio::test]
async fn wrong_and_late_codes_are_refused_and_too_many_have_to_wait() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let late = fixture.code(client).await;
        fixture.clock.advance(Duration::from_secs(3601));
        assert!(matches!(device.join(&fixture.app, &late).await, Err(EnrollError::Code)));
        for _ in 0..19 {
            assert!(matches!(device.join(&fixture.app, "AAAAAAAA").await, Err(EnrollError::Code)));
        }
        let good = fixture.code(client).await;
        assert!(matches!(device.join(&fixture.app, &good).await, Err(EnrollError::TooMany)));
        fixture.clock.advance(Duration::from_secs(3601));
        let good = fixture.code(client).await;
        device.join(&fixture.app, &good).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_fingerprint_that_does_not_match_approves_nothing() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        let right = device.fingerprint(&fixture.app, &answer);
        let other = TestDevice::new("B-UUID", fixture.app.now());
        let others = other.fingerprint(&fixture.app, &answer);
        for (typed, short) in
            [(others.as_str(), false), ("AAAA AAAA AAAA AAAA", false), (&right[..10], true), ("", true)]
        {
            let refused =
                approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, typed).await;
            let error = refused.unwrap_err();
            let fits = if short {
                matches!(error, DecideError::Incomplete)
            } else {
                matches!(error, DecideError::Mismatch)
            };
            assert!(fits, "{typed:?}: {error}");
        }
        assert_eq!(device.status(&fixture.app, &answer).await.unwrap(), EnrollmentStatus::Pending);
        assert_eq!(actions(&fixture).await.iter().filter(|a| **a == Action::EnrollmentMismatch).count(), 2);
    })
    .await;
}

#[tokio::test]
async fn csrs_that_ask_for_more_are_refused() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let code = fixture.code(client).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let plain = || {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params
        };
        let mut authority = plain();
        authority.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &[2, 5, 29, 19],
            vec![0x30, 0x03, 0x01, 0x01, 0xff],
        )];
        let mut named = plain();
        named.distinguished_name.push(DnType::CommonName, "somebody else");
        let mut alternative = plain();
        alternative.subject_alt_names =
            vec![rcgen::SanType::DnsName("board.example.com".try_into().unwrap())];
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut tampered = device.csr();
        *tampered.last_mut().unwrap() ^= 1;
        let requests = [
            ("CA:TRUE", authority.serialize_request(&device.tls).unwrap().der().to_vec()),
            ("a name", named.serialize_request(&device.tls).unwrap().der().to_vec()),
            ("an alternative name", alternative.serialize_request(&device.tls).unwrap().der().to_vec()),
            ("P-384", plain().serialize_request(&p384).unwrap().der().to_vec()),
            ("a broken signature", tampered),
            ("not a CSR", b"hello".to_vec()),
        ];
        for (what, csr) in requests {
            let mut request = device.request(&code);
            request.csr = csr;
            let refused = device.send(&fixture.app, &request).await;
            assert!(matches!(refused, Err(EnrollError::Csr(_))), "{what}: {refused:?}");
        }
        device.join(&fixture.app, &code).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_request_signed_by_another_key_or_with_bad_facts_is_refused() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let code = fixture.code(client).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let other = TestDevice::new(MAC, fixture.app.now());
        let request = device.request(&code);
        let body = serde_json::to_vec(&request).unwrap();
        let forged = other.tls.sign(&body).unwrap();
        let refused = super::join(&fixture.app, &request, &body, &forged, "192.0.2.17").await;
        assert!(matches!(refused, Err(EnrollError::Signature)));
        let right = device.tls.sign(&body).unwrap();
        let longer = [body.as_slice(), b" "].concat();
        let refused = super::join(&fixture.app, &request, &longer, &right, "192.0.2.17").await;
        assert!(matches!(refused, Err(EnrollError::Signature)));

        let mut short_key = device.request(&code);
        short_key.sealing_public_key.pop();
        assert!(matches!(device.send(&fixture.app, &short_key).await, Err(EnrollError::SealingKey)));
        for host_name in [String::new(), "x".repeat(256), "bell\u{7}".to_owned(), "nul\0".to_owned()] {
            let mut bad = device.request(&code);
            bad.facts.host_name = host_name;
            assert!(matches!(device.send(&fixture.app, &bad).await, Err(EnrollError::Facts(_))));
        }
        let mut not_dev = device.request(&code);
        not_dev.facts.dev = false;
        assert!(matches!(device.send(&fixture.app, &not_dev).await, Err(EnrollError::Facts(_))));
        device.join(&fixture.app, &code).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rejecting_wants_a_reason_and_the_device_hears_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        let id = answer.enrollment_id;
        let token = format!("sk-{}", "abcdefghijklmnopqrstu");
        for reason in ["  ", token.as_str()] {
            let refused = reject(&fixture.app, Fixture::who(), fixture.user, id, reason).await.unwrap_err();
            assert!(matches!(refused, DecideError::Reason(_)) && !refused.to_string().contains(&token));
        }
        reject(&fixture.app, Fixture::who(), fixture.user, id, "Wrong office").await.unwrap();
        let heard = device.status(&fixture.app, &answer).await.unwrap();
        assert_eq!(heard, EnrollmentStatus::Rejected { reason: "Wrong office".into() });
        let typed = device.fingerprint(&fixture.app, &answer);
        let late = approve(&fixture.app, Fixture::who(), fixture.user, id, &typed).await;
        assert!(matches!(late, Err(DecideError::NotOpen)));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_nobody_decides_expires() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new(MAC, fixture.app.now());
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        fixture.clock.advance(Duration::from_secs(3601));
        let mut tx = fixture.app.db.read().await.unwrap();
        assert!(pending(&mut tx, fixture.app.now()).await.unwrap().is_empty());
        drop(tx);
        let typed = device.fingerprint(&fixture.app, &answer);
        let late = approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await;
        assert!(matches!(late, Err(DecideError::NotOpen)));
        assert_eq!(device.status(&fixture.app, &answer).await.unwrap(), EnrollmentStatus::Expired);
    })
    .await;
}

#[tokio::test]
async fn only_the_latest_certificate_of_an_enrolled_device_is_let_in() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (first, device_id) = fixture.enrolled(client, MAC).await;
        let serial = {
            let mut tx = fixture.app.db.read().await.unwrap();
            super::store::serials(&mut tx, device_id).await.unwrap().unwrap().1.unwrap()
        };
        let let_in = |serial: Vec<u8>| {
            let app = fixture.app.clone();
            async move { check_certificate(&app, device_id, &serial, "192.0.2.17").await }
        };
        assert_eq!(let_in(serial.clone()).await.unwrap().state, DeviceState::Enrolled);
        assert!(let_in(serial.clone()).await.is_ok(), "again and again");
        assert!(matches!(let_in(vec![1; 16]).await, Err(CertificateRefused::Stale)));
        assert!(actions(&fixture).await.contains(&Action::DeviceRefused), "an alarm is in the log");

        // The same Mac joins again with new keys: it keeps its device, and its old certificate is out.
        let (second, again) = fixture.enrolled(client, MAC).await;
        assert_eq!(again, device_id);
        assert!(matches!(let_in(serial).await, Err(CertificateRefused::Stale)));
        assert_ne!(first.tls.serialize_der(), second.tls.serialize_der());

        let other = fixture.client("Other Client", &["base"]).await;
        let moved = TestDevice::new(MAC, fixture.app.now());
        let answer = moved.join(&fixture.app, &fixture.code(other).await).await.unwrap();
        let typed = moved.fingerprint(&fixture.app, &answer);
        let refused = approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await;
        assert!(matches!(refused, Err(DecideError::OtherClient)));
    })
    .await;
}

#[tokio::test]
async fn a_revoked_device_is_out_at_once_and_may_join_again_as_another() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device_id) = fixture.enrolled(client, MAC).await;
        let serial = {
            let mut tx = fixture.app.db.read().await.unwrap();
            super::store::serials(&mut tx, device_id).await.unwrap().unwrap().1.unwrap()
        };
        let without = revoke(&fixture.app, Fixture::who(), device_id, "  ").await.unwrap_err();
        assert_eq!(without.public.status, 422);
        revoke(&fixture.app, Fixture::who(), device_id, "It was stolen").await.unwrap();
        let refused = check_certificate(&fixture.app, device_id, &serial, "192.0.2.17").await;
        assert!(matches!(refused, Err(CertificateRefused::NotEnrolled)));
        let again = revoke(&fixture.app, Fixture::who(), device_id, "It was stolen").await.unwrap_err();
        assert_eq!(again.public.status, 409);
        assert_eq!(actions(&fixture).await.iter().filter(|a| **a == Action::DeviceRevoked).count(), 1);
        let (_, other) = fixture.enrolled(client, MAC).await;
        assert_ne!(other, device_id);
    })
    .await;
}
