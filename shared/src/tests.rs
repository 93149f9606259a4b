//! Frozen bytes: what is written here has left the house. A change that breaks one of these breaks agents in the field.

use std::path::Path;

use ed25519_dalek::pkcs8::EncodePublicKey as _;

use crate::catalog::{
    Bundle, BundleError, PublisherKey, SignedBundle, Tag, generate_publisher_key, parse_duration, sign,
};
use crate::crypto::{
    ByteString, DeliveryContext, Fingerprint, FingerprintParts, OpenError, SealingKey, SealingPublicKey, hex,
    open_delivery, open_nonce, seal_delivery, seal_nonce, sha256,
};
use crate::ids::{BoardId, ClientId, DeliveryId, DeviceId, EnrollmentId, WipeId};
use crate::protocol::enroll::{
    Enrolled, EnrollmentStatus, JoinAnswer, JoinRequest, ProveRequest, RenewRequest, RenewalChallenge,
    StatusRequest, renewal_bytes,
};
use crate::protocol::link::{FromAgent, FromBoard, Receipt, ReportBody};
use crate::protocol::plan::Planned;
use crate::protocol::wipe::{WipeReceipt, WipedSlot};
use crate::random::{Random, SystemRandom};
use crate::secret::Secret;
use crate::time::{Clock as _, ManualClock, Timestamp};

/// Counts up, for ids and keys that are the same in every run.
struct Counting;

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(index + 1).unwrap_or(0);
        }
    }
}

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_micros(1_764_000_000_000_000))
}

#[test]
fn ids_are_version_7_and_ordered_by_time() {
    let clock = clock();
    let first = BoardId::new(&clock, &Counting);
    assert_eq!(first.to_string(), "019ab697-e800-7102-8304-05060708090a");
    clock.advance(std::time::Duration::from_millis(1));
    assert!(BoardId::new(&clock, &Counting) > first);
    assert_eq!(first.to_string().parse::<BoardId>().unwrap(), first);
}

#[test]
fn times_keep_their_microseconds_and_sort() {
    let at = Timestamp::from_micros(1_764_000_000_000_001);
    assert_eq!(at.rfc3339(), "2025-11-24T16:00:00.000001Z");
    assert_eq!(Timestamp::from_datetime(at.to_datetime()), at);
    let later = at.after(std::time::Duration::from_micros(2));
    assert_eq!(later.since(at).as_micros(), 2);
    assert_eq!(at.since(later).as_micros(), 0);
    assert_eq!(clock().now().as_micros(), 1_764_000_000_000_000);
}

#[test]
fn byte_strings_have_lengths_where_parts_vary() {
    let bytes = ByteString::labelled("label").fixed(&[1, 2]).part(b"abc").u64(7).u32(8).finish();
    assert_eq!(hex(&bytes), "6c6162656c0102000000036162630000000000000007".to_owned() + "00000008");
    let (left, right) =
        (ByteString::empty().part(b"ab").part(b"c"), ByteString::empty().part(b"a").part(b"bc"));
    assert_ne!(left.finish(), right.finish());
}

#[test]
fn the_fingerprint_is_frozen_and_covers_every_part() {
    let clock = clock();
    let board_id = BoardId::new(&clock, &Counting);
    let client_id = ClientId::new(&clock, &Counting);
    let enrollment_id = EnrollmentId::new(&clock, &Counting);
    let key = [9; 32];
    let parts = FingerprintParts {
        ca_spki: b"ca",
        board_id,
        client_id,
        enrollment_id,
        tls_spki: b"tls",
        sealing_public_key: &key,
    };
    let fingerprint = Fingerprint::of(&parts);
    assert_eq!(fingerprint.to_string(), include_str!("../testdata/fingerprint.txt").trim());
    assert!(fingerprint.matches(&fingerprint.to_string().to_lowercase().replace(' ', "-")));
    assert!(!fingerprint.matches(""));
    let other_board = BoardId::new(&clock, &SystemRandom);
    let other_key = [8; 32];
    let changes = [
        FingerprintParts { ca_spki: b"cb", ..parts },
        FingerprintParts { board_id: other_board, ..parts },
        FingerprintParts { client_id: ClientId::new(&clock, &SystemRandom), ..parts },
        FingerprintParts { enrollment_id: EnrollmentId::new(&clock, &SystemRandom), ..parts },
        FingerprintParts { tls_spki: b"tlt", ..parts },
        FingerprintParts { sealing_public_key: &other_key, ..parts },
    ];
    for changed in changes {
        assert_ne!(Fingerprint::of(&changed), fingerprint, "{changed:?}");
    }
}

#[test]
fn a_sealed_delivery_opens_with_every_field_as_it_was_and_with_none_changed() {
    let clock = clock();
    let key = SealingKey::generate(&SystemRandom);
    let context = DeliveryContext {
        client_id: ClientId::new(&clock, &SystemRandom),
        device_id: DeviceId::new(&clock, &SystemRandom),
        component_key: "tool",
        slot_key: "KEY",
        tag: Tag::OurManaged,
        version: 3,
        delivery_id: DeliveryId::new(&clock, &SystemRandom),
        expires: clock.now(),
    };
    let value = Secret::new(b"the value".to_vec());
    let sealed = seal_delivery(&key.public_key(), &context, &value).unwrap();
    assert!(sealed.starts_with(b"BSD1"));
    assert_eq!(sealed.len(), 4 + 32 + value.expose().len() + 16);
    assert_ne!(
        sealed,
        seal_delivery(&key.public_key(), &context, &value).unwrap(),
        "a fresh encapsulation each time"
    );
    assert_eq!(open_delivery(&key, &context, &sealed).unwrap().expose(), value.expose());

    let changes = [
        DeliveryContext { client_id: ClientId::new(&clock, &SystemRandom), ..context.clone() },
        DeliveryContext { device_id: DeviceId::new(&clock, &SystemRandom), ..context.clone() },
        DeliveryContext { component_key: "tools", ..context.clone() },
        DeliveryContext { component_key: "too", slot_key: "lKEY", ..context.clone() },
        DeliveryContext { slot_key: "KEZ", ..context.clone() },
        DeliveryContext { tag: Tag::ClientSupplied, ..context.clone() },
        DeliveryContext { version: 2, ..context.clone() },
        DeliveryContext { delivery_id: DeliveryId::new(&clock, &SystemRandom), ..context.clone() },
        DeliveryContext { expires: Timestamp::from_micros(0), ..context.clone() },
    ];
    for changed in changes {
        assert_eq!(open_delivery(&key, &changed, &sealed).unwrap_err(), OpenError, "{changed:?}");
    }
    let other = SealingKey::generate(&SystemRandom);
    assert!(open_delivery(&other, &context, &sealed).is_err());
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert!(open_delivery(&key, &context, &changed).is_err(), "byte {index}");
        assert!(open_delivery(&key, &context, &sealed[..index]).is_err(), "cut at {index}");
    }
}

#[test]
fn a_nonce_opens_for_its_enrollment_only() {
    let clock = clock();
    let key = SealingKey::from_bytes([5; 32]);
    let id = EnrollmentId::new(&clock, &SystemRandom);
    let sealed = seal_nonce(&key.public_key(), id, &[7; 32]).unwrap();
    assert_eq!(open_nonce(&key, id, &sealed).unwrap(), [7; 32]);
    assert!(open_nonce(&key, EnrollmentId::new(&clock, &SystemRandom), &sealed).is_err());
    assert!(SealingPublicKey::from_bytes(&[1; 31]).is_none());
}

#[test]
fn a_step_of_an_unknown_kind_is_refused_never_skipped() {
    let manifest = r#"
key = "tool"
name = "Tool"
category = "ai"
summary = "Has steps."
platforms = ["macos", "linux"]
[[step]]
id = "install"
kind = "auto"
title = "Install"
as = "user"
check = "false"
run = "true"
"#;
    let with = |text: String| Bundle { manifests: [("tool".to_owned(), text)].into(), ..bundle(4) };
    let parsed = |text: String| with(text).parse_manifests();
    assert_eq!(parsed(manifest.to_owned()).unwrap()["tool"].steps.len(), 1);
    let refused = parsed(manifest.replace("\"auto\"", "\"dance\"")).unwrap_err();
    assert!(refused.to_string().contains("tool") && refused.to_string().contains("dance"), "{refused}");
}

fn bundle(serial: u64) -> Bundle {
    Bundle {
        serial,
        min_serial: 0,
        not_after: clock().now(),
        revoked_steps: vec!["tool/install".into()],
        tiers: String::new(),
        manifests: [("bad".to_owned(), "key = 1".to_owned())].into(),
    }
}

#[test]
fn a_bundle_is_believed_under_its_publishers_key_only() {
    let (private, public) = generate_publisher_key(&SystemRandom).unwrap();
    let (_, stranger) = generate_publisher_key(&SystemRandom).unwrap();
    let [key, other] = [public, stranger].map(|pem| PublisherKey::from_pem(&pem).unwrap());
    let signed = sign(&bundle(4), &private).unwrap();
    let read = signed.verify(&[other, key]).unwrap();
    assert!(matches!(signed.verify(std::slice::from_ref(&other)), Err(BundleError::Signature)));
    assert!(matches!(signed.verify(&[]), Err(BundleError::Signature)));
    for index in 0..signed.payload.len() {
        let mut changed = signed.clone();
        changed.payload[index] ^= 1;
        assert!(
            matches!(changed.verify(std::slice::from_ref(&key)), Err(BundleError::Signature)),
            "byte {index}"
        );
    }
    let now = clock().now();
    assert!(matches!(read.check_fresh(5, now), Err(BundleError::Older { got: 4, seen: 5 })));
    assert!(read.check_fresh(4, now).is_ok());
    let later = now.after(std::time::Duration::from_micros(1));
    assert!(matches!(read.check_fresh(4, later), Err(BundleError::Ended(_))));
    assert!(read.is_revoked("tool", "install") && !read.is_revoked("tool", "installs"));
    assert!(matches!(read.parse_manifests(), Err(BundleError::Manifest { .. })));
    assert!(PublisherKey::from_pem("nothing").is_err());
}

/// RFC 8032 section 7.1, test 1: the public key of the secret key, as our PEM form reads it.
#[test]
fn a_known_ed25519_key_is_read() {
    let secret = data_encoding::HEXLOWER
        .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        .unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&secret.try_into().unwrap());
    let raw = key.verifying_key().to_bytes();
    assert_eq!(hex(&raw), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let pem =
        key.verifying_key().to_public_key_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF).unwrap();
    assert_eq!(PublisherKey::from_pem(&pem).unwrap().name(), hex(&sha256(&raw)[..8]));
}

#[test]
fn durations_are_bounded() {
    let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
    assert_eq!((seconds("30s"), seconds("5m"), seconds("24h")), (Some(30), Some(300), Some(86_400)));
    for bad in ["", "5", "m", "0s", "25h", "-1s", "1.5m", "5 m", "99999999999999999999s"] {
        assert_eq!(seconds(bad), None, "{bad:?}");
    }
}

#[test]
fn secrets_do_not_print() {
    let secret = Secret::new("very secret".to_owned());
    assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
}

/// Every frozen frame: its name says which type reads it. Reading and writing gives the same JSON.
#[test]
fn frozen_frames_read_and_write_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/wire/v1");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let again = match name.split_once('.').unwrap().0 {
            "from_agent" => rewrite::<FromAgent>(&text),
            "from_board" => rewrite::<FromBoard>(&text),
            "join_request" => rewrite::<JoinRequest>(&text),
            "join_answer" => rewrite::<JoinAnswer>(&text),
            "status_request" => rewrite::<StatusRequest>(&text),
            "status" => rewrite::<EnrollmentStatus>(&text),
            "prove_request" => rewrite::<ProveRequest>(&text),
            "renewal_challenge" => rewrite::<RenewalChallenge>(&text),
            "renew_request" => rewrite::<RenewRequest>(&text),
            "enrolled" => rewrite::<Enrolled>(&text),
            "bundle" => rewrite::<SignedBundle>(&text),
            other => panic!("{name}: which type is {other}?"),
        };
        assert_eq!(again, value, "{name}");
        count += 1;
    }
    assert!(count >= 20, "the frozen frames are there: {count}");
}

fn rewrite<T: serde::Serialize + serde::de::DeserializeOwned>(text: &str) -> serde_json::Value {
    serde_json::to_value(serde_json::from_str::<T>(text).unwrap()).unwrap()
}

#[test]
fn frames_of_the_future_are_told_apart_not_misread() {
    let unknown: FromAgent = serde_json::from_str(r#"{"type":"telepathy","strength":9}"#).unwrap();
    assert_eq!(unknown, FromAgent::Unknown);
    let unknown: FromBoard = serde_json::from_str(r#"{"type":"dissolve","all":true}"#).unwrap();
    assert_eq!(unknown, FromBoard::Unknown);
    let unknown: ReportBody = serde_json::from_str(r#"{"kind":"dream"}"#).unwrap();
    assert_eq!(unknown, ReportBody::Unknown);
    let answer: Planned = serde_json::from_str(r#""in_two_minds""#).unwrap();
    assert_eq!(answer, Planned::Unknown);
    let hello = include_str!("../testdata/wire/v1/from_agent.hello.json");
    let FromAgent::Hello(hello) = serde_json::from_str(hello).unwrap() else { panic!("it is a hello") };
    assert_eq!(hello.plans, None, "an agent from before plans");
    let more: FromBoard = serde_json::from_str(r#"{"type":"ack","reports":[],"added_later":1}"#).unwrap();
    assert_eq!(more, FromBoard::Ack { reports: Vec::new() });
}

#[test]
fn a_receipt_covers_all_that_it_says() {
    let clock = clock();
    let receipt = Receipt {
        delivery_id: DeliveryId::new(&clock, &Counting),
        component: "tool".into(),
        slot: "KEY".into(),
        version: 1,
        time: clock.now(),
        signature: Vec::new(),
    };
    let (board, device) = (BoardId::new(&clock, &Counting), DeviceId::new(&clock, &Counting));
    let bytes = receipt.signed_bytes(board, device);
    assert!(bytes.starts_with(b"board/receipt/v1"));
    let changes = [
        Receipt { component: "toolK".into(), slot: "EY".into(), ..receipt.clone() },
        Receipt { version: 2, ..receipt.clone() },
        Receipt { time: Timestamp::from_micros(1), ..receipt.clone() },
        Receipt { delivery_id: DeliveryId::new(&clock, &SystemRandom), ..receipt.clone() },
    ];
    for changed in changes {
        assert_ne!(changed.signed_bytes(board, device), bytes);
    }
    assert_ne!(receipt.signed_bytes(BoardId::new(&clock, &SystemRandom), device), bytes);
    assert_ne!(receipt.signed_bytes(board, DeviceId::new(&clock, &SystemRandom)), bytes);
}

#[test]
fn a_wipe_receipt_covers_all_that_it_says() {
    let clock = clock();
    let slot = |component: &str, slot: &str| WipedSlot { component: component.into(), slot: slot.into() };
    let receipt = WipeReceipt {
        wipe_id: WipeId::new(&clock, &Counting),
        removed: vec![slot("tool", "KEY")],
        left: vec![slot("slack", "TOKEN")],
        time: clock.now(),
        signature: Vec::new(),
    };
    let (board, device) = (BoardId::new(&clock, &Counting), DeviceId::new(&clock, &Counting));
    let bytes = receipt.signed_bytes(board, device);
    assert_eq!(hex(&bytes), include_str!("../testdata/wiped.txt").trim());
    let changes = [
        WipeReceipt { removed: vec![slot("toolK", "EY")], ..receipt.clone() },
        WipeReceipt {
            removed: Vec::new(),
            left: vec![slot("tool", "KEY"), slot("slack", "TOKEN")],
            ..receipt.clone()
        },
        WipeReceipt { left: Vec::new(), ..receipt.clone() },
        WipeReceipt { time: Timestamp::from_micros(1), ..receipt.clone() },
        WipeReceipt { wipe_id: WipeId::new(&clock, &SystemRandom), ..receipt.clone() },
    ];
    for changed in changes {
        assert_ne!(changed.signed_bytes(board, device), bytes);
    }
    assert_ne!(receipt.signed_bytes(BoardId::new(&clock, &SystemRandom), device), bytes);
    assert_ne!(receipt.signed_bytes(board, DeviceId::new(&clock, &SystemRandom)), bytes);
}

#[test]
fn a_renewal_covers_the_board_the_enrollment_the_nonce_and_the_connection() {
    let clock = clock();
    let (board, enrollment) = (BoardId::new(&clock, &Counting), EnrollmentId::new(&clock, &Counting));
    let bytes = renewal_bytes(board, enrollment, &[7; 32], &[9; 32]);
    assert_eq!(hex(&bytes), include_str!("../testdata/renewal.txt").trim());
    let other_board = BoardId::new(&clock, &SystemRandom);
    let other_enrollment = EnrollmentId::new(&clock, &SystemRandom);
    for changed in [
        renewal_bytes(other_board, enrollment, &[7; 32], &[9; 32]),
        renewal_bytes(board, other_enrollment, &[7; 32], &[9; 32]),
        renewal_bytes(board, enrollment, &[8; 32], &[9; 32]),
        renewal_bytes(board, enrollment, &[7; 32], &[8; 32]),
    ] {
        assert_ne!(changed, bytes);
    }
}
