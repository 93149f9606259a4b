use super::*;
use crate::catalog::{Bundle, BundleError, Platform, PublisherKey, SignedBundle, sign};
use crate::random::SystemRandom;
use crate::time::Timestamp;

struct Pair {
    private: Secret<String>,
    public: PublicKey,
}

fn pair() -> Pair {
    let (private, public) = generate_key(&SystemRandom).unwrap();
    let public = PublicKey::from_pem(&public).unwrap();
    assert_eq!(public_half(&private).unwrap(), public);
    Pair { private, public }
}

fn ring(publisher: &[&Pair], release: &[&Pair], recovery: &[&Pair]) -> Keyring {
    let of = |pairs: &[&Pair]| -> Vec<PublicKey> { pairs.iter().map(|pair| pair.public).collect() };
    let publisher: Vec<_> = of(publisher).into_iter().map(PublisherKey::from).collect();
    let release: Vec<_> = of(release).into_iter().map(ReleaseKey::from).collect();
    let recovery: Vec<_> = of(recovery).into_iter().map(RecoveryKey::from).collect();
    Keyring::new(&publisher, &release, &recovery).unwrap()
}

fn says(
    by: &Pair,
    purpose: Purpose,
    serial: u64,
    adds: Option<&Pair>,
    retires: &[&Pair],
) -> SignedSuccession {
    let said = Succession {
        purpose,
        serial,
        adds: adds.map(|pair| pair.public),
        retires: retires.iter().map(|pair| pair.public).collect(),
    };
    sign_succession(&said, &by.private).unwrap()
}

fn believed(ring: &Keyring, pair: &Pair) -> bool {
    ring.publishers().iter().any(|key| *key.public() == pair.public)
}

fn bundle(by: &Pair) -> SignedBundle {
    let bundle = Bundle {
        serial: 1,
        min_serial: 0,
        not_after: Timestamp::from_micros(1),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: [].into(),
    };
    sign(&bundle, &by.private).unwrap()
}

fn release() -> Release {
    Release {
        version: "1.2.3".to_owned(),
        platform: Platform::Linux,
        arch: Arch::X86_64,
        size: 3,
        sha256: hex(&sha256(b"abc")),
        team: None,
    }
}

#[test]
fn the_old_key_or_the_recovery_key_signs_the_new_one_and_nobody_else() {
    let [old, new, recovery, stranger, release] = std::array::from_fn(|_| pair());
    let fresh = || ring(&[&old], &[&release], &[&recovery]);
    let adds = |by: &Pair| says(by, Purpose::Publisher, 1, Some(&new), &[&old]);
    for by in [&old, &recovery] {
        let mut ring = fresh();
        ring.accept(&adds(by)).unwrap();
        assert!(believed(&ring, &new) && !believed(&ring, &old) && ring.is_retired(&old.public));
        assert!(matches!(bundle(&old).verify(&ring.publishers()), Err(BundleError::Signature)));
        assert!(bundle(&new).verify(&ring.publishers()).is_ok());
    }
    for by in [&stranger, &new, &release] {
        let mut ring = fresh();
        assert!(matches!(ring.accept(&adds(by)), Err(SuccessionError::Signature)));
        assert!(believed(&ring, &old) && !believed(&ring, &new));
    }
    let good = adds(&old);
    for index in 0..good.payload.len() {
        let mut changed = good.clone();
        changed.payload[index] ^= 1;
        assert!(matches!(fresh().accept(&changed), Err(SuccessionError::Signature)), "byte {index}");
    }
}

#[test]
fn an_old_statement_brings_no_key_back() {
    let [first, second, third, recovery] = std::array::from_fn(|_| pair());
    let mut ring = ring(&[&first], &[], &[&recovery]);
    let to_second = says(&first, Purpose::Publisher, 1, Some(&second), &[&first]);
    let to_third = says(&second, Purpose::Publisher, 2, Some(&third), &[&second]);
    ring.accept(&to_second).unwrap();
    assert!(matches!(ring.accept(&to_second), Err(SuccessionError::Signature)), "its signer is retired");
    ring.accept(&to_third).unwrap();
    let again = says(&third, Purpose::Publisher, 2, Some(&second), &[]);
    assert!(matches!(ring.accept(&again), Err(SuccessionError::Older { got: 2, seen: 2 })));
    for by in [&third, &recovery] {
        let back = says(by, Purpose::Publisher, 9, Some(&first), &[]);
        assert!(matches!(ring.accept(&back), Err(SuccessionError::Retired(_))), "retired is for good");
    }
    assert!(believed(&ring, &third));
    let last = says(&third, Purpose::Publisher, 3, None, &[&third]);
    assert!(matches!(ring.accept(&last), Err(SuccessionError::LeavesNone)));
}

#[test]
fn who_stole_a_key_can_not_end_the_count() {
    let [stolen, theirs, ours, next, recovery] = std::array::from_fn(|_| pair());
    let mut ring = ring(&[&stolen], &[], &[&recovery]);
    ring.accept(&says(&stolen, Purpose::Publisher, u64::MAX, Some(&theirs), &[])).unwrap();
    ring.accept(&says(&recovery, Purpose::Publisher, 1, Some(&ours), &[&stolen, &theirs])).unwrap();
    assert!(believed(&ring, &ours) && !believed(&ring, &stolen) && !believed(&ring, &theirs));
    let again = says(&recovery, Purpose::Publisher, 1, Some(&next), &[]);
    assert!(matches!(ring.accept(&again), Err(SuccessionError::Older { got: 1, seen: 1 })));
    ring.accept(&says(&ours, Purpose::Publisher, 2, Some(&next), &[])).unwrap();
    assert!(believed(&ring, &next));
}

#[test]
fn each_purpose_has_keys_of_its_own() {
    let [publisher, releaser, recovery, new] = std::array::from_fn(|_| pair());
    let mut ring = ring(&[&publisher], &[&releaser], &[&recovery]);
    let signed = sign_release(&release(), &releaser.private).unwrap();
    assert_eq!(signed.verify(&ring.releases()).unwrap(), release());
    let by_publisher = sign_release(&release(), &publisher.private).unwrap();
    assert!(matches!(by_publisher.verify(&ring.releases()), Err(ReleaseError::Signature)));
    assert!(matches!(bundle(&releaser).verify(&ring.publishers()), Err(BundleError::Signature)));
    // The label keeps them apart too: a signature over the same bytes under another label is none.
    let relabelled = SignedBundle { payload: signed.payload.clone(), signature: signed.signature.clone() };
    let as_publisher = [PublisherKey::from(releaser.public)];
    assert!(matches!(relabelled.verify(&as_publisher), Err(BundleError::Signature)));

    for (by, purpose) in [(&publisher, Purpose::Release), (&releaser, Purpose::Publisher)] {
        let foreign = says(by, purpose, 1, Some(&new), &[]);
        assert!(matches!(ring.accept(&foreign), Err(SuccessionError::Signature)));
    }
    for taken in [&releaser, &recovery] {
        let taken = says(&publisher, Purpose::Publisher, 1, Some(taken), &[]);
        assert!(matches!(ring.accept(&taken), Err(SuccessionError::OtherPurpose(_))));
    }
    let both = Keyring::new(&[publisher.public.into()], &[publisher.public.into()], &[]);
    assert_eq!(both.unwrap_err(), KeyringError::TwoPurposes(publisher.public.name()));
}

#[test]
fn a_release_is_believed_with_every_byte_as_it_was_signed() {
    let key = pair();
    let keys = [ReleaseKey::from(key.public)];
    let signed = sign_release(&release(), &key.private).unwrap();
    for index in 0..signed.payload.len() {
        let mut changed = signed.clone();
        changed.payload[index] ^= 1;
        assert!(matches!(changed.verify(&keys), Err(ReleaseError::Signature)), "byte {index}");
    }
    let wrong: [fn(&mut Release); 8] = [
        |release| release.version = "1.2".to_owned(),
        |release| release.version = "1.02.3".to_owned(),
        |release| release.size = 0,
        |release| release.size = LARGEST_PROGRAM + 1,
        |release| release.sha256 = "AB".repeat(32),
        |release| release.team = Some("ABCDE12345".to_owned()),
        |release| release.platform = Platform::Macos,
        |release| (release.platform, release.team) = (Platform::Macos, Some("abcde12345".to_owned())),
    ];
    for (index, change) in wrong.iter().enumerate() {
        let mut release = release();
        change(&mut release);
        assert!(sign_release(&release, &key.private).is_err(), "{index}");
    }
    let version = |text: &str| text.parse::<Version>().unwrap();
    assert!(version("0.10.0") > version("0.9.9") && version("1.0.0") > version("0.99.99"));
    assert_eq!(version("10.0.7").to_string(), "10.0.7");
}

/// Made with the secret key of RFC 8032 section 7.1, test 1: what a statement and a release are, byte by byte.
#[test]
fn frozen_statements_and_releases_verify() {
    let key = PublicKey::from_bytes(
        &data_encoding::HEXLOWER
            .decode(b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
            .unwrap(),
    )
    .unwrap();
    let said: SignedSuccession =
        serde_json::from_str(include_str!("../../testdata/signing/succession.json")).unwrap();
    assert!(said.is_signed_by(&key));
    let read = said.read().unwrap();
    assert_eq!(
        (read.purpose, read.serial, read.retires.as_slice()),
        (Purpose::Publisher, 7, [key].as_slice())
    );
    let signed: SignedRelease =
        serde_json::from_str(include_str!("../../testdata/signing/release.json")).unwrap();
    assert_eq!(signed.verify(&[key.into()]).unwrap(), release());
}
