//! Published vectors of what secrets at rest stand on, through the crates that this build really has.

use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use sha2::Sha256;
use shared::secret::Secret;

use crate::aead;

/// Lines of fields in hexadecimal; `-` is empty.
fn rows(text: &str) -> Vec<Vec<Vec<u8>>> {
    let field = |text: &str| match text {
        "-" => Vec::new(),
        hex => HEXLOWER.decode(hex.as_bytes()).unwrap(),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(field).collect()).collect()
}

#[test]
fn hkdf_gives_what_rfc_5869_says() {
    let rows = rows(include_str!("../../../shared/testdata/vectors/hkdf-rfc5869.txt"));
    assert_eq!(rows.len(), 3);
    for row in rows {
        let [ikm, salt, info, okm] = row.as_slice() else { panic!("{row:?}") };
        let mut out = vec![0; okm.len()];
        Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut out).unwrap();
        assert_eq!(&out, okm);
    }
}

#[test]
fn aes_256_gcm_opens_what_nist_sealed_and_nothing_that_was_changed() {
    let rows = rows(include_str!("../../../shared/testdata/vectors/aes-256-gcm-nist.txt"));
    assert!(rows.len() >= 25, "{}", rows.len());
    for row in rows {
        let [key, nonce, plain, aad, ciphertext, tag] = row.as_slice() else { panic!("{row:?}") };
        let key = Secret::new(<[u8; 32]>::try_from(key.as_slice()).unwrap());
        let mut sealed = [nonce.as_slice(), ciphertext, tag].concat();
        assert_eq!(aead::open(&key, aad, &sealed).unwrap().expose(), plain);
        for at in 0..sealed.len() {
            sealed[at] ^= 1;
            assert!(aead::open(&key, aad, &sealed).is_err(), "byte {at}");
            sealed[at] ^= 1;
        }
        assert!(aead::open(&key, &[aad.as_slice(), b"x"].concat(), &sealed).is_err());
    }
}
