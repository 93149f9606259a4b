use rcgen::{BasicConstraints, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, SanType};
use shared::ids::BoardId;
use shared::random::SystemRandom;
use shared::time::SystemClock;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use super::*;

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>, key: &KeyPair, uri: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(key, ca).unwrap().der().to_vec()
}

#[test]
fn a_certificate_is_believed_only_when_everything_in_it_is_ours() {
    let (board, other_board) =
        (BoardId::new(&SystemClock, &SystemRandom), BoardId::new(&SystemClock, &SystemRandom));
    let device_id = DeviceId::new(&SystemClock, &SystemRandom);
    let (ours, theirs) = (ca("ours"), ca("ours"));
    let (key, other_key) = (key(), key());
    let uri = |board: BoardId| format!("spiffe://{board}/device/{device_id}");
    let now = SystemClock.now();
    let check = |certificate: Vec<u8>| {
        let enrolled = Enrolled { device_id, certificate, not_after: now };
        certificate::check(&enrolled, &key, ours.der(), board, now)
    };
    assert_eq!(check(issue(&ours, &key, &uri(board))), Ok(()));
    assert_eq!(check(issue(&ours, &other_key, &uri(board))), Err("it is for another key"));
    assert_eq!(check(issue(&theirs, &key, &uri(board))), Err("the pinned CA did not sign it"));
    assert_eq!(check(issue(&ours, &key, &uri(other_board))), Err("it does not name this device"));
    assert_eq!(check(b"nonsense".to_vec()), Err("it can't be read"));
}

#[test]
fn the_request_for_a_certificate_asks_for_nothing() {
    let key = key();
    let der = csr(&key).unwrap();
    let (rest, request) = X509CertificationRequest::from_der(&der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(request.certification_request_info.subject.iter().count(), 0);
    assert!(request.requested_extensions().is_none_or(|mut extensions| extensions.next().is_none()));
    assert_eq!(request.certification_request_info.subject_pki.raw, key.subject_public_key_info());
}

#[test]
fn the_same_join_again_uses_the_same_keys_and_another_code_other_ones() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().to_owned());
    let vault = vault::open(&paths, true).unwrap();
    let mut options = JoinOptions {
        board: "https://127.0.0.1:1".to_owned(),
        pin: "00".repeat(32),
        code: "ABCDEFGH".to_owned(),
        publisher_key: None,
        release_key: None,
        recovery_key: None,
        dev: true,
        managed_user: None,
        hardware_uuid: None,
    };
    let spki = |options: &JoinOptions| {
        begin(&paths, &vault, options, &SystemRandom).unwrap().0.tls.subject_public_key_info()
    };
    let first = spki(&options);
    assert_eq!(spki(&options), first);
    options.code = "abcdefgh ".to_owned();
    assert_eq!(spki(&options), first, "typed a little differently, it is the same code");
    options.code = "HGFEDCBA".to_owned();
    assert_ne!(spki(&options), first);
}

#[tokio::test]
async fn joining_without_a_publisher_key_or_without_dev_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().join("data"));
    let mut options = JoinOptions {
        board: "https://127.0.0.1:1".to_owned(),
        pin: "00".repeat(32),
        code: "ABCDEFGH".to_owned(),
        publisher_key: None,
        release_key: None,
        recovery_key: None,
        dev: true,
        managed_user: None,
        hardware_uuid: None,
    };
    let refused = join(&paths, &options, &SystemClock, &SystemRandom, &mut |_| {}).await;
    assert!(matches!(refused, Err(JoinError::NoPublisherKey)));
    options.dev = false;
    let refused = join(&paths, &options, &SystemClock, &SystemRandom, &mut |_| {}).await;
    if Platform::current() == Some(Platform::Linux) {
        assert!(matches!(refused, Err(JoinError::NeedsDev)));
    }
    assert!(!paths.data().exists(), "a refused join leaves nothing behind");
}

#[test]
fn the_software_is_not_for_root() {
    let paths = Paths::new("/nowhere".into());
    let mut options = JoinOptions {
        board: String::new(),
        pin: String::new(),
        code: String::new(),
        publisher_key: None,
        release_key: None,
        recovery_key: None,
        dev: false,
        managed_user: Some("root".to_owned()),
        hardware_uuid: None,
    };
    assert!(matches!(managed_user(&paths, &options), Err(JoinError::ManagedRoot)));
    options.dev = true;
    assert_eq!(managed_user(&paths, &options).unwrap().home, paths.dev_home());
}
